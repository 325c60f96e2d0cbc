"""`python -m bench.curves`: training runs against a reference run, by the held-out loss over time and over clips."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divid.errors import DividError, InputError
from divid.evaluation.report import markdown_table
from divid.json_files import write_json
from divid.plots import new_figure, save_figure
from divid.recipes import load_recipe
from divid.training.metrics import read_metrics, write_text

LOSS = "validation/simple"


@dataclass(frozen=True)
class Curve:
    """The held-out loss of a run.

    Args:
        name: The run's folder.
        steps: Where it was measured.
        losses: Its values, of the averaged weights.
        seconds_a_step: Median over the logged rows, so that validations and checkpoints are left out.
        clips_a_step: Clips in a batch.
    """

    name: str
    steps: list[int]
    losses: list[float]
    seconds_a_step: float
    clips_a_step: int

    @property
    def minutes(self) -> list[float]:
        """When each value was reached."""
        return [step * self.seconds_a_step / 60 for step in self.steps]

    @property
    def clips(self) -> list[int]:
        """Clips seen until each value."""
        return [step * self.clips_a_step for step in self.steps]

    def first_at(self, loss: float) -> int | None:
        """Give the place of the first value that is no higher than `loss`; None where there is none."""
        return next((place for place, value in enumerate(self.losses) if value <= loss), None)


def read_curve(run: Path) -> Curve:
    """Read a run's curve.

    Args:
        run: Run folder of `divid train`.

    Raises:
        InputError: It holds no validation, or is no run.
    """
    metrics = run / "metrics.csv"
    if not metrics.is_file():
        raise InputError(f"{run} is no training run: there is no metrics.csv in it")
    rows = read_metrics(metrics)
    clips_a_step = load_recipe(run / "recipe.yaml").training.batch_size
    measured = [row for row in rows if row.get(LOSS) is not None]
    speeds = [row["speed/clips_per_second"] for row in rows if row.get("speed/clips_per_second")]
    if not measured or not speeds:
        raise InputError(f"{metrics} holds no {LOSS}: train with training.validate_every_steps above 0")
    seconds = statistics.median(clips_a_step / speed for speed in speeds)
    return Curve(run.name, [row["step"] for row in measured], [row[LOSS] for row in measured], seconds, clips_a_step)


def compare(reference: Curve, runs: Sequence[Curve]) -> list[dict[str, Any]]:
    """Say when each run reached the reference's last loss.

    Args:
        reference: The run that the others are measured by.
        runs: The others.

    Returns:
        One row a run, the reference first: name, seconds a step, last loss; and when the reference's last loss was first
        reached, by the reference as by the others, in minutes, clips, and as a share of the reference's time until then (None:
        never).

    Raises:
        InputError: The reference's last loss is not a number.
    """
    goal = reference.losses[-1]
    first = reference.first_at(goal)
    if first is None:
        raise InputError(f"{reference.name} ends with a loss of {goal}: give a reference that ends with a number")
    rows = []
    for curve in (reference, *runs):
        place = curve.first_at(goal)
        rows.append(
            {
                "run": curve.name,
                "seconds_a_step": curve.seconds_a_step,
                "last_loss": curve.losses[-1],
                "minutes_in_all": curve.minutes[-1],
                "minutes_to_reference": None if place is None else curve.minutes[place],
                "clips_to_reference": None if place is None else curve.clips[place],
                "share_of_reference_time": None if place is None else curve.minutes[place] / reference.minutes[first],
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Write the rows of `compare` as Markdown."""
    header = ("run", "s a step", "minutes", "last held-out loss", "the reference's loss after", "share of its time")
    cells = []
    for row in rows:
        reached = row["minutes_to_reference"] is not None
        after = f"{row['minutes_to_reference']:.1f} min, {row['clips_to_reference']:,} clips" if reached else "not reached"
        share = f"{100 * row['share_of_reference_time']:.0f} %" if reached else ""
        last = f"{row['last_loss']:.5f}"
        cells.append((row["run"], f"{row['seconds_a_step']:.3f}", f"{row['minutes_in_all']:.1f}", last, after, share))
    return markdown_table(header, cells)


def plot(curves: Sequence[Curve], path: Path) -> None:
    """Draw held-out loss over minutes and over clips.

    Args:
        curves: The reference first.
        path: The picture.
    """
    figure = new_figure(10, 4)
    over_time, over_clips = figure.subplots(1, 2, sharey=True)
    for curve in curves:
        over_time.plot(curve.minutes, curve.losses, marker="o", markersize=3, linewidth=1, label=curve.name)
        over_clips.plot(curve.clips, curve.losses, marker="o", markersize=3, linewidth=1)
    for axes, label in ((over_time, "minutes of training steps"), (over_clips, "clips")):
        axes.axhline(curves[0].losses[-1], color="grey", linewidth=0.8, linestyle="--")
        axes.set(xlabel=label, yscale="log")
        axes.grid(alpha=0.3, which="both")
    over_time.set_ylabel("held-out loss")
    over_time.legend(fontsize=8)
    save_figure(figure, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print and write `curves.md`, `curves.json` and `curves.png`.

    Args:
        arguments: What follows `python -m bench.curves`; default: the process's own.

    Returns:
        The exit code: 0, or 2 where a run cannot be read.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.curves", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of divid train")
    parser.add_argument("--reference", required=True, type=Path, help="the run that they are measured by")
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="folder of the table and the picture")
    args = parser.parse_args(arguments)
    try:
        curves = [read_curve(run) for run in (args.reference, *args.runs)]
        args.out.mkdir(parents=True, exist_ok=True)
        rows = compare(curves[0], curves[1:])
        write_json(args.out / "curves.json", {"reference": curves[0].name, "runs": rows})
        write_text(args.out / "curves.md", table(rows) + "\n")
        plot(curves, args.out / "curves.png")
    except (DividError, OSError) as error:
        print(f"bench: error: {error}", file=sys.stderr)
        return 2
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
