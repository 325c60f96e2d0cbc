"""What a benchmark keeps on disk, and who makes which part of it.

plan.yaml
data/NAME/            judge/ (with its confusion matrices), pairs.json, settings.json
cells/DATA/METHOD/seed-N/
    settings.json     all that the result depends on
    run/              the training run
    figure.safetensors  swaps.json  leakage.json  sampled.json  likeness.json  ground_truth.json
    failures.png      the first swaps that the judge did not accept, if there are any
    result.json       the numbers; a cell that has it is done
    failure.json      why the last attempt failed
    lock              held by the process that works on the cell
report files          see `divid.benchmark.report`
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from divid.benchmark.locks import Holder, is_stale
from divid.benchmark.plan import CellSpec
from divid.errors import ConfigError, InputError
from divid.json_files import read_json, write_json
from divid.recipes import changes_between

RESULT_FORMAT = "divid-cell"
RESULT_VERSION = 1
REMAKE = "remove it to make it again"

State = Literal["done", "held", "failed", "open"]


@dataclass(frozen=True)
class DataFolder:
    """What all cells on one data set share.

    Args:
        path: The folder.
    """

    path: Path

    @property
    def judge(self) -> Path:
        """The judge's folder."""
        return self.path / "judge"

    @property
    def pairs(self) -> Path:
        """The pair list."""
        return self.path / "pairs.json"

    @property
    def settings(self) -> Path:
        """What judge and pairs depend on."""
        return self.path / "settings.json"

    @property
    def lock(self) -> Path:
        """Held while the judge is trained."""
        return self.path / "lock"

    @property
    def has_judge(self) -> bool:
        """Whether the judge is trained; its description is written last."""
        return (self.judge / "judge.json").is_file()


@dataclass(frozen=True)
class CellFolder:
    """One cell's files.

    Args:
        path: The folder.
    """

    path: Path

    @property
    def run(self) -> Path:
        """The training run."""
        return self.path / "run"

    @property
    def settings(self) -> Path:
        """What the result depends on."""
        return self.path / "settings.json"

    @property
    def result(self) -> Path:
        """The numbers."""
        return self.path / "result.json"

    @property
    def failure(self) -> Path:
        """Why the last attempt failed."""
        return self.path / "failure.json"

    @property
    def figure(self) -> Path:
        """Frames of some swaps, with their sources."""
        return self.path / "figure.safetensors"

    @property
    def failed_swaps(self) -> Path:
        """The first swaps that the judge did not accept; not there if it accepted all."""
        return self.path / "failures.png"

    @property
    def lock(self) -> Path:
        """Held by who works on the cell."""
        return self.path / "lock"

    @property
    def is_done(self) -> bool:
        """Whether the numbers are there."""
        return self.result.is_file()

    @property
    def has_model(self) -> bool:
        """Whether the model is trained and exported."""
        return (self.run / "model" / "model_index.json").is_file()

    @property
    def has_work(self) -> bool:
        """Whether there is anything that other settings would make worthless: a checkpoint, a model, or numbers."""
        return self.is_done or self.has_model or any((self.run / "checkpoints").glob("*.ckpt"))

    def state(self) -> tuple[State, str]:
        """Give where the cell stands, and what there is to say about it."""
        holder = Holder.read(self.lock)
        if self.is_done:
            return "done", ""
        if holder is not None and not is_stale(self.lock):
            return "held", f"{holder} works on it"
        if self.failure.is_file():
            return "failed", self.read_failure()
        return "open", "begun" if self.run.is_dir() else ""

    def read_failure(self) -> str:
        """Give why the last attempt failed; empty if failure.json does not say.

        Raises:
            InputError: It is damaged.
        """
        return str(read_json(self.failure, InputError, REMAKE).get("error", ""))

    def read_result(self) -> dict[str, Any]:
        """Read result.json.

        Raises:
            InputError: It is damaged, or of another version.
        """
        value = read_json(self.result, InputError, REMAKE)
        if value.get("format") != RESULT_FORMAT or value.get("version") != RESULT_VERSION:
            raise InputError(f"{self.result} is no result of this divid: remove the folder {self.path} to make the cell again")
        return value


