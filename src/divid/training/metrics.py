"""metrics.csv of a run, and the picture of its loss."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from divid.errors import OutputError
from divid.plots import new_figure, save_figure


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name, then rename it.

    Args:
        path: Where to.
        text: Its content.

    Raises:
        OutputError: It cannot be written; what stood there before is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written ({error.strerror}): free some space or choose another --out") from None


class MetricsFile(Logger):
    """A CSV file with one row a logged step, at full precision, that a resumed run goes on with.

    Each row is on disk before the next step begins. Rows after `last_step` are dropped on opening: the run that wrote them was
    killed after its last checkpoint, and they are made again.

    Args:
        path: The file.
        last_step: Step of the checkpoint that the run goes on from; 0 begins afresh.
    """

    def __init__(self, path: Path, last_step: int = 0) -> None:
        super().__init__()
        self.path = path
        self.columns: list[str] = ["step"]
        rows = [row for row in read_metrics(path) if row["step"] <= last_step] if last_step else []
        for row in rows:
            self.columns += [name for name in row if name not in self.columns]
        self._rewrite(rows)

    @property
    def name(self) -> str:
        """Name that Lightning wants of every logger."""
        return "metrics"

    @property
    def version(self) -> int:
        """Version that Lightning wants of every logger."""
        return 0

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the recipe is kept in recipe.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row.

        Args:
            metrics: Values by name; a new name becomes a new column.
            step: The row's step.

        Raises:
            OutputError: The file cannot be written.
        """
        row = {"step": step or 0, **metrics}
        new = [name for name in row if name not in self.columns]
        if new:
            rows = read_metrics(self.path)
            self.columns += new
            self._rewrite(rows)
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._as_text([row]))
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written ({error.strerror}): free some space, then go on with --resume"
            ) from None

    def _as_text(self, rows: list[dict[str, Any]], with_header: bool = False) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        if with_header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    @rank_zero_only
    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        write_text(self.path, self._as_text(rows, with_header=True))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read metrics.csv: rows of the values that each holds, `step` as a whole number; a last line that a kill cut is left out.

    Args:
        path: The file; a missing one has no rows.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    complete = [line for line in lines if line.endswith("\n")]
    rows = []
    for values in csv.DictReader(complete):
        row: dict[str, Any] = {name: float(value) for name, value in values.items() if value}
        rows.append({**row, "step": int(row["step"])})
    return rows


def last_values(path: Path) -> dict[str, float]:
    """Give the newest value of every column of metrics.csv.

    Args:
        path: The file.
    """
    newest: dict[str, float] = {}
    for row in read_metrics(path):
        newest |= row
    return newest


def plot_loss(metrics: Path, path: Path) -> None:
    """Draw training and held-out loss over the steps as a PNG.

    Args:
        metrics: The metrics.csv.
        path: The picture.

    Raises:
        OutputError: It cannot be written.
    """
    rows = read_metrics(metrics)
    figure = new_figure(7, 4)
    axes = figure.add_subplot(xlabel="step", ylabel="loss", yscale="log")
    for name, label in (("train/total", "training"), ("validation/total", "held out, averaged weights")):
        points = [(row["step"], row[name]) for row in rows if row.get(name, 0) > 0]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1)
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.legend()
    save_figure(figure, path)


def as_numbers(values: Mapping[str, torch.Tensor | float]) -> dict[str, float]:
    """Turn scalars of any kind into Python numbers, which hold every float32 exactly.

    Args:
        values: Scalars by name.
    """
    return {name: float(value.detach() if isinstance(value, torch.Tensor) else value) for name, value in values.items()}
