"""Prepared data sets, opened for reading: clips by number, from one set or several at once."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from divid.data.images import resize_uint8, to_channels
from divid.data.schema import CACHE_FOLDER, KINDS, POSES_COLUMN, label_columns, read_info, required_columns
from divid.errors import ConfigError, DatasetError
from divid.outputs import describe

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger("divid")

SPLITS = ("train", "test")


@dataclass(frozen=True)
class DatasetInfo:
    """What the opened clips are.

    Args:
        names: Folders of the data sets.
        image_size: Height and width of the frames as they are given.
        channels: 1 or 3, as they are given.
        factors: Names of the factors by kind, `static` and `dynamic`.
        classes: Classes by factor, over all the sets.
        num_clips: Number of clips.
        num_frames: Number of frames in all.
    """

    names: tuple[str, ...]
    image_size: int
    channels: int
    factors: dict[str, tuple[str, ...]]
    classes: dict[str, tuple[str, ...]]
    num_clips: int
    num_frames: int


class ClipDataset:
    """Clips of one or more prepared data sets, by number.

    Frames stay on disk, memory-mapped; everything else about a clip is held in memory. Made by `open`.

    Args:
        parts: The opened data sets.
        places: (number of the set, row) of every clip.
        image_size: Height and width of the frames that are given.
        channels: Channels of the frames that are given.
    """

    def __init__(self, parts: Sequence[_Part], places: np.ndarray, image_size: int, channels: int) -> None:
        self._parts = tuple(parts)
        self._places = places
        self._image_size, self._channels = image_size, channels
        self.info = self._describe()

    @classmethod
    def open(
        cls,
        paths: Path | str | Sequence[Path | str],
        *,
        split: str | None = None,
        image_size: int | None = None,
        channels: int | None = None,
    ) -> ClipDataset:
        """Open one data set, or several whose clips follow one another.

        Factors are matched by name; a set that lacks one is unlabelled there.

        Args:
            paths: Folders made by `divid prepare`.
            split: `train` or `test`; by default every clip.
            image_size: Wanted height and width; frames of a whole multiple of it are averaged down.
            channels: Wanted channels; grey is repeated to RGB, RGB turned to its luma.

        Raises:
            DatasetError: A set is missing, damaged, empty or not ours, has another size, or the split is empty.
            ConfigError: There is no such split.
        """
        folders = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
        if not folders:
            raise DatasetError("no data set was given: name at least one folder made by divid prepare")
        if split is not None and split not in SPLITS:
            raise ConfigError(f"split is {split!r}, must be one of {', '.join(SPLITS)}")
        parts = [_Part.open(folder) for folder in folders]
        _check_kinds(parts)
        image_size = image_size or _common(parts, "image_size", "size")
        channels = channels or max(part.channels for part in parts)
        for part in parts:
            _check_fits(part, image_size, channels)
        places = [
            (number, row)
            for number, part in enumerate(parts)
            for row in range(len(part.ids))
            if split is None or part.splits[row] == split
        ]
        if not places:
            names = ", ".join(str(folder) for folder in folders)
            raise DatasetError(f"{names}: holds no clip{f' in the split {split!r}' if split else ''}: prepare a set that does")
        return cls(parts, np.array(places, dtype=np.int64), image_size, channels)

    def __len__(self) -> int:
        """Number of clips."""
        return len(self._places)

    @property
    def set_numbers(self) -> tuple[int, ...]:
        """Number of the data set that each clip is from, in the order in which they were opened."""
        return tuple(self._places[:, 0].tolist())

    def num_frames(self, index: int) -> int:
        """Give the number of frames of a clip.

        Args:
            index: The clip.
        """
        part, row = self._at(index)
        return int(part.shapes[row, 0])

    def frames(self, index: int, positions: np.ndarray | None = None) -> np.ndarray:
        """Give a clip's frames, uint8 F H W C; they may be a read-only view of the file.

        Args:
            index: The clip.
            positions: Which frames; by default all.
        """
        part, row = self._at(index)
        frames = part.frames(row)
        if positions is not None:
            frames = frames[positions]
        return resize_uint8(to_channels(frames, self._channels), self._image_size)

    def labels(self, index: int) -> dict[str, str | None]:
        """Give a clip's class by factor; None where it is unlabelled.

        Args:
            index: The clip.
        """
        part, row = self._at(index)
        return {name: part.label(row, name) for name in self.info.classes}

    def clip_id(self, index: int) -> str:
        """Give a clip's name, unique in its data set.

        Args:
            index: The clip.
        """
        part, row = self._at(index)
        return part.ids[row]

    def fps(self, index: int) -> float:
        """Give a clip's frames a second.

        Args:
            index: The clip.
        """
        part, row = self._at(index)
        return float(part.fps[row])

    def poses(self, index: int) -> np.ndarray | None:
        """Give a clip's joints, float32 by (frame, joint, axis), in sides of the picture; None where the set has none.

        Args:
            index: The clip.
        """
        part, row = self._at(index)
        return part.poses(row)

    def origin(self, index: int) -> tuple[str, dict[str, Any]]:
        """Give the source that a clip was prepared from, and the options of that preparation.

        Args:
            index: The clip.
        """
        part, _ = self._at(index)
        return part.source, dict(part.options)

    def row(self, index: int) -> dict[str, Any]:
        """Give a clip's row without its frames: recording, trial, source file and hash, and the like.

        Args:
            index: The clip.
        """
        part, row = self._at(index)
        return part.facts(row)

    def subset(self, indices: Sequence[int] | np.ndarray) -> ClipDataset:
        """Give some of the clips, in the order given.

        Args:
            indices: Which clips.

        Raises:
            DatasetError: None are asked for.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if chosen.size == 0:
            raise DatasetError("a subset of no clips was asked for")
        return ClipDataset(self._parts, self._places[chosen], self._image_size, self._channels)

    def _at(self, index: int) -> tuple[_Part, int]:
        number, row = self._places[index]
        return self._parts[number], int(row)

    def _describe(self) -> DatasetInfo:
        factors = {kind: tuple(dict.fromkeys(name for part in self._parts for name in part.factors[kind])) for kind in KINDS}
        classes = {
            name: tuple(dict.fromkeys(label for part in self._parts for label in part.classes.get(name, ())))
            for kind in KINDS
            for name in factors[kind]
        }
        return DatasetInfo(
            names=tuple(str(part.folder) for part in self._parts),
            image_size=self._image_size,
            channels=self._channels,
            factors=factors,
            classes=classes,
            num_clips=len(self._places),
            num_frames=int(sum(self._parts[number].shapes[row, 0] for number, row in self._places)),
        )