@dataclass(frozen=True)
class BenchmarkFolder:
    """All files of a benchmark.

    Args:
        path: The folder.
    """

    path: Path

    @property
    def plan(self) -> Path:
        """The plan as it was last run."""
        return self.path / "plan.yaml"

    def data(self, name: str) -> DataFolder:
        """Give a data set's folder."""
        return DataFolder(self.path / "data" / name)

    def cell(self, name: str) -> CellFolder:
        """Give a cell's folder by the cell's name."""
        return CellFolder(self.path / "cells" / name)


def settle(path: Path, settings: Mapping[str, Any], what: str, defaults: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Write down what a part of the benchmark depends on, or compare it with what was written before.

    Args:
        path: The file.
        settings: Values by dotted key, as JSON has them.
        what: The part, for the message.
        defaults: Values that keys had before there were such keys: one that the file lacks is no change if it is still so.

    Raises:
        ConfigError: It was begun with other values; the message names them.
        OutputError: The file cannot be written.
    """
    now = json.loads(json.dumps(settings))
    if not path.is_file():
        write_json(path, now)
        return
    before = read_json(path, InputError, REMAKE)
    known = json.loads(json.dumps(dict(defaults)))
    before = {**{key: known[key] for key in now if key in known and key not in before}, **before}
    changes = changes_between(before, now)
    if changes:
        told = name_few(changes)
        raise ConfigError(f"{what} was begun with other settings: {told}; give another --out, or remove {path.parent}")


def name_few(changes: Sequence[str]) -> str:
    """Name the first three changes, and how many more there are.

    Args:
        changes: From `changes_between`.
    """
    return ", ".join(changes[:3]) + (f" and {len(changes) - 3} more" if len(changes) > 3 else "")


def share_of(cells: Sequence[CellSpec], shard: str | None, environment: Mapping[str, str] = os.environ) -> list[CellSpec]:
    """Give the cells that fall to this process; cells that share a trained model stay together.

    Args:
        cells: All.
        shard: `i/n`, the i-th of n shares, counted from 1; without it the index of a SLURM array's task counts.
        environment: Where SLURM_ARRAY_TASK_ID, _COUNT, _MIN and _STEP stand.

    Raises:
        ConfigError: `shard`, or one of SLURM's variables, is something else.
    """
    place, count = parse_shard(shard) if shard else _slurm_place(environment)
    trainers = list(dict.fromkeys(cell.trainer for cell in cells))
    mine = set(trainers[place::count])
    return [cell for cell in cells if cell.trainer in mine]


def pick_cells(cells: Sequence[CellSpec], patterns: Sequence[str] | None) -> list[CellSpec]:
    """Give the cells that some patterns name.

    Args:
        cells: All.
        patterns: DATA/METHOD/seed-N with `*` for anything; one with fewer parts names all cells below it. Left out: all cells.

    Raises:
        ConfigError: A pattern names no cell.
    """
    if not patterns:
        return list(cells)
    wanted: set[str] = set()
    for pattern in patterns:
        places = pattern.strip("/").split("/")
        found = {cell.name for cell in cells if fnmatchcase("/".join(cell.name.split("/")[: len(places)]), "/".join(places))}
        if not found:
            names = ", ".join(cell.name for cell in cells)
            raise ConfigError(f"--cells {pattern!r} names none of the cells: {names}")
        wanted |= found
    return [cell for cell in cells if cell.name in wanted]


def parse_shard(text: str) -> tuple[int, int]:
    """Turn `i/n` into (place from 0, number of shares).

    Args:
        text: What stands on the command line.

    Raises:
        ConfigError: It is something else.
    """
    first, _, last = text.partition("/")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise ConfigError(f"--shard is {text!r}, must be i/n with i from 1 to n, as in 1/4")
    return int(first) - 1, int(last)


def _slurm_place(environment: Mapping[str, str]) -> tuple[int, int]:
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP")
    words = [environment.get(name, default) for name, default in zip(names, ("", "", "0", "1"), strict=True)]
    if not words[0]:
        return 0, 1
    for name, word in zip(names, words, strict=True):
        if not word.isdecimal():
            raise ConfigError(f"{name} is {word!r}, must be a whole number: unset it, or say which share to make with --shard")
    task, count, least, step = map(int, words)
    return (task - least) // max(1, step) % max(1, count), max(1, count)
