"""`divid prepare`: a folder of recordings becomes a data set."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from divid.cli import common

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from divid.data.prepare import PrepareSummary

SOURCE_HELP = "kind of recordings: folder, utd-mhad, mead, weizmann, sprites or puppets"
MAX_SKIPPED_SHOWN = 10
MAX_CLASSES_SHOWN = 30


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("kind", metavar="SOURCE", help=SOURCE_HELP)
    parser.add_argument("--source", default=None, metavar="DIR", help="folder that holds the recordings (puppets need none)")
    parser.add_argument("--out", required=True, metavar="DATASET", help="new folder; a killed call given again goes on")
    parser.add_argument("--size", type=int, default=64, help="height and width of the frames")
    parser.add_argument("--channels", type=Literal[1, 3], default=3, help="1 for grey, 3 for RGB")
    parser.add_argument("--processes", type=int, default=None, help="worker processes (left out: one a processor)")
    parser.add_argument("--strict", action="store_true", help="stop at the first recording that cannot be read")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set made otherwise")
    parser.add_argument("--limit", type=int, default=None, help="prepare at most so many recordings, evenly picked")
    parser.add_argument("--num-clips", type=int, default=None, help="puppets: how many clips")
    parser.add_argument("--num-looks", type=int, default=None, help="most looks that a generated source (puppets) has")
    parser.add_argument("--scenery", choices=("full", "plain"), default="full", help="behind puppets: a place, or one colour")
    parser.add_argument("--seed", type=int, default=0, help="puppets: seed of the clips")
    parser.add_argument("--fit", choices=common.FITS, default="crop", help="folder: how frames that are not square become square")
    parser.add_argument("--labels", choices=("none", "folders"), default="none", help="folder: the parent folder is the action")
    parser.add_argument("--layout", default=None, help="folder: labels from the path, such as '{subject}/{action}'")
    parser.add_argument("--labels-csv", default=None, help="folder: table with columns file, static.NAME, dynamic.NAME, split")
    parser.add_argument("--test-fraction", type=float, default=0.1, help="share held out where the source knows no split")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")


def run(args: Namespace) -> None:
    """Prepare."""
    from divid.data.prepare import prepare
    from divid.data.sources import SourceOptions

    options = SourceOptions(
        image_size=args.size,
        channels=args.channels,
        seed=args.seed,
        num_clips=args.num_clips,
        num_looks=args.num_looks,
        scenery=args.scenery,
        limit=args.limit,
        fit=args.fit,
        labels=args.labels,
        layout=args.layout,
        labels_csv=None if args.labels_csv is None else Path(args.labels_csv),
        test_fraction=args.test_fraction,
    )
    with _bar(args.quiet) as progress:
        summary = prepare(
            args.kind,
            args.source,
            args.out,
            options=options,
            num_processes=args.processes,
            strict=args.strict,
            overwrite=args.overwrite,
            progress=progress,
        )
    if not args.quiet:
        show(summary)


def show(summary: PrepareSummary) -> None:
    """Print what a data set holds.

    Args:
        summary: What `prepare` gave.
    """
    info = summary.info
    if not summary.is_new:
        common.say(f"{summary.folder} is complete already: nothing to do (--overwrite would replace it with other options)")
    size, kind = info["image_size"], "grey" if info["channels"] == 1 else "RGB"
    rates = ", ".join(info["fps"])
    common.say(f"{summary.folder}: {info['num_clips']} clips of {info['num_recordings']} recordings, {info['num_frames']} frames")
    volume = f"{summary.num_bytes / 1e6:.1f} MB in {len(info['shards'])} shards"
    common.say(f"  frames   {size}x{size} {kind}, {rates} a second, {volume}")
    common.say(f"  splits   {_counts(info['splits'])}")
    for factor_kind, factors in info["factors"].items():
        for name, counts in factors.items():
            missing = info["num_clips"] - sum(counts.values())
            unlabelled = f", {missing} clips unlabelled" if missing else ""
            common.say(f"  {factor_kind:<8} {name}: {len(counts)} classes{unlabelled}: {_counts(counts)}")
    if info["details"]:
        common.say(f"  details  {_counts(info['details'])}")
    for skipped in info["skipped"][:MAX_SKIPPED_SHOWN]:
        common.say(f"  skipped  {skipped['file']}: {skipped['reason']}")
    if len(info["skipped"]) > MAX_SKIPPED_SHOWN:
        common.say(f"  skipped  {len(info['skipped']) - MAX_SKIPPED_SHOWN} more, listed in {summary.folder / 'dataset.json'}")
    common.say(f"  sheet    {summary.folder / 'contact_sheet.png'}")


def _counts(counts: dict[str, int]) -> str:
    if len(counts) > MAX_CLASSES_SHOWN:
        return f"{next(iter(counts))} to {list(counts)[-1]}, {min(counts.values())} to {max(counts.values())} clips each"
    return ", ".join(f"{name} {number}" for name, number in counts.items())


@contextlib.contextmanager
def _bar(is_quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on stderr, where that is a terminal."""
    if is_quiet or not sys.stderr.isatty():
        yield None
        return
    with common.progress_bar() as update:
        yield lambda done, total: update("recordings", done, total)
