"""From recordings to one Parquet shard, in bounded memory, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from divid.data.schema import MAX_FRAMES, POSES_COLUMN, Factors, hash_files, label_columns, relative_name
from divid.data.sources.base import Item, PosedSource, Recording, Source, StreamingSource
from divid.errors import DatasetError, InputError, OutputError
from divid.outputs import atomic_path, describe

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP_BYTES = 16 * 2**20
"""Raw bytes of frames after which a row group is closed, which bounds the writer's memory."""


@dataclass(frozen=True)
class ShardJob:
    """What a worker needs to write one shard.

    Args:
        index: Place of the shard in the data set.
        path: The file to write.
        items: Its recordings, in order.
        is_strict: Fail at the first recording that cannot be read.
    """

    index: int
    path: Path
    items: tuple[Item, ...]
    is_strict: bool = False


@dataclass
class ShardReport:
    """What a written shard holds.

    Args:
        index: Place of the shard in the data set.
        num_clips: Rows; 0 if every recording was skipped, and then there is no file.
        num_recordings: Recordings.
        num_frames: Frames.
        fps: Clips by frame rate.
        splits: Clips by split.
        labels: Clips by class, by column (`static.subject`).
        details: Sums of the integers that the source kept with its recordings.
        skipped: (file, reason) of each recording that could not be read.
    """

    index: int
    num_clips: int = 0
    num_recordings: int = 0
    num_frames: int = 0
    fps: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    details: dict[str, int] = field(default_factory=dict)
    skipped: list[list[str]] = field(default_factory=list)

    def count_recording(
        self, item: Item, num_frames: list[int], fps: float, columns: Iterable[str], details: dict[str, Any]
    ) -> None:
        """Add one recording.

        Args:
            item: The recording.
            num_frames: Frames of each of its rows.
            fps: Its frame rate.
            columns: The label columns.
            details: What the source kept with it.
        """
        num_clips = len(num_frames)
        self.num_recordings += 1
        self.num_clips += num_clips
        self.num_frames += sum(num_frames)
        _add(self.fps, f"{fps:g}", num_clips)
        _add(self.splits, item.split, num_clips)
        for column in columns:
            label = item.labels.get(column.split(".", 1)[1])
            if label is not None:
                _add(self.labels.setdefault(column, {}), label, num_clips)
        for name, value in details.items():
            if isinstance(value, int):
                _add(self.details, name, value)


@dataclass(frozen=True)
class ShardWriter:
    """Writes shards of one data set; workers hold one each.

    Args:
        source: Where the recordings come from.
        root: The source's folder, to which file names are relative.
        factors: Classes by factor.
        schema: `make_schema(factors)`.
    """

    source: Source
    root: Path | None
    factors: Factors
    schema: pa.Schema

    def write(self, job: ShardJob) -> ShardReport:
        """Read a shard's recordings and write them, atomically.

        Args:
            job: The shard.

        Raises:
            DatasetError: A recording cannot be read, and the job is strict.
            OutputError: The shard cannot be written.
        """
        broken: dict[str, str] = {}
        while True:
            try:
                return self._write_once(job, broken)
            except _BrokenInTheMiddleError as error:
                # Its first rows are in the file already: write the shard anew without it.
                broken[error.item_id] = str(error)

    def _write_once(self, job: ShardJob, broken: dict[str, str]) -> ShardReport:
        report = ShardReport(job.index)
        try:
            with atomic_path(job.path) as temporary:
                groups = _RowGroups(temporary, self.schema)
                try:
                    for item in job.items:
                        reason = broken.get(item.id) or self._write_item(item, groups, report)
                        if reason and job.is_strict:
                            raise DatasetError(f"{reason} (--strict; without it the recording is skipped)")
                        if reason:
                            report.skipped.append([relative_name(item.paths, self.root) or item.id, reason])
                    groups.flush()
                finally:
                    groups.close()
                if report.num_clips == 0:
                    raise _EmptyShardError
        except _EmptyShardError:
            job.path.unlink(missing_ok=True)
        return report

    def _write_item(self, item: Item, groups: _RowGroups, report: ShardReport) -> str | None:
        """Write one recording, or say why it cannot be read."""
        columns = label_columns(self.factors)
        num_frames: list[int] = []
        try:
            recording, digest = self._open(item)
            poses = self.source.poses(item) if isinstance(self.source, PosedSource) else None
            for part, frames in enumerate(_reading(split_parts(recording.chunks), item)):
                row = self._row(item, recording, part, frames) | {"source_sha256": digest}
                if poses is not None:
                    start = sum(num_frames)
                    row[POSES_COLUMN] = poses[start : start + len(frames)].tolist()
                groups.add(row)
                num_frames.append(len(frames))
        except _UnreadableError as error:
            if num_frames:
                raise _BrokenInTheMiddleError(item.id, str(error)) from error
            return str(error)
        if not num_frames:
            return f"{item.id} holds no frame"
        report.count_recording(item, num_frames, recording.fps, columns, recording.details)
        return None

    def _open(self, item: Item) -> tuple[Recording, str | None]:
        try:
            if isinstance(self.source, StreamingSource):
                recording = self.source.stream(item)
            else:
                frames, fps = self.source.load(item)
                recording = Recording(iter([frames]), fps)
            return recording, hash_files(item.paths)
        except (InputError, OSError) as error:
            raise _unreadable(error, item) from error

    def _row(self, item: Item, recording: Recording, part: int, frames: np.ndarray) -> dict[str, Any]:
        num_frames, height, width, channels = frames.shape
        labels = {}
        for column, classes in label_columns(self.factors).items():
            label = item.labels.get(column.split(".", 1)[1])
            labels[column] = None if label is None else classes.index(label)
        return {
            "id": item.id if part == 0 else f"{item.id}#{part}",
            "recording": item.id,
            "part": part,
            "split": item.split,
            "trial": item.trial,
            "fps": recording.fps,
            "num_frames": num_frames,
            "height": height,
            "width": width,
            "channels": channels,
            **labels,
            "source_file": relative_name(item.paths, self.root),
            "extra": json.dumps({**item.extra, **recording.details}, ensure_ascii=False, sort_keys=True),
            "frames": np.ascontiguousarray(frames).tobytes(),
        }


