"""`divid judge`: train the classifier that judges swaps, on real clips, and say how well it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from divid.cli import common

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--data", required=True, metavar="DATASET", help="prepared data set with static and dynamic labels")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder for the judge and its confusion matrices")
    parser.add_argument("--architecture", choices=("gru", "conv3d", "two_stream"), default="gru", help="which network")
    parser.add_argument("--frames", type=int, default=10, help="frames of a clip, as many as the judged models take")
    parser.add_argument("--size", type=int, default=None, help="side of the frames in pixels (left out: the data set's)")
    parser.add_argument("--channels", type=Literal[1, 3], default=None, help="channels (left out: the data set's)")
    parser.add_argument("--steps", type=int, default=1000, help="training steps")
    parser.add_argument("--minutes", type=float, default=10.0, help="shorten training to so many minutes")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    common.add_device_argument(parser)


def run(args: Namespace) -> None:
    """Train, save, draw and print."""
    from divid.data.clips import ClipDataset
    from divid.evaluation.judge import TRUSTED_ACCURACY
    from divid.evaluation.judging import JudgeTraining, plot_confusion, train_judge

    options = JudgeTraining(
        architecture=args.architecture,
        num_frames=args.frames,
        num_steps=args.steps,
        max_minutes=args.minutes,
        seed=args.seed,
    ).validate()
    device, sizes = common.choose_device(args.device), {"image_size": args.size, "channels": args.channels}
    train, test = (ClipDataset.open(args.data, split=split, **sizes) for split in ("train", "test"))
    out = common.output_folder(args.out)
    with common.progress_bar() as progress:
        judge = train_judge(train, test, options, device=device, told=progress)
    judge.save(out)
    held_out = judge.held_out
    assert held_out is not None
    for name, classes in judge.config.classes.items():
        title = f"{name}: {Path(args.data).name}, held-out real clips"
        plot_confusion(held_out.confusion[name], classes, title, out / f"confusion_{name}.png")
    rates = {**held_out.factors, "static": held_out.static, "dynamic": held_out.dynamic, "joint": held_out.joint}
    for name, rate in rates.items():
        low, high = rate.wilson
        common.say(f"{name:<12} {100 * rate.rate:6.2f} %  [{100 * low:.2f}, {100 * high:.2f}]  of {rate.num} held-out clips")
    if not judge.is_trusted:
        common.say(f"under {100 * TRUSTED_ACCURACY:.0f} % joint: every result will say that this judge is not to be trusted")
    common.say(f"judge    {out}")
