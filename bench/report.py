"""The results as a table for the screen, as Markdown and as JSON."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bench.profiling import Profile
from bench.rows import Failure, Row
from bench.workload import Bench
from divid.recipes import flatten

COLUMNS = ("what", "precision", "time", "ratio", "GFLOP", "of peak", "peak MiB", "runs", "note")
QUICK_WARNING = "--quick: a toy model and a few runs each, which show that every part works; no figure means anything"
"""What stands over the figures of a toy model."""
SCHEMA = 1
"""Number of the JSON's form."""


@dataclass
class Results:
    """All that a bench has found.

    Args:
        machine: Where it ran, and with what.
        recipe: Every value of the recipe, by dotted key.
        peaks: What the machine can do at most.
        rows: The figures.
        profiles: Where the time goes.
        failures: What could not be measured.
    """

    machine: dict[str, Any]
    recipe: dict[str, Any]
    peaks: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON has it."""
        return {
            "schema": SCHEMA,
            "machine": self.machine,
            "recipe": self.recipe,
            "peaks": self.peaks,
            "rows": [asdict(row) for row in self.rows],
            "profiles": [profile.to_dict() for profile in self.profiles],
            "failures": [asdict(failure) for failure in self.failures],
        }

    def write(self, folder: Path) -> None:
        """Write `speed.json`, `speed.md` and `profile.txt`.

        Args:
            folder: It exists.
        """
        (folder / "speed.json").write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        (folder / "speed.md").write_text(self.markdown(), encoding="utf-8")
        if self.profiles:
            text = "\n\n".join(profile.describe() for profile in self.profiles)
            (folder / "profile.txt").write_text(text + "\n", encoding="utf-8")

    def text(self) -> str:
        """Give the table for the screen."""
        lines = [
            describe_machine(self.machine),
            describe_peaks(self.peaks),
            *([QUICK_WARNING] if self.machine["is_quick"] else []),
        ]
        for part in dict.fromkeys(row.part for row in self.rows):
            lines += ["", *_aligned([(part, *COLUMNS[1:]), *(cells(row) for row in self.rows if row.part == part)])]
        lines += [f"bench: {failure.part} failed: {failure.reason}" for failure in self.failures]
        return "\n".join(lines)

    def markdown(self) -> str:
        """Give the tables as Markdown."""
        lines = ["# Speed", "", describe_machine(self.machine), "", describe_peaks(self.peaks)]
        lines += ["", f"**{QUICK_WARNING}**"] if self.machine["is_quick"] else []
        lines += ["", f"`{self.machine['command']}`"]
        for part in dict.fromkeys(row.part for row in self.rows):
            lines += ["", f"## {part}", "", _marked(COLUMNS), _marked(["---"] * len(COLUMNS))]
            lines += [_marked(cells(row)) for row in self.rows if row.part == part]
        for profile in self.profiles:
            lines += ["", f"## Where the time goes: {profile.name}", "", "```", profile.describe(), "```"]
        if self.failures:
            lines += ["", "## Not measured", "", *(f"- {failure.part}: {failure.reason}" for failure in self.failures)]
        return "\n".join(lines) + "\n"


def cells(row: Row) -> tuple[str, ...]:
    """Give a row as the columns show it.

    Args:
        row: The figure.
    """
    return (
        row.name,
        row.precision,
        f"{_time(row.seconds)} a {row.unit}",
        f"{row.ratio:.2f} x" if row.reference else "reference",
        "" if row.flops is None else f"{row.flops / 1e9:.3g}",
        "" if row.peak_share is None else f"{100 * row.peak_share:.1f} %",
        "" if row.peak_memory_mib is None else f"{row.peak_memory_mib:.0f}",
        str(row.num_runs),
        row.note,
    )


def describe_machine(machine: dict[str, Any]) -> str:
    """Give one line about the machine.

    Args:
        machine: From `look_at_machine`.
    """
    return (
        f"{machine['device_name']}, {machine['threads']} threads on {machine['cores']} cores, torch {machine['torch']}, "
        f"commit {machine['commit']}, {machine['date']}"
    )


def describe_peaks(peaks: dict[str, Any]) -> str:
    """Give one line about the machine's limits.

    Args:
        peaks: From `Peaks.to_dict`.
    """
    rates = [f"matrix product {name} {value / 1e9:.0f} GFLOP/s" for name, value in peaks.get("flops_per_second", {}).items()]
    rates += [f"copy {name} {value / 1e9:.1f} GB/s" for name, value in peaks.get("bytes_per_second", {}).items()]
    return "peak of this run: " + (", ".join(rates) or "not measured")


def look_at_machine(bench: Bench) -> dict[str, Any]:
    """Say where and with what the bench runs.

    Args:
        bench: The settings.
    """
    is_gpu = bench.device == "cuda"
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "device": bench.device,
        "device_name": torch.cuda.get_device_name() if is_gpu else _processor(),
        "cores": len(affinity),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": _commit(),
        "command": shlex.join(["python", "-m", "bench", *bench.arguments]),
        "is_quick": bench.is_quick,
        "seconds_a_figure": bench.effort.seconds,
    }


def start_results(bench: Bench) -> Results:
    """Give results without any figure yet.

    Args:
        bench: The settings.
    """
    return Results(machine=look_at_machine(bench), recipe=flatten(bench.recipe))


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _time(seconds: float) -> str:
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:.0f} s"


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    padded = [[text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in table]
    return ["  ".join(line).rstrip() for line in padded]


def _marked(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"
