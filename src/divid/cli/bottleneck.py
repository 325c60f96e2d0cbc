"""`divid bottleneck`: at which noise level a trained model needs which token, as numbers and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from divid.cli import common
from divid.errors import ConfigError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--data", required=True, help="prepared data set")
    parser.add_argument("--out", required=True, help="folder for bottleneck.csv, .png and .json; made if it is not there")
    parser.add_argument("--split", choices=("test", "train"), default="test", help="which clips")
    parser.add_argument("--clips", type=int, default=32, help="clips to measure, drawn at random by --seed")
    parser.add_argument("--points", type=int, default=40, help="timesteps to measure; 999 for all of 1000, without approximation")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise, of the clips and of whose tokens are exchanged")
    common.add_model_arguments(parser)


def run(args: Namespace) -> None:
    """Measure, write and print."""
    import torch

    from divid._version import __version__
    from divid.data.clips import ClipDataset
    from divid.evaluation.bottleneck import measure_bottleneck
    from divid.evaluation.bottleneck_report import plot_curve, write_csv
    from divid.json_files import write_json
    from divid.randomness import make_generator
    from divid.training.run_folder import describe_machine, git_commit

    for name, value, least in (("--clips", args.clips, 2), ("--points", args.points, 1)):
        if value < least:
            raise ConfigError(f"{name} is {value}, must be {least} or more")
    out = common.output_folder(args.out)
    pipeline = common.load_pipeline(args)
    options, model = pipeline.model.options, pipeline.model.eval()
    clips = ClipDataset.open(args.data, split=args.split, image_size=options.image_size, channels=options.channels)
    order = torch.randperm(len(clips), generator=make_generator(args.seed, "bottleneck clips"))
    clips = clips.subset(order[: args.clips].numpy())
    with common.progress_bar() as progress:
        curve = measure_bottleneck(model, clips, num_points=args.points, seed=args.seed, told=progress)
    write_csv(curve, out / "bottleneck.csv")
    plot_curve(curve, out / "bottleneck.png", f"{Path(args.data).name}, {args.split}: {len(clips)} clips, seed {args.seed}")
    result = {
        "model": str(args.model),
        "data": str(args.data),
        "split": args.split,
        "points": len(curve.blocks),
        "seed": args.seed,
        "device": common.choose_device(args.device),
        "machine": describe_machine(),
        "divid": __version__,
        "git_commit": git_commit(),
        "clips": [clips.clip_id(index) for index in range(len(clips))],
        **curve.to_dict(),
    }
    write_json(out / "bottleneck.json", result)
    common.say(curve.to_text())
    common.say("\n".join(f"{kind:<8} {out / name}" for kind, name in (("numbers", "bottleneck.csv"), ("plot", "bottleneck.png"))))
