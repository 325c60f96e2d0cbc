"""What a data set will hold, decided before the first recording is read: its recordings, their order, shards and classes."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from divid.data.schema import FORMAT, FORMAT_VERSION, KINDS, Factors, relative_name, shard_name
from divid.data.shards import ShardJob, ShardReport
from divid.data.sources.base import Item, Source, SourceOptions
from divid.decoding import natural_key
from divid.errors import InputError

MAX_ITEMS_PER_SHARD = 256
SHARDS_WANTED = 32
"""Shards of a data set of ordinary size: enough to share out evenly, few enough to open quickly."""


@dataclass(frozen=True)
class Plan:
    """All that decides what a data set will hold.

    Args:
        source: Where the recordings come from.
        root: Its folder; None for a generated source.
        options: What the person chose.
        items: The recordings, in order.
        factors: Classes by factor.
    """

    source: Source
    root: Path | None
    options: SourceOptions
    items: tuple[Item, ...]
    factors: Factors

    @classmethod
    def make(cls, source_class: type, root: Path | None, options: SourceOptions) -> Plan:
        """List a source.

        Args:
            source_class: A value of `SOURCES`.
            root: The source's folder.
            options: What the person chose.

        Raises:
            InputError: There is nothing there, or two recordings have one name.
        """
        source = source_class(root, options)
        items = source.items()
        if not items:
            raise InputError(f"{root or source.name} holds no recording for the source {source.name}: check --source")
        ids = [item.id for item in items]
        if len(set(ids)) < len(ids):
            twice = next(name for place, name in enumerate(ids) if name in ids[:place])
            raise InputError(f"{root}: two recordings are called {twice}: rename one, or give a folder that holds only one")
        if options.limit is not None and options.limit < len(items):
            items = [items[place * len(items) // options.limit] for place in range(options.limit)]
        factors = {kind: {name: _classes(items, name) for name in getattr(source, f"{kind}_factors")} for kind in KINDS}
        return cls(source, root, options, tuple(items), factors)

    def fingerprint(self) -> dict[str, Any]:
        """Give what must be equal for a killed call to be continued."""
        states = [[_file_state(path, self.root) for path in item.paths] for item in self.items]
        lines = [
            json.dumps([item.id, state, item.labels, item.split, item.trial], sort_keys=True)
            for item, state in zip(self.items, states, strict=True)
        ]
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        return {"version": FORMAT_VERSION, "source": self.source.name, "options": self.plain_options(), "listing_sha256": digest}

    def plain_options(self) -> dict[str, Any]:
        """Give the options as JSON holds them."""
        values = asdict(self.options)
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    def command(self) -> str:
        """Give the command line that prepares this data set, without its `--out`."""
        words = ["divid", "prepare", self.source.name.replace("_", "-")]
        if self.root is not None:
            words += ["--source", str(self.root)]
        words += ["--size", str(self.options.image_size)]
        default = asdict(SourceOptions())
        for name, value in self.plain_options().items():
            if name != "image_size" and value != default[name]:
                words += [f"--{name.replace('_', '-')}", str(value)]
        return shlex.join(words)

    def jobs(self, out: Path, strict: bool) -> list[ShardJob]:
        """Deal the recordings out to shards.

        Args:
            out: The data set.
            strict: Fail at the first recording that cannot be read.
        """
        size = max(1, min(MAX_ITEMS_PER_SHARD, -(-len(self.items) // SHARDS_WANTED)))
        starts = range(0, len(self.items), size)
        return [
            ShardJob(index, out / shard_name(index), self.items[start : start + size], strict)
            for index, start in enumerate(starts)
        ]

    def info(self, reports: Sequence[ShardReport]) -> dict[str, Any]:
        """Give the contents of `dataset.json`.

        Args:
            reports: What the shards hold, in order.
        """
        counts = {
            kind: {
                name: {label: sum(r.labels.get(f"{kind}.{name}", {}).get(label, 0) for r in reports) for label in classes}
                for name, classes in self.factors[kind].items()
            }
            for kind in KINDS
        }
        return {
            "format": FORMAT,
            **self.fingerprint(),
            "command": self.command(),
            "source_folder": None if self.root is None else str(self.root),
            "image_size": self.options.image_size,
            "channels": self.options.channels,
            "num_clips": sum(report.num_clips for report in reports),
            "num_recordings": sum(report.num_recordings for report in reports),
            "num_frames": sum(report.num_frames for report in reports),
            "splits": _sum_counts(report.splits for report in reports),
            "fps": _sum_counts(report.fps for report in reports),
            "factors": counts,
            "details": _sum_counts(report.details for report in reports),
            "skipped": [{"file": file, "reason": reason} for report in reports for file, reason in report.skipped],
            "shards": [
                {"file": shard_name(report.index), "num_clips": report.num_clips} for report in reports if report.num_clips
            ],
        }


def _classes(items: Iterable[Item], factor: str) -> list[str]:
    return sorted({item.labels[factor] for item in items if factor in item.labels}, key=natural_key)


def _file_state(path: Path, root: Path | None) -> tuple[str | None, int]:
    """Give a file's name and size; of a folder, the size of all its files."""
    try:
        files = [path] if not path.is_dir() else [file for file in path.iterdir() if file.is_file()]
        return relative_name([path], root), sum(file.stat().st_size for file in files)
    except OSError:
        return relative_name([path], root), -1


def _sum_counts(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in counts:
        for key, number in part.items():
            total[key] = total.get(key, 0) + number
    return dict(sorted(total.items()))
