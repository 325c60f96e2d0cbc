"""A bottleneck curve as files; its table as text and JSON is `BottleneckCurve.to_text` and `to_dict`.

What each token is worth stands in nats and bits a frame.

    bottleneck.csv    one row a measured timestep
    bottleneck.png    the same over t, and cumulated from the noise down
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from divid.evaluation.bottleneck import BITS, SYMBOLS, TOKENS, BottleneckCurve
from divid.outputs import atomic_path
from divid.plots import new_figure, save_figure


def write_csv(curve: BottleneckCurve, path: Path) -> None:
    """Write one row a measured timestep, at full precision.

    Args:
        curve: The curve.
        path: The file.

    Raises:
        OutputError: It cannot be written.
    """
    rows = _rows(curve)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def plot_curve(curve: BottleneckCurve, path: Path, title: str = "") -> None:
    """Draw what each token is worth at each timestep, and cumulated from the noise down beside the schedule's own KL, as a PNG.

    Args:
        curve: The curve.
        path: The picture.
        title: Heading.

    Raises:
        OutputError: It cannot be written.
    """
    figure = new_figure(11, 4)
    each, summed = figure.subplots(1, 2)
    t = [block.middle for block in curve.blocks]
    for token in TOKENS:
        each.plot(t, curve.nats(token).tolist(), label=f"{SYMBOLS[token]} ({token})", linewidth=1)
        summed.plot(t, curve.cumulative(token).tolist(), label=f"{SYMBOLS[token]} ({token})", linewidth=1)
    summed.plot(t, curve.divergence.tolist(), label="KL(q(x_t | x_0) || N(0, I))", linewidth=1, linestyle="--", color="grey")
    each.set(xlabel="t", ylabel="nats a frame and timestep", title="worth of each token at t")
    summed.set(xlabel="t", ylabel="nats a frame", title="from pure noise down to t")
    crossing = _unit_snr(curve)
    for axes in (each, summed):
        axes.set_yscale("symlog", linthresh=_linear_range(curve, is_summed=axes is summed))
        axes.axvline(crossing, color="black", linewidth=0.5, linestyle=":", label="SNR = 1")
        axes.grid(alpha=0.3)
        axes.legend()
    if title:
        figure.suptitle(title)
    save_figure(figure, path)


def _rows(curve: BottleneckCurve) -> list[dict[str, float | int]]:
    columns: dict[str, list[Any]] = {
        "timestep": [block.middle for block in curve.blocks],
        "first_timestep": [block.first for block in curve.blocks],
        "last_timestep": [block.last for block in curve.blocks],
        "snr": curve.snr.tolist(),
        "weight": curve.weight.tolist(),
        "squared_error": curve.error.tolist(),
    }
    for token in TOKENS:
        columns[f"{token}_error_rise"] = curve.rises[token].mean(1).tolist()
        for name, values in (("", curve.nats(token)), ("_cumulative", curve.cumulative(token))):
            columns[f"{token}{name}_nats"] = values.tolist()
            columns[f"{token}{name}_bits"] = (values * BITS).tolist()
    columns["schedule_kl_nats"] = curve.divergence.tolist()
    columns["schedule_kl_bits"] = (curve.divergence * BITS).tolist()
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _unit_snr(curve: BottleneckCurve) -> float:
    """Give the timestep between the measured ones on both sides of SNR = 1."""
    noisy = [block.middle for block, snr in zip(curve.blocks, curve.snr.tolist(), strict=True) if snr < 1]
    clear = [block.middle for block, snr in zip(curve.blocks, curve.snr.tolist(), strict=True) if snr >= 1]
    return (noisy[0] + clear[-1]) / 2 if noisy and clear else float((noisy or clear)[0])


def _linear_range(curve: BottleneckCurve, *, is_summed: bool) -> float:
    """Give the height up to which an axis is linear, a ten-thousandth of its largest value: what is worth nothing stays at 0."""
    values = [curve.cumulative(token) if is_summed else curve.nats(token) for token in TOKENS]
    largest = max(float(value.abs().max()) for value in values)
    return largest * 1e-4 or 1.0
