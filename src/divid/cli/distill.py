"""`divid distill`: a trained model and prepared data sets to a student that samples in one to four steps."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from divid.cli import common
from divid.errors import ConfigError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--model", required=True, metavar="TEACHER", help="model or run folder, or the name of a bundled model")
    parser.add_argument(
        "--data", required=True, nargs="+", metavar="DATASET", help="folders made by divid prepare, best those of the teacher"
    )
    parser.add_argument("--out", default=None, metavar="RUN", help="the run's folder (not needed with --dry-run)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--dry-run", action="store_true", help="print the recipe and what it costs; train nothing")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument("--devices", type=int, default=1, help="processes that share the batch")
    parser.add_argument(
        "--set",
        nargs="+",
        action="append",
        default=None,
        metavar="KEY=VALUE",
        help="other values, as in training.num_steps=4000 or model.num_intervals=64",
    )
    common.add_device_argument(parser)


def run(args: Namespace) -> None:
    """Train the student, or say what that would cost."""
    from divid.recipes import parse_override

    if args.devices < 1:
        raise ConfigError(f"--devices is {args.devices}, must be 1 or more")
    if not args.dry_run and args.out is None:
        raise ConfigError("--out is missing: name a folder for the run, or add --dry-run")
    common.quiet_libraries()
    from divid.training.fit import plan, train
    from divid.training.students import student_recipe

    overrides = dict(parse_override(text) for text in chain.from_iterable(args.set or []))
    recipe = replace(student_recipe(args.model, overrides), seed=args.seed)
    data = [Path(path) for path in args.data]
    if args.dry_run:
        common.say(plan(recipe, data, device=args.device, devices=args.devices))
        return
    common.say(str(train(recipe, data, Path(args.out), resume=args.resume, device=args.device, devices=args.devices)))
