"""Files <-> frames: the one place that reads and writes pictures and video.

Frames are uint8 "F H W C" with C = 1 or 3. A `VideoReader` gives them one by one, so memory does not grow with the length.

A video with a variable frame rate is resampled to a constant one by timestamps: output frame n, at n / fps seconds after the
first frame, shows the latest frame that has started by then. A quarter of an output interval late still counts as started, so
timestamps rounded to milliseconds neither repeat nor drop frames. A constant rate read at its own rate comes through untouched.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

import numpy as np
from PIL import Image

from divid.decoding import RawFrame, list_images, natural_key, open_raw
from divid.encoding import VideoWriter, write_video
from divid.errors import ConfigError, VideoReadError, nearest
from divid.outputs import IMAGE_ENDINGS, OUTPUT_ENDINGS, atomic_path, check_output, write_image
from divid.sheets import contact_sheet

Fit = Literal["crop", "pad", "stretch"]
"""How a picture becomes square: its middle, all of it between black bars, or all of it with the aspect changed."""

# fmt: off
VIDEO_ENDINGS = frozenset({
    ".3gp", ".apng", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4",
    ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".webp", ".wmv", ".y4m",
})
# fmt: on
"""Endings by which folders are searched for videos; a file that is named is read whatever its ending."""


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a source before its frames are read.

    Args:
        path: File or folder.
        kind: "video", "gif", "webp", "image" or "folder".
        num_frames: As far as the file says, at its own rate; None where it does not.
        fps: Frames a second; the mean of a variable rate; 25 for images, which have none.
        height: As shown, after rotation.
        width: As shown, after rotation.
        has_audio: Whether there is sound beside the picture.
    """

    path: Path
    kind: str
    num_frames: int | None
    fps: float
    height: int
    width: int
    has_audio: bool = False


class VideoReader:
    """The frames of an opened source, one by one: a context manager, and an iterator that can be run through once.

    Made by `open_video`.

    Args:
        info: The source.
        fps: Rate of the frames that this reader gives.
        num_frames: How many to expect, for a progress bar: what the header says, which may be off; None where it says nothing.
        frames: The frames, uint8 "H W C".
        source: What they are made of; closing it closes the file.
    """

    def __init__(
        self,
        info: VideoInfo,
        fps: float,
        num_frames: int | None,
        frames: Generator[np.ndarray, None, None],
        source: Generator[RawFrame, None, None],
    ) -> None:
        self.info = info
        self.fps = fps
        self.num_frames = num_frames
        self._frames = frames
        self._source = source

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> VideoReader:
        return self

    def __next__(self) -> np.ndarray:
        return next(self._frames)

    def chunks(self, num_frames: int) -> Iterator[np.ndarray]:
        """Give the frames as arrays "F H W C" of `num_frames` each, the last one shorter where it does not come out even.

        Args:
            num_frames: Frames of a chunk, at least 1.
        """
        chunk: list[np.ndarray] = []
        for frame in self:
            chunk.append(frame)
            if len(chunk) == num_frames:
                yield np.stack(chunk)
                chunk = []
        if chunk:
            yield np.stack(chunk)

    def close(self) -> None:
        """Close the file; no frame comes after that."""
        self._frames.close()
        self._source.close()


def open_video(
    path: Path | str,
    *,
    channels: int = 3,
    size: int | None = None,
    fit: Fit = "crop",
    fps: float | None = None,
    max_frames: int | None = None,
) -> VideoReader:
    """Open anything that FFmpeg reads, a GIF, WebP, single image or folder of images as a stream of frames.

    Rotation flags are applied, alpha is composited over black, 16 bits become 8. A folder's images come in natural order.

    Args:
        path: File or folder.
        channels: 3 for RGB, 1 for luma.
        size: Side of the square frames; by default the source's own height and width.
        fit: How a picture becomes square, where `size` is given.
        fps: Rate to resample to; by default the source's own (for a variable one its mean). Images have no times: for them it is
            the rate that they are taken to have.
        max_frames: Stop after this many.

    Raises:
        VideoReadError: If the source cannot be read. Reading on can raise it too, where damage comes later.
        ConfigError: If an argument is out of range.
    """
    path = Path(path)
    check_arguments(channels, size, fit, fps, max_frames)
    raw = open_raw(path)
    first = next(raw.frames, None)
    if first is None:
        raise VideoReadError(f"{path}: holds no frame: check the file")
    height, width, _ = first.image().shape
    info = VideoInfo(path, raw.kind, raw.num_frames, raw.fps, height, width, raw.has_audio)
    rate = fps or raw.fps
    expected = raw.num_frames
    if raw.is_timed and expected is not None:
        expected = max(1, round(expected * rate / raw.fps))
    if max_frames is not None and expected is not None:
        expected = min(expected, max_frames)
    frames = itertools.chain([first], raw.frames)
    constant = resample(frames, rate) if raw.is_timed else frames
    shaped = _shaped_frames(info, itertools.islice(constant, max_frames), channels, size, fit)
    return VideoReader(info, rate, expected, shaped, raw.frames)


