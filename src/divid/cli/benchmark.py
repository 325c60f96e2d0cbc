"""`divid benchmark`: data sets x methods x seeds from one plan to one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from divid.cli.cells import add_cell_arguments, work_on

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("plan", metavar="PLAN.yaml", help="the plan; configs/benchmarks/ has an example that explains every key")
    add_cell_arguments(parser)


def run(args: Namespace) -> None:
    """Read the plan and work on it."""
    from divid.benchmark.plan import load_plan

    work_on(load_plan(args.plan), args, ["divid", "benchmark", args.plan])
