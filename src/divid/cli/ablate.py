"""`divid ablate`: what each inductive bias of a recipe is worth."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from divid.cli.cells import add_cell_arguments, work_on

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--config", required=True, metavar="RECIPE", help="the full recipe: its name or YAML file")
    parser.add_argument(
        "--data", required=True, nargs="+", metavar="DATASET", help="folders made by divid prepare, a table for each"
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="trainings of every variant, with seeds 0 to N-1")
    parser.add_argument(
        "--only", nargs="+", default=None, metavar="NAME", help="only these biases (default: all; --list shows them)"
    )
    parser.add_argument(
        "--set", nargs="+", action="append", default=None, metavar="KEY=VALUE", help="change the full recipe, as in divid train"
    )
    parser.add_argument("--swap-pairs", type=int, default=2000, help="pairs of the swap test, the same for every variant")
    parser.add_argument("--judge-steps", type=int, default=1000, help="training steps of each data set's judge")
    add_cell_arguments(parser)


def run(args: Namespace) -> None:
    """Make the plan and work on it."""
    from divid.benchmark.ablation import ablation_plan
    from divid.benchmark.plan import EvaluationOptions, JudgeOptions
    from divid.recipes import parse_override

    changes = list(chain.from_iterable(args.set or []))
    plan, variants = ablation_plan(
        args.config,
        args.data,
        args.seeds,
        overrides=dict(parse_override(text) for text in changes),
        only=args.only,
        judge=JudgeOptions(num_steps=args.judge_steps),
        evaluation=EvaluationOptions(swap_pairs=args.swap_pairs),
    )
    command = ["divid", "ablate", "--config", args.config, "--data", *args.data, "--seeds", str(args.seeds)]
    for flag, words in (("--only", args.only), ("--set", changes)):
        command += [flag, *words] if words else []
    command += ["--swap-pairs", str(args.swap_pairs), "--judge-steps", str(args.judge_steps)]
    work_on(plan, args, command, variants)