def stretch_positions(num_frames: int, count: int, offsets: np.ndarray, *, start: float = 0.0, span: float = 1.0) -> np.ndarray:
    """Give one position from each of `count` equal stretches of a part of a recording.

    A recording shorter than `count` repeats frames, in order.

    Args:
        num_frames: Frames of the recording.
        count: Positions wanted.
        offsets: Place within each stretch, in [0, 1).
        start: Where the part begins, as a share of the recording.
        span: Its length, as a share of the recording.
    """
    places = (start + (np.arange(count) + offsets) / count * span) * num_frames
    return np.clip(places.astype(np.int64), 0, num_frames - 1)


def middle_positions(num_frames: int, count: int) -> np.ndarray:
    """Give the frame in the middle of each of `count` equal stretches of a recording: the choice of every evaluation.

    Args:
        num_frames: Frames of the recording.
        count: Positions wanted.
    """
    return stretch_positions(num_frames, count, np.full(count, 0.5))


class _Part:
    """One opened data set."""

    def __init__(self, folder: Path, info: dict[str, Any], table: pa.Table) -> None:
        self.folder = folder
        self.source, self.options = str(info.get("source", "unknown")), dict(info.get("options", {}))
        self.image_size, self.channels = int(info["image_size"]), int(info["channels"])
        self.factors = {kind: tuple(info["factors"][kind]) for kind in KINDS}
        self.classes = {column.split(".", 1)[1]: tuple(names) for column, names in label_columns(info["factors"]).items()}
        self._facts = table.drop_columns(["frames", *({POSES_COLUMN} & set(table.column_names))])
        self.ids: list[str] = table.column("id").to_pylist()
        self.splits: list[str] = table.column("split").to_pylist()
        self.fps = table.column("fps").to_numpy()
        self.shapes = np.stack([table.column(name).to_numpy() for name in ("num_frames", "height", "width", "channels")], axis=1)
        self._labels = {column.split(".", 1)[1]: table.column(column).to_pylist() for column in label_columns(info["factors"])}
        self._poses = table.column(POSES_COLUMN) if POSES_COLUMN in table.column_names else None
        self._chunks = table.column("frames").chunks
        self._starts = np.cumsum([0, *(len(chunk) for chunk in self._chunks)])

    @classmethod
    def open(cls, folder: Path) -> _Part:
        info = read_info(folder)
        files = [str(folder / shard["file"]) for shard in info["shards"]]
        if not files:
            raise DatasetError(f"{folder} holds no clip: prepare it again with --overwrite")
        for shard, file in zip(info["shards"], files, strict=True):
            _check_shard(file, shard["num_clips"], required_columns(info["factors"]))
        return cls(folder, info, _map_table(folder, files))

    def __reduce__(self) -> tuple[Any, ...]:
        # A loader process maps the files itself, instead of being sent their contents.
        return _Part.open, (self.folder,)

    def frames(self, row: int) -> np.ndarray:
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        buffer = self._chunks[number][row - int(self._starts[number])].as_buffer()
        return np.frombuffer(buffer, dtype=np.uint8).reshape(self.shapes[row])

    def label(self, row: int, factor: str) -> str | None:
        column = self._labels.get(factor)
        place = None if column is None else column[row]
        return None if place is None or place < 0 else self.classes[factor][place]

    def poses(self, row: int) -> np.ndarray | None:
        return None if self._poses is None else np.array(self._poses[row].as_py(), dtype=np.float32)

    def facts(self, row: int) -> dict[str, Any]:
        return self._facts.slice(row, 1).to_pylist()[0]


