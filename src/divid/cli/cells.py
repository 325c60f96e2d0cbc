"""What `divid benchmark` and `divid ablate` share: their options, and the work on their cells."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from divid.cli import common
from divid.errors import TrainingError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from divid.benchmark.ablation import Variant
    from divid.benchmark.plan import Plan


def add_cell_arguments(parser: ArgumentParser) -> None:
    """Add `--out`, `--list`, `--report-only`, `--shard`, `--cells` and `--device`."""
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", help="folder for cells and report; what is there is not made again"
    )
    parser.add_argument("--list", action="store_true", help="print the cells and where they stand; do nothing")
    parser.add_argument("--report-only", action="store_true", help="write the report of the cells that are done; make none")
    parser.add_argument(
        "--shard", default=None, metavar="i/n", help="make the i-th of n shares (default: all, or by the index of a SLURM array)"
    )
    parser.add_argument(
        "--cells",
        default=None,
        nargs="+",
        metavar="DATA/METHOD",
        help="make only the cells with these names, * for anything, as in 'puppets/*' (default: all)",
    )
    common.add_device_argument(parser)


def work_on(plan: Plan, args: Namespace, command: list[str], variants: Mapping[str, Variant] | None = None) -> None:
    """Make the cells of a plan that are missing, and write the report; or list, or report only.

    Args:
        plan: What is asked for.
        args: The options of `add_cell_arguments`.
        command: The words of the command that says so, without those options.
        variants: Of an ablation.

    Raises:
        TrainingError: Cells failed; the report has the reasons.
        ConfigError: The plan cannot be run, or not in this folder.
    """
    common.quiet_libraries()
    from divid.benchmark.cells import BenchmarkFolder, pick_cells, share_of
    from divid.benchmark.plan import cells_of
    from divid.benchmark.report import list_cells, write_report
    from divid.benchmark.runner import check_plan, run_cells

    cells, folder = cells_of(plan), BenchmarkFolder(Path(args.out))
    share = share_of(pick_cells(cells, args.cells), args.shard)
    if args.list:
        common.say("\n".join(list_cells(share, folder)) if share else "no cell falls to this share")
        return
    common.output_folder(args.out)
    failed: dict[str, str] = {}
    if not args.report_only:
        check_plan(plan, cells, folder)
        words = shlex.join([*command, "--out", args.out])
        bars = common.progress_bar
        failed = run_cells(plan, share, folder, device=args.device, command=words, bars=bars).failed
    common.say(f"report   {write_report(plan, cells, folder, variants)}")
    if failed:
        names = ", ".join(failed)
        raise TrainingError(f"{len(failed)} of {len(share)} cells failed ({names}): see above; the same command tries them again")
