"""`divid evaluate`: what a model does on held-out clips, as numbers and as pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from divid.cli import common

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from divid.data.clips import ClipDataset
    from divid.evaluation.judge import Judge
    from divid.evaluation.pairs import PairList


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--data", required=True, help="prepared data set")
    parser.add_argument("--out", required=True, help="folder for evaluation.json and swaps.png; made if it is not there")
    parser.add_argument("--split", choices=("test", "train"), default="test", help="which clips")
    parser.add_argument("--pairs", type=int, default=8, help="swaps on the sheet, pairs drawn at random by --seed")
    parser.add_argument("--judge", default=None, metavar="FOLDER", help="judge of swaps, made by divid judge; adds swaps.json")
    parser.add_argument("--swap-pairs", type=int, default=2000, help="pairs of the swap test, the same for every method")
    parser.add_argument("--pair-list", default=None, metavar="FILE", help="saved pairs, in place of --swap-pairs")
    parser.add_argument("--leakage", action="store_true", help="probe each token for the other's factor; adds leakage.json")
    common.add_model_arguments(parser)
    common.add_sampling_arguments(parser)


def run(args: Namespace) -> None:
    """Measure, write and print."""
    from dataclasses import asdict

    from divid.config import to_dict
    from divid.data.clips import ClipDataset
    from divid.evaluation.judge import Judge
    from divid.evaluation.pairs import PairList
    from divid.evaluation.quality import measure_reconstruction
    from divid.evaluation.swap import draw_pairs, swap_sheet
    from divid.outputs import write_image

    out = common.output_folder(args.out)
    pipeline = common.load_pipeline(args)
    options, model = pipeline.model.options, pipeline.model.eval()
    clips = ClipDataset.open(args.data, split=args.split, image_size=options.image_size, channels=options.channels)
    judge = None if args.judge is None else Judge.load(args.judge).to(common.choose_device(args.device))
    if judge is not None:
        judge.check_fits(clips.info, options.frames_per_sequence)
        swap_pairs = PairList.load(args.pair_list) if args.pair_list else PairList.draw(clips, args.swap_pairs)
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
    _write_json(out / "evaluation.json", result)
    for name, estimate in asdict(reconstruction).items():
        interval = f"[{estimate['low']:.2f}, {estimate['high']:.2f}]"
        common.say(f"PSNR {name:<12} {estimate['mean']:6.2f} dB  {interval}  over {estimate['num_clips']} clips")
    if judge is not None:
        _test_swaps(model, judge, clips, swap_pairs, out, args.seed, shared)
    if args.leakage:
        held_in = ClipDataset.open(args.data, split="train", image_size=options.image_size, channels=options.channels)
        _probe(model, held_in, clips, out, args.seed, options.frames_per_sequence)
    common.say(f"numbers  {out / 'evaluation.json'}\nswaps    {out / 'swaps.png'}")


def _test_swaps(
    model: Any, judge: Judge, clips: ClipDataset, pairs: PairList, out: Path, seed: int, shared: dict[str, Any]
) -> None:
    from divid.evaluation.swap import failure_sheet, measure_swaps
    from divid.outputs import write_image

    with common.progress_bar() as progress:
        swaps = measure_swaps(model, judge, clips, pairs, seed=seed, told=progress, **shared)
    pairs.save(out / "pairs.json")
    _write_json(out / "swaps.json", swaps.to_dict())
    sheet = failure_sheet(swaps, clips, title="swaps that the judge did not accept")
    if sheet is not None:
        write_image(out / "failures.png", sheet)
    common.say("\n".join(swaps.lines()))


def _probe(model: Any, held_in: ClipDataset, held_out: ClipDataset, out: Path, seed: int, num_frames: int) -> None:
    from divid.evaluation.leakage import measure_leakage

    with common.progress_bar() as progress:
        leakage = measure_leakage(model, held_in, held_out, num_frames=num_frames, seed=seed, told=progress)
    _write_json(out / "leakage.json", leakage.to_dict())
    common.say(leakage.to_text())


def _write_json(path: Path, values: dict[str, Any]) -> None:
    from divid.outputs import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
