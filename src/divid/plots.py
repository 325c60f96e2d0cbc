"""Plots without a window: figures as PNG files, written whole or not at all."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from divid.outputs import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure that needs no display.

    Args:
        width: In inches.
        height: In inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path, dpi: int = 120) -> None:
    """Write a figure as a PNG.

    Args:
        figure: From `new_figure`.
        path: The picture.
        dpi: Dots an inch.

    Raises:
        OutputError: It cannot be written.
    """
    fonts = logging.getLogger("matplotlib.font_manager")
    level = fonts.level
    fonts.setLevel(
        logging.ERROR
    )  # a list of fonts made in an environment that is gone costs a screenful of warnings, and nothing else
    try:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=dpi)
    finally:
        fonts.setLevel(level)