def split_parts(chunks: Iterable[np.ndarray], max_frames: int = MAX_FRAMES) -> Iterator[np.ndarray]:
    """Regroup runs of frames into parts of at most `max_frames`; a short rest shares evenly with the part before it.

    Args:
        chunks: Consecutive runs of frames, of any lengths.
        max_frames: Most frames of a part.

    Yields:
        Consecutive parts. At most two of them are held at a time.
    """
    held: list[np.ndarray] = []
    count = 0
    for chunk in chunks:
        held.append(chunk)
        count += len(chunk)
        while count >= 2 * max_frames:
            frames = np.concatenate(held)
            yield frames[:max_frames]
            held, count = [frames[max_frames:]], count - max_frames
    if count > 0:
        yield from np.array_split(np.concatenate(held), 1 if count <= max_frames else 2)


class _RowGroups:
    """Collects rows and writes them as row groups of bounded size."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        packed = [name for name in schema.names if name != "frames"]
        self.schema, self.size = schema, 0
        self.rows: list[dict[str, Any]] = []
        self.writer = pq.ParquetWriter(
            path, schema, compression="zstd", compression_level=3, use_dictionary=packed, write_statistics=packed
        )

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self.size += len(row["frames"])
        if self.size >= ROW_GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        import pyarrow as pa

        if self.rows:
            self.writer.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
        self.rows, self.size = [], 0

    def close(self) -> None:
        self.writer.close()


class _BrokenInTheMiddleError(Exception):
    """A recording broke after its first rows were written."""

    def __init__(self, item_id: str, reason: str) -> None:
        super().__init__(reason)
        self.item_id = item_id


class _UnreadableError(Exception):
    """A recording cannot be read; the message is the reason."""


class _EmptyShardError(Exception):
    """No recording of a shard could be read."""


def _reading(parts: Iterator[np.ndarray], item: Item) -> Iterator[np.ndarray]:
    """Pass parts on, and tell a fault in reading from a fault in writing."""
    while True:
        try:
            frames = next(parts)
        except StopIteration:
            return
        except (InputError, OSError) as error:
            raise _unreadable(error, item) from error
        yield frames


def _unreadable(error: InputError | OSError, item: Item) -> _UnreadableError | OutputError:
    if isinstance(error, OutputError):
        return error
    text = describe(error)
    return _UnreadableError(text if isinstance(error, InputError) else f"{item.paths[0] if item.paths else item.id}: {text}")


def _add(counts: dict[str, int], key: str, number: int) -> None:
    counts[key] = counts.get(key, 0) + number
