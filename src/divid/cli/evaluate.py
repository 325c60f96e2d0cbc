"""`divid evaluate`: what a model does on held-out clips, as numbers and as pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from divid.cli import common

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--data", required=True, help="prepared data set")
    parser.add_argument("--out", required=True, help="folder for evaluation.json and swaps.png; made if it is not there")
    parser.add_argument("--split", choices=("test", "train"), default="test", help="which clips")
    parser.add_argument("--pairs", type=int, default=8, help="swaps on the sheet, pairs drawn at random by --seed")
    common.add_model_arguments(parser)
    common.add_sampling_arguments(parser)


def run(args: Namespace) -> None:
    """Measure, write and print."""
    from dataclasses import asdict

    from divid.config import to_dict
    from divid.data.clips import ClipDataset
    from divid.evaluation.quality import measure_reconstruction
    from divid.evaluation.swap import draw_pairs, swap_sheet
    from divid.outputs import atomic_path, write_image

    out = common.output_folder(args.out)
    pipeline = common.load_pipeline(args)
    options, model = pipeline.model.options, pipeline.model.eval()
    clips = ClipDataset.open(args.data, split=args.split, image_size=options.image_size, channels=options.channels)
    shared: dict[str, Any] = {
        "num_frames": options.frames_per_sequence,
        "sampling": common.chosen_sampling(args, pipeline.sampling),
    }
    with common.progress_bar() as progress:
        reconstruction = measure_reconstruction(model, clips, seed=args.seed, told=progress, **shared)
    pairs = draw_pairs(clips, args.pairs, args.seed)
    title = f"{Path(args.data).name}, {args.split} clips: {len(pairs)} random swaps, seed {args.seed}"
    write_image(out / "swaps.png", swap_sheet(model, clips, pairs, seed=args.seed, title=title, **shared))
    result = {
        "model": str(args.model),
        "data": str(args.data),
        "split": args.split,
        "seed": args.seed,
        "frames_per_clip": options.frames_per_sequence,
        "sampling": to_dict(shared["sampling"]),
        "psnr_db": asdict(reconstruction),
        "pairs": [[clips.clip_id(a), clips.clip_id(b)] for a, b in pairs],
    }
    with atomic_path(out / "evaluation.json") as path:
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, estimate in asdict(reconstruction).items():
        interval = f"[{estimate['low']:.2f}, {estimate['high']:.2f}]"
        common.say(f"PSNR {name:<12} {estimate['mean']:6.2f} dB  {interval}  over {estimate['num_clips']} clips")
    common.say(f"numbers  {out / 'evaluation.json'}\nswaps    {out / 'swaps.png'}")
