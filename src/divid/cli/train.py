"""`divid train`: a recipe and prepared data sets to a run folder with a model."""

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
    parser.add_argument(
        "--config",
        default=None,
        metavar="RECIPE",
        help="a recipe's name (puppets-cpu, utd-mhad, ...) or YAML file (left out with --resume: the run's)",
    )
    parser.add_argument(
        "--method", default=None, help="train another method by the recipe: divid, dbse or spyl (left out: the recipe's)"
    )
    parser.add_argument(
        "--data",
        default=None,
        nargs="+",
        metavar="DATASET",
        help="folders made by divid prepare; several are joined (left out with --resume: the run's)",
    )
    parser.add_argument("--out", default=None, metavar="RUN", help="the run's folder (not needed with --dry-run)")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in --out, to the same loss curve as if never broken off"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved recipe, parameters, FLOPs, memory and time; train nothing"
    )
    parser.add_argument(
        "--init",
        default=None,
        metavar="MODEL",
        help="train on from the weights of this run, model folder or bundled model",
    )
    parser.add_argument("--seed", type=int, default=None, help="seed of everything random (left out: the recipe's)")
    parser.add_argument("--devices", type=int, default=1, help="processes that share the batch, each with a GPU of its own")
    parser.add_argument(
        "--set", nargs="+", action="append", default=None, metavar="KEY=VALUE", help="other values, as in training.num_steps=10"
    )
    common.add_device_argument(parser)


def run(args: Namespace) -> None:
    """Train, or say what training would cost."""
    from divid.recipes import load_recipe, parse_override

    if args.devices < 1:
        raise ConfigError(f"--devices is {args.devices}, must be 1 or more")
    if args.out is None and (args.resume or not args.dry_run):
        raise ConfigError("--out is missing: name a folder for the run" + ("" if args.resume else ", or add --dry-run"))
    for name, what in (("config", "a recipe, say puppets-cpu"), ("data", "a folder made by divid prepare")):
        if getattr(args, name) is None and not args.resume:
            raise ConfigError(f"--{name} is missing: give {what} (only --resume goes on without it, by what the run has)")
    overrides = dict(parse_override(text) for text in chain.from_iterable(args.set or []))
    if args.config is not None:
        recipe = load_recipe(args.config, overrides, method=args.method)
    common.quiet_libraries()
    from divid.training.fit import plan, train
    from divid.training.run_folder import RunFolder

    if args.config is None or args.data is None:
        run = RunFolder(Path(args.out))
        run.check(resume=True, data=[])
        args.data = args.data or [path for path, _ in run.read_data()]
    if args.config is None:
        recipe = run.read_recipe(overrides)
        if args.method not in (None, recipe.method):
            raise ConfigError(f"{run.path} trains {recipe.method}, not {args.method}: leave --method out, or give another --out")
    if args.seed is not None:
        recipe = replace(recipe, seed=args.seed)
    if args.init is not None:
        recipe = replace(recipe, training=replace(recipe.training, initial_model=args.init))
    data = [Path(path) for path in args.data]
    if args.dry_run:
        common.say(plan(recipe, data, device=args.device, devices=args.devices))
        return
    common.say(str(train(recipe, data, Path(args.out), resume=args.resume, device=args.device, devices=args.devices)))