def read_video(
    path: Path | str,
    *,
    channels: int = 3,
    size: int | None = None,
    fit: Fit = "crop",
    fps: float | None = None,
    max_frames: int | None = None,
) -> tuple[np.ndarray, float]:
    """Read all frames at once; arguments and errors as for `open_video`.

    Returns:
        uint8 frames "F H W C", and their rate a second.
    """
    with open_video(path, channels=channels, size=size, fit=fit, fps=fps, max_frames=max_frames) as reader:
        return np.stack(list(reader)), reader.fps


def resample(frames: Iterable[RawFrame], fps: float) -> Iterator[RawFrame]:
    """Turn frames with times into frames at a constant rate, by the rule at the top of this file.

    Args:
        frames: In order of their start.
        fps: The rate of the result.

    Yields:
        The frame to show at each n / fps, the same object again where it is repeated; at least one where there is one.
    """
    slack = 0.25 / fps
    shown: RawFrame | None = None
    count = 0
    for frame in frames:
        while shown is not None and count / fps + slack < frame.start:
            yield shown
            count += 1
        shown = frame
    while shown is not None and (count == 0 or count / fps + slack < shown.start + shown.duration):
        yield shown
        count += 1


def fit_frame(frame: np.ndarray, size: int, fit: Fit) -> np.ndarray:
    """Bring a picture to a square of `size`.

    Shrinking averages over the pixels that fall together, enlarging is bicubic.

    Args:
        frame: uint8 "H W C", C = 1 or 3.
        size: Side of the result.
        fit: Keep the middle square, all of it between black bars, or all of it stretched.
    """
    height, width, num_channels = frame.shape
    box, target = (0.0, 0.0, float(width), float(height)), (size, size)
    if fit == "crop":
        side = min(height, width)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
    elif fit == "pad":
        longer = max(height, width)
        target = (max(1, round(width * size / longer)), max(1, round(height * size / longer)))
    image = Image.fromarray(frame[..., 0] if num_channels == 1 else frame)
    ratios = ((box[2] - box[0]) / target[0], (box[3] - box[1]) / target[1])
    if all(ratio.is_integer() for ratio in ratios):
        method = Image.Resampling.BOX
    else:
        method = Image.Resampling.HAMMING if min(ratios) >= 1 else Image.Resampling.BICUBIC
    small = np.array(image.resize(target, method, box=box)).reshape(target[1], target[0], num_channels)
    if small.shape[:2] == (size, size):
        return small
    result = np.zeros((size, size, num_channels), dtype=np.uint8)
    top, left = (size - target[1]) // 2, (size - target[0]) // 2
    result[top : top + target[1], left : left + target[0]] = small
    return result


def to_grey(frame: np.ndarray) -> np.ndarray:
    """Give the luma "H W 1" of an RGB picture (ITU-R 601: 0.299 R + 0.587 G + 0.114 B)."""
    return np.array(Image.fromarray(frame).convert("L"))[..., None]


def is_video_like(path: Path | str) -> bool:
    """Tell whether a path looks like something `open_video` reads: a file with such an ending, or a folder that holds images.

    Args:
        path: Any path; nothing is opened.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return bool(list_images(path))
        return path.is_file() and not path.name.startswith(".") and path.suffix.lower() in VIDEO_ENDINGS | IMAGE_ENDINGS
    except OSError:
        return False


def check_arguments(channels: int, size: int | None, fit: str, fps: float | None, max_frames: int | None) -> None:
    """Raise a ConfigError if an argument of `open_video` is out of range."""
    if channels not in (1, 3):
        raise ConfigError(f"channels is {channels}: frames have 1 (grey) or 3 (RGB)")
    if size is not None and size < 1:
        raise ConfigError(f"size is {size}: frames have at least 1 pixel a side")
    if fit not in get_args(Fit):
        raise ConfigError(f"fit is {fit!r}{nearest(str(fit), get_args(Fit))}")
    if fps is not None and not (math.isfinite(fps) and 0 < fps <= 1000):
        raise ConfigError(f"fps is {fps}: give a number above 0 and up to 1000")
    if max_frames is not None and max_frames < 1:
        raise ConfigError(f"max_frames is {max_frames}: give at least 1")


def _shaped_frames(
    info: VideoInfo, frames: Iterable[RawFrame], channels: int, size: int | None, fit: Fit
) -> Generator[np.ndarray, None, None]:
    last: tuple[RawFrame, np.ndarray] | None = None
    for number, raw in enumerate(frames):
        if last is not None and raw is last[0]:
            yield last[1].copy()
            continue
        array = raw.image()
        if size is None and array.shape[:2] != (info.height, info.width):
            raise VideoReadError(
                f"{info.path}: the picture changes from {info.width}x{info.height} to {array.shape[1]}x{array.shape[0]} "
                f"after {number} frames: give a size to bring them to"
            )
        array = to_grey(array) if channels == 1 else array
        array = fit_frame(array, size, fit) if size is not None else array
        last = (raw, array)
        yield array


__all__ = [
    "Fit",
    "IMAGE_ENDINGS",
    "OUTPUT_ENDINGS",
    "VIDEO_ENDINGS",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "atomic_path",
    "check_output",
    "contact_sheet",
    "fit_frame",
    "is_video_like",
    "natural_key",
    "open_video",
    "read_video",
    "to_grey",
    "write_image",
    "write_video",
]