def _check_shard(file: str, num_clips: int, columns: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    advice = "prepare the data set again with --overwrite"
    try:
        metadata = pq.read_metadata(file)
    except FileNotFoundError:
        raise DatasetError(f"{file} is missing: {advice}") from None
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{file} is damaged ({' '.join(str(error).split())}): {advice}") from error
    missing = set(columns) - set(metadata.schema.to_arrow_schema().names)
    if missing:
        raise DatasetError(f"{file} lacks the column {min(missing)!r}, so divid did not make it: {advice}")
    if metadata.num_rows != num_clips:
        raise DatasetError(f"{file} holds {metadata.num_rows} clips where dataset.json says {num_clips}: {advice}")


def _map_table(folder: Path, files: list[str]) -> pa.Table:
    """Unpack the shards once into a table on disk, and map it into memory."""
    import datasets
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    had_bars = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        opened = datasets.Dataset.from_parquet(files, cache_dir=str(_cache_folder(folder)))
    except OSError as error:
        raise DatasetError(f"{folder} cannot be unpacked for reading ({error}): free some space") from error
    except (datasets.exceptions.DatasetGenerationError, ValueError, KeyError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DatasetError(f"{folder} cannot be unpacked for reading ({describe(cause)}): free some space") from error
        raise DatasetError(
            f"{folder} is damaged ({' '.join(str(cause).split())}): prepare the data set again with --overwrite"
        ) from error
    finally:
        if had_bars:
            enable_progress_bars()
    return opened.data.table


def _cache_folder(folder: Path) -> Path:
    cache = folder / CACHE_FOLDER
    if os.access(folder, os.W_OK):
        return cache
    logger.info("%s is not writable, so its clips are unpacked in the system's folder for temporary files", folder)
    return Path(tempfile.gettempdir()) / f"divid{folder.resolve()}".replace(os.sep, "-")


def _common(parts: Sequence[_Part], attribute: str, flag: str) -> int:
    values = sorted({getattr(part, attribute) for part in parts})
    if len(values) > 1:
        raise DatasetError(f"the data sets have different sizes ({', '.join(map(str, values))}): prepare them with one --{flag}")
    return values[0]


def _check_kinds(parts: Sequence[_Part]) -> None:
    kinds: dict[str, tuple[str, Path]] = {}
    for part in parts:
        for kind in KINDS:
            for name in part.factors[kind]:
                other, folder = kinds.setdefault(name, (kind, part.folder))
                if other != kind:
                    raise DatasetError(
                        f"{name!r} is a {kind} factor in {part.folder} and a {other} one in {folder}: name one of them otherwise"
                    )


def _check_fits(part: _Part, image_size: int, channels: int) -> None:
    if part.image_size % image_size:
        raise DatasetError(
            f"{part.folder} has frames of {part.image_size} pixels, {image_size} are wanted: prepare it with --size {image_size}"
        )
    if part.image_size != image_size:
        logger.info("%s: frames of %d pixels are averaged down to %d", part.folder, part.image_size, image_size)
    if part.channels != channels:
        change = "grey frames are repeated to RGB" if channels == 3 else "RGB frames are turned to grey"
        logger.info("%s: %s", part.folder, change)
