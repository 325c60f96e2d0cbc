"""What a source of clips is: it lists recordings, and reads one as frames. Nothing else knows about a data set's files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from divid.errors import ConfigError, InputError

if TYPE_CHECKING:
    from divid.video import Fit

CHUNK_FRAMES = 64
"""Frames of a long recording that are read at a time."""


@dataclass(frozen=True)
class SourceOptions:
    """What a person may choose about a prepared data set; a source uses what concerns it.

    Args:
        image_size: Height and width of the prepared frames.
        channels: 1 for grey, 3 for RGB.
        seed: Seed of a generated source.
        num_clips: How many clips a generated source makes; its own default if None.
        num_looks: How many static classes it has at most; its own default if None.
        scenery: What stands behind a puppet: `full`, or `plain`, one colour.
        limit: Prepare at most so many recordings, picked evenly over the listing.
        fit: How a `folder` recording that is not square becomes square: `crop` its centre, `pad` with black, or `stretch`.
        labels: `folders` takes a `folder` recording's parent folder as its action; `none` leaves it unlabelled.
        layout: Pattern of a `folder` recording's path, such as `{subject}/{action}`; every name in braces becomes a factor.
        labels_csv: Table of labels for `folder`: a column `file`, and columns `static.NAME`, `dynamic.NAME`, `split`.
        test_fraction: Share of the recordings that is held out where the source knows no split, chosen by a hash of the id.
    """

    image_size: int = 64
    channels: int = 3
    seed: int = 0
    num_clips: int | None = None
    num_looks: int | None = None
    scenery: Literal["full", "plain"] = "full"
    limit: int | None = None
    fit: Literal["crop", "pad", "stretch"] = "crop"
    labels: Literal["none", "folders"] = "none"
    layout: str | None = None
    labels_csv: Path | None = None
    test_fraction: float = 0.1

    def validate(self) -> SourceOptions:
        """Check every value.

        Raises:
            ConfigError: A value is outside its range.
        """
        if self.channels not in (1, 3):
            raise ConfigError(f"channels is {self.channels}, must be 1 (grey) or 3 (RGB)")
        for name, value, low, high in (
            ("image size", self.image_size, 8, 1024),
            ("test fraction", self.test_fraction, 0, 1),
            ("limit", self.limit, 1, 10**9),
            ("number of clips", self.num_clips, 1, 10**9),
            ("number of looks", self.num_looks, 2, 10**6),
        ):
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{name} is {value}, must lie between {low} and {high}")
        return self


@dataclass(frozen=True)
class Item:
    """One recording in a source's listing: cheap, and sent to worker processes as it is.

    Args:
        id: Name of the recording, unique in the source.
        paths: Files it is read from (a folder stands for the images in it); none where it is generated.
        labels: Class by factor; a factor that is missing here is unlabelled.
        split: Side of the source's own split.
        trial: Number of the repetition, where the source counts them.
        extra: Whatever else the source needs to load it.
    """

    id: str
    paths: tuple[Path, ...]
    labels: dict[str, str]
    split: str = "train"
    trial: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Recording:
    """One recording while it is read.

    Args:
        chunks: Consecutive runs of frames, uint8 (F, H, W, C); read once, in order.
        fps: Frames a second.
        details: Facts worth keeping with the row, such as how often a face was found; integers are summed over the data set.
    """

    chunks: Iterator[np.ndarray]
    fps: float
    details: dict[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """A kind of recordings, constructed as `SourceClass(folder, options)`; the folder is None for a generated one."""

    name: str
    static_factors: tuple[str, ...]
    dynamic_factors: tuple[str, ...]

    def items(self) -> list[Item]:
        """List the recordings without reading them."""
        ...

    def load(self, item: Item) -> tuple[np.ndarray, float]:
        """Read one recording as uint8 frames (F, H, W, C) and frames a second.

        Args:
            item: One of `items`.

        Raises:
            InputError: The recording cannot be read.
        """
        ...


@runtime_checkable
class StreamingSource(Protocol):
    """A source whose recordings may not fit into memory, or that has facts to keep with a row."""

    def stream(self, item: Item) -> Recording:
        """Open one recording to be read piece by piece.

        Args:
            item: One of `items`.
        """
        ...


@runtime_checkable
class PosedSource(Protocol):
    """A source that knows where every joint is."""

    def poses(self, item: Item) -> np.ndarray:
        """Give the joints of a recording, float32 by (frame, joint, axis).

        Args:
            item: One of `items`.
        """
        ...


def open_recording(path: Path, options: SourceOptions, *, fit: Fit = "crop") -> Recording:
    """Open a video, GIF or image folder as a recording that is read in chunks.

    Args:
        path: What `divid.video` reads.
        options: Size and channels of the frames.
        fit: How frames that are not square become square.

    Raises:
        VideoReadError: It cannot be read.
    """
    from divid.video import open_video

    reader = open_video(path, channels=options.channels, size=options.image_size, fit=fit)

    def chunks() -> Iterator[np.ndarray]:
        with reader:
            yield from reader.chunks(CHUNK_FRAMES)

    return Recording(chunks(), reader.fps)


def held_out(ids: Sequence[str], test_fraction: float) -> set[str]:
    """Choose the recordings of the test split where a source knows none: those whose ids hash lowest.

    Whatever other recordings there are, the order of two ids never changes. Of two or more, at least one is held out.

    Args:
        ids: All recordings.
        test_fraction: Share that is held out; 0 holds out none.
    """
    if test_fraction == 0 or len(ids) < 2:
        return set()
    ranked = sorted(ids, key=lambda name: hashlib.blake2b(name.encode(), digest_size=8).digest())
    return set(ranked[: max(1, round(len(ids) * test_fraction))])


def require_folder(folder: Path | None, source: str) -> Path:
    """Give the source's folder, which must be there.

    Args:
        folder: What the person gave.
        source: Name of the source, for messages.

    Raises:
        InputError: It is missing or no folder.
    """
    if folder is None:
        raise InputError(f"{source} needs the folder that holds its files: give --source DIR")
    if not folder.exists():
        raise InputError(f"{folder} does not exist: give the folder of the {source} files with --source")
    if not folder.is_dir():
        raise InputError(f"{folder} is a file: give the folder of the {source} files with --source")
    return folder
