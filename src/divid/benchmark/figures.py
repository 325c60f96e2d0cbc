"""The pictures of a report: swaps of all methods below each other, and how training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from divid.benchmark.scoring import load_figure
from divid.plots import new_figure, save_figure
from divid.training.metrics import read_metrics
from divid.video import contact_sheet

CELL_PIXELS = 64
LOSS_RATIO = 10.0
SMOOTHED_ROWS = 9
"""Rows of metrics.csv whose mean, in logarithms, is one point of a loss curve, so that curves can be told apart."""


def swap_figure(figures: Mapping[str, Path], title: str) -> Image.Image:
    """Draw some pairs, each with a row for its source, its target and every method's swap.

    Args:
        figures: The cells' figure files by the label of the method; all of the same pairs.
        title: Heading.

    Source:
        The layout of the paper's Figures 2 to 4.
    """
    frames = {label: load_figure(path) for label, path in figures.items()}
    first = next(iter(frames.values()))
    rows: list[tuple[str, np.ndarray]] = []
    for pair in range(min(len(parts["swap"]) for parts in frames.values())):
        rows += [("source (appearance)", first["source"][pair]), ("target (motion)", first["target"][pair])]
        rows += [(label, parts["swap"][pair]) for label, parts in frames.items()]
    return contact_sheet(rows, max_columns=first["source"].shape[1], cell=CELL_PIXELS, title=title)


def plot_training(runs: Mapping[str, Path], title: str, path: Path) -> bool:
    """Draw the training loss and the held-out PSNR of several runs over their steps as a PNG.

    Losses are as `loss_curves` gives them.

    Args:
        runs: The runs' metrics.csv by label.
        title: Heading.
        path: The picture.

    Returns:
        Whether there was anything to draw; if not, no picture is written.

    Raises:
        OutputError: It cannot be written.
    """
    figure = new_figure(11, 4)
    figure.suptitle(title)
    rows = {label: read_metrics(metrics) for label, metrics in runs.items()}
    curves, is_relative = loss_curves(rows)
    loss = "training loss, over its own at the end" if is_relative else "training loss"
    losses = figure.add_subplot(1, 2, 1, xlabel="step", ylabel=loss, yscale="log")
    psnr = figure.add_subplot(1, 2, 2, xlabel="step", ylabel="held-out PSNR in dB", sharex=losses)
    for number, (label, of) in enumerate(rows.items()):
        looks: dict[str, Any] = {"label": label, "linewidth": 1, "color": f"C{number % 10}"}
        for axes, points, marker in ((losses, curves[label], ""), (psnr, _points(of, "validation/psnr"), ".")):
            if len(points):
                axes.plot(points[:, 0], points[:, 1], marker=marker, **looks)
    if not (losses.has_data() or psnr.has_data()):
        return False
    for axes in (losses, psnr):
        axes.grid(alpha=0.3)
        if axes.has_data():
            axes.legend(fontsize=7)
    save_figure(figure, path, dpi=110)
    return True


def loss_curves(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> tuple[dict[str, np.ndarray], bool]:
    """Give the training losses of several runs, smoothed, on a scale that all fit on.

    Methods count differently (sums over a clip, means): where losses end more than `LOSS_RATIO` apart, each is divided by its own
    median in the last fifth of the run.

    Args:
        rows: Of metrics.csv, by label.

    Returns:
        (step, loss) of each run, and whether they were divided.
    """
    curves = {label: _smooth(_points(of, "train/total", above=0)) for label, of in rows.items()}
    ends = {label: float(np.median(points[-(len(points) // 5 + 1) :, 1])) for label, points in curves.items() if len(points)}
    if not ends or max(ends.values()) <= LOSS_RATIO * min(ends.values()):
        return curves, False
    return {label: points / (1.0, ends.get(label, 1.0)) for label, points in curves.items()}, True


def _points(rows: Sequence[Mapping[str, float]], name: str, above: float = -np.inf) -> np.ndarray:
    """Give (step, value) of the rows that have a finite value above a bound."""
    points = [(row["step"], row[name]) for row in rows if name in row and np.isfinite(row[name]) and row[name] > above]
    return np.array(points, dtype=float).reshape(-1, 2)


def _smooth(points: np.ndarray) -> np.ndarray:
    """Average a loss over neighbouring rows, in logarithms; near the ends over as many as there are on both sides."""
    values = np.log(points[:, 1])
    means = []
    for place in range(len(points)):
        reach = min(SMOOTHED_ROWS // 2, place, len(points) - 1 - place)
        means.append(values[place - reach : place + reach + 1].mean())
    return np.column_stack([points[:, 0], np.exp(means)]) if means else points
