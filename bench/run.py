"""Measure training, sampling, data, encoding and whole swaps, each beside its reference, as shares of what the machine can do."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch

from bench.files import data_rows, long_rows, swap_rows
from bench.measuring import Effort, Peaks
from bench.profiling import make_profiles
from bench.report import Results, start_results
from bench.rows import Failure, Row
from bench.sampling import encoding_rows, sampling_rows
from bench.scaling import process_rows, scaling_rows
from bench.training import training_rows
from bench.workload import PAPER_STEPS, Bench, make_recipe, settle_precision
from divid.config import Precision
from divid.errors import ConfigError, DividError, OutputError, nearest
from divid.export import resolve_model
from divid.presets import PresetName
from divid.training.fit import choose_device

PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "train": training_rows,
    "sample": sampling_rows,
    "data": data_rows,
    "encode": encoding_rows,
    "swap": swap_rows,
    "scale": scaling_rows,
    "processes": process_rows,
    "long": long_rows,
}
"""Name -> what measures it, row by row."""
PROFILE = "profile"
QUICK = Effort(seconds=0.05, min_runs=2, max_runs=5)
CPU_REFERENCE_STEPS = 10
"""Steps of the paper's sampler that are made on a CPU."""
QUICK_REFERENCE_STEPS = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write.

    Args:
        arguments: What follows `python -m bench`; default: the process's own.

    Returns:
        The exit code: 0, 1 where a part failed, 2 for wrong options.
    """
    args = make_parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        with tempfile.TemporaryDirectory(prefix="divid-bench-") as folder:
            bench = replace(make_bench(args, Path(folder)), arguments=tuple(sys.argv[1:] if arguments is None else arguments))
            results = run_parts(bench, chosen_parts(args.only, bench))
    except DividError as error:
        print(f"bench: error: {error}", file=sys.stderr)
        return 2
    results.write(bench.out)
    print(results.text())
    print(f"written: {bench.out / 'speed.json'}, {bench.out / 'speed.md'}")
    return 1 if results.failures else 0


def make_parser() -> argparse.ArgumentParser:
    """Give the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", default="", metavar="PARTS", help=f"some of {','.join([*PARTS, PROFILE])}, by commas")
    parser.add_argument("--preset", default=None, choices=get_args(PresetName), help="model size (default: tiny, on a GPU small)")
    parser.add_argument("--recipe", default=None, help="recipe whose model and training are measured, instead of a preset")
    parser.add_argument(
        "--image-size", type=int, default=None, help="side of the model's frames in pixels (default: the model's own)"
    )
    parser.add_argument("--quick", action="store_true", help="a toy model, in minutes: all parts work; no figure means anything")
    parser.add_argument(
        "--out", default="bench-out", metavar="FOLDER", help="folder for speed.json, speed.md, profile.txt (default: bench-out)"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to compute")
    parser.add_argument("--precision", default="auto", choices=get_args(Precision), help="of training (auto: as divid train)")
    parser.add_argument(
        "--compile",
        default=None,
        choices=("auto", "graphs", "on", "off"),
        help="compilation of training (default: the recipe's; preset: auto on a GPU)",
    )
    parser.add_argument("--threads", type=int, default=None, help="threads of PyTorch on a CPU (default: its own choice)")
    parser.add_argument("--batch", type=int, default=None, help="clips a step (default: the recipe's; preset: 4, on a GPU 64)")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for one figure (default: 3)")
    parser.add_argument("--reference-steps", type=int, default=None, help="steps of the paper's sampler really made (CPU: 10)")
    parser.add_argument("--frames", default="", metavar="NUMBERS", help="also swap videos this long, as in 100,1000,10000")
    parser.add_argument("--steps", type=int, default=4, help="solver steps of those long swaps (default: 4)")
    parser.add_argument("--size", type=int, default=64, help="side of those long videos in pixels (default: 64)")
    parser.add_argument("--model", default=None, help="trained model for those long swaps (default: untrained, at the same cost)")
    return parser


def make_bench(args: argparse.Namespace, folder: Path) -> Bench:
    """Check the options and measure the machine's limits.

    Args:
        args: Parsed.
        folder: For files made on the way.

    Raises:
        DividError: An option does not fit.
    """
    device = choose_device(args.device)
    if args.threads is not None:
        if args.threads < 1:
            raise ConfigError(f"--threads is {args.threads}, must be at least 1")
        torch.set_num_threads(args.threads)
    for name, value in (("--steps", args.steps), ("--batch", args.batch or 1), ("--reference-steps", args.reference_steps or 1)):
        if not 1 <= value <= PAPER_STEPS:
            raise ConfigError(f"{name} is {value}, must lie between 1 and {PAPER_STEPS}")
    steps = args.reference_steps or (
        QUICK_REFERENCE_STEPS if args.quick else (PAPER_STEPS if device == "cuda" else CPU_REFERENCE_STEPS)
    )
    preset: PresetName = args.preset or ("small" if device == "cuda" else "tiny")
    recipe = make_recipe(args.recipe, preset, device, batch_size=args.batch, image_size=args.image_size, is_quick=args.quick)
    if args.compile is not None:
        recipe = replace(recipe, training=replace(recipe.training, compile=args.compile))
    effort = QUICK if args.quick else Effort(seconds=args.seconds)
    side, copy_mib = (512, 16) if args.quick else ((8192, 2048) if device == "cuda" else (2048, 256))
    bench = Bench(
        recipe=recipe,
        device=device,
        effort=effort,
        peaks=Peaks(device, replace(effort, num_warmups=2), side, copy_mib),
        folder=folder,
        out=_output_folder(args.out),
        is_quick=args.quick,
        reference_steps=steps,
        long_frames=_numbers(args.frames),
        long_steps=args.steps,
        long_size=args.size,
        model_folder=None if args.model is None else resolve_model(args.model),
    )
    bench.recipe = settle_precision(bench, args.precision)
    return bench


def chosen_parts(only: str, bench: Bench) -> list[str]:
    """Give the parts to run, in the bench's order.

    Args:
        only: Their names by commas; empty: all, long videos where lengths are given.
        bench: The settings.

    Raises:
        ConfigError: There is no such part, or the long videos have no lengths.
    """
    known = [*PARTS, PROFILE]
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise ConfigError(f"--only names {name!r}{nearest(name, known)}")
    if "long" in wanted and not bench.long_frames:
        raise ConfigError("--only long needs the videos' lengths: add for example --frames 100,1000,10000")
    if not wanted:
        return [name for name in known if name != "long" or bench.long_frames]
    return [name for name in known if name in wanted or (name == "long" and bench.long_frames)]


def run_parts(bench: Bench, parts: Sequence[str]) -> Results:
    """Run the parts one after the other; one that fails is noted, and the others go on.

    Args:
        bench: The settings.
        parts: Names of `PARTS`, and `PROFILE`.
    """
    results = start_results(bench)
    for precision in dict.fromkeys(("fp32", bench.precision)):
        bench.peaks.flops_per_second(precision)
    bench.peaks.bytes_per_second("fp32")
    results.peaks = bench.peaks.to_dict()
    for part in parts:
        start = time.monotonic()
        try:
            if part == PROFILE:
                results.profiles = make_profiles(bench)
            else:
                for row in PARTS[part](bench):
                    results.rows.append(row)
                    results.write(bench.out)  # what is measured stays, if the next row never ends
        except Exception as error:  # whatever it is, it is this part's
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            results.failures.append(Failure(part, f"{type(error).__name__}: {reason}"))
        results.peaks = bench.peaks.to_dict()
        results.write(bench.out)
        state = "failed" if results.failures and results.failures[-1].part == part else "done"
        print(f"bench: {part} {state} in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return results


def _output_folder(name: str) -> Path:
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}: give another one with --out") from error
    return folder


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise ConfigError(f"--frames is {text!r}: write whole numbers and commas, as in 100,1000,10000") from None
    if any(number < 2 for number in numbers):
        raise ConfigError(f"--frames is {text!r}: a motion has 2 frames or more")
    return numbers
