"""The pictures of a report: swaps of all methods below each other, and how training went."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from divid.benchmark.scoring import load_figure
from divid.plots import new_figure, save_figure
from divid.training.metrics import read_metrics
from divid.video import contact_sheet

CELL_PIXELS = 64


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
    losses = figure.add_subplot(1, 2, 1, xlabel="step", ylabel="training loss, each method its own", yscale="log")
    psnr = figure.add_subplot(1, 2, 2, xlabel="step", ylabel="held-out PSNR in dB")
    for label, metrics in runs.items():
        rows = read_metrics(metrics)
        for axes, name, marker in ((losses, "train/total", ""), (psnr, "validation/psnr", ".")):
            points = [(row["step"], row[name]) for row in rows if name in row and np.isfinite(row[name])]
            if axes is losses:
                points = [point for point in points if point[1] > 0]
            if points:
                axes.plot(*zip(*points, strict=True), label=label, linewidth=1, marker=marker)
    if not (losses.has_data() or psnr.has_data()):
        return False
    for axes in (losses, psnr):
        axes.grid(alpha=0.3)
        if axes.has_data():
            axes.legend(fontsize=7)
    save_figure(figure, path, dpi=110)
    return True
