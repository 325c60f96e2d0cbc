"""Frames with their times out of anything that FFmpeg or Pillow reads, one at a time.

Everything here gives RGB at the source's own size and times; sizes, channels and constant frame rates are made in `divid.video`.
"""

from __future__ import annotations

import logging
import re
import statistics
import struct
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from divid.errors import VideoReadError
from divid.outputs import IMAGE_ENDINGS, describe

DEFAULT_FPS = 25.0
"""Frame rate of what has no times: images, and video files whose header states none."""
MAX_FPS = 1000.0
MAX_GAP = 600.0
"""Seconds between two frames above which timestamps count as broken."""
PILLOW_FORMATS = ("GIF", "WEBP", "PNG", "JPEG", "BMP", "TIFF", "PPM")
PILLOW_ERRORS = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, OverflowError, struct.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises on damaged files."""
ORIENTATION_TAG = 0x0112

logger = logging.getLogger("divid")


class RawFrame(NamedTuple):
    """One frame of a source: when it is shown, and how to get its pixels (only frames that are used are converted)."""

    start: float
    duration: float
    image: Callable[[], np.ndarray]


@dataclass(frozen=True)
class RawVideo:
    """An opened source.

    Args:
        kind: "video", "gif", "webp", "image" or "folder".
        fps: Its frame rate; for a variable one, the mean.
        num_frames: As far as the file says; None where it does not.
        has_audio: Whether there is sound beside the picture.
        is_timed: False for images, which have no times of their own.
        frames: The frames; closing it closes the file.
    """

    kind: str
    fps: float
    num_frames: int | None
    has_audio: bool
    is_timed: bool
    frames: Generator[RawFrame, None, None]


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Give a sort key under which frame2 comes before frame10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]


def list_images(folder: Path) -> list[Path]:
    """List the images of a folder in natural order; hidden files, subfolders and everything else are left out.

    Args:
        folder: An existing folder.

    Raises:
        OSError: If it cannot be listed.
    """
    found = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_ENDINGS and not p.name.startswith(".") and p.is_file()]
    return sorted(found, key=lambda p: (natural_key(p.name), p.name))


def check_exists(path: Path) -> None:
    """Check that something lies at a path, before what reads it is loaded.

    Args:
        path: File or folder.

    Raises:
        VideoReadError: If nothing does.
    """
    try:
        is_there = path.exists()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not is_there:
        raise VideoReadError(f"{path}: there is no such file or folder: check the path")


def _unreadable(path: Path, error: OSError) -> VideoReadError:
    return VideoReadError(f"{path}: cannot be read ({describe(error)}): check its permissions")


def open_raw(path: Path) -> RawVideo:
    """Open a video file, GIF, WebP, image or folder of images; what it is, its content decides and not its ending.

    Args:
        path: File or folder.

    Raises:
        VideoReadError: If it is missing, empty, unreadable or not a video.
    """
    try:
        if path.is_dir():
            return _open_folder(path)
        check_exists(path)
        if not path.is_file():
            raise VideoReadError(f"{path}: is neither a file nor a folder")
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not head:
        raise VideoReadError(f"{path}: the file is empty (0 bytes): copy or download it again")
    try:
        image = Image.open(path, formats=PILLOW_FORMATS)
    except PILLOW_ERRORS:
        return _open_file(path, head)
    return _open_image(path, image)


def to_rgb(image: Image.Image) -> np.ndarray:
    """Turn a Pillow picture of any mode into uint8 "H W 3": alpha over black, 16 bits scaled to 8.

    Args:
        image: Palette, grey, RGB, CMYK ..., with or without alpha.

    Raises:
        ValueError: If the values have no known range (32 bits or floating point).
    """
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"its values ({values.min()} to {values.max()}) are not 8 or 16 bits: convert it")
        grey = ((values + 128) // 257).astype(np.uint8)
        return grey[..., None].repeat(3, axis=-1)
    if image.mode == "F":
        raise ValueError("floating-point pictures have no known range: convert it to 8 or 16 bits")
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        return over_black(np.asarray(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


def over_black(rgba: np.ndarray) -> np.ndarray:
    """Composite uint8 "H W 4" over black, rounding to the nearest value."""
    colours, alpha = rgba[..., :3].astype(np.uint16), rgba[..., 3:].astype(np.uint16)
    return ((colours * alpha + 127) // 255).astype(np.uint8)


def _open_folder(path: Path) -> RawVideo:
    images = list_images(path)
    if not images:
        endings = ", ".join(sorted(IMAGE_ENDINGS))
        raise VideoReadError(f"{path}: holds no images ({endings}): give a video file or a folder of frames")
    sizes: dict[tuple[int, int], str] = {}
    for file in images:
        with _pillow_errors(file), Image.open(file, formats=PILLOW_FORMATS) as image:
            width, height = image.size
            turned = image.format in ("JPEG", "MPO", "TIFF", "WEBP") and image.getexif().get(ORIENTATION_TAG, 1) >= 5
            sizes.setdefault((height, width) if turned else (width, height), file.name)
    if len(sizes) > 1:
        (first, name), (other, other_name) = list(sizes.items())[:2]
        raise VideoReadError(
            f"{path}: holds images of mixed sizes ({name} is {first[0]}x{first[1]}, {other_name} is {other[0]}x{other[1]}): "
            "bring them to one size"
        )
    return RawVideo("folder", DEFAULT_FPS, len(images), False, False, _folder_frames(images))


def _folder_frames(images: Sequence[Path]) -> Generator[RawFrame, None, None]:
    for number, file in enumerate(images):
        with _pillow_errors(file), Image.open(file, formats=PILLOW_FORMATS) as image:
            array = to_rgb(ImageOps.exif_transpose(image))
        yield RawFrame(number / DEFAULT_FPS, 1 / DEFAULT_FPS, partial(np.asarray, array))


@contextmanager
def _pillow_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except PILLOW_ERRORS as error:
        text = "not an image that Pillow knows" if isinstance(error, Image.UnidentifiedImageError) else describe(error)
        raise VideoReadError(f"{path}: the image cannot be read ({text}): remove or replace it") from error


def _open_image(path: Path, image: Image.Image) -> RawVideo:
    with ExitStack() as stack:
        stack.enter_context(image)
        with _pillow_errors(path):
            num_frames = 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
            durations = _durations(image, num_frames) if num_frames > 1 else [1 / DEFAULT_FPS]
        kind = {"GIF": "gif", "WEBP": "webp"}.get(image.format or "", "image")
        stack.pop_all()  # from here on the iterator closes the file
    fps = _rate_of(durations)
    is_timed = num_frames > 1 and image.format != "TIFF"
    total = max(1, round(sum(durations) * fps)) if is_timed else num_frames
    return RawVideo(kind, fps, total, False, is_timed, _image_frames(path, image, durations))


def _durations(image: Image.Image, num_frames: int) -> list[float]:
    durations = []
    for number in range(num_frames):
        image.seek(number)
        if image.format == "WEBP":
            image.load()  # WebP states a frame's duration only with its pixels
        milliseconds = image.info.get("duration", 1000 / DEFAULT_FPS)
        # As browsers do: a frame of 10 ms or less is shown for 100.
        durations.append(float(milliseconds) / 1000 if milliseconds > 10 else 0.1)
    image.seek(0)
    return durations


def _rate_of(durations: Sequence[float]) -> float:
    """Give the rate of the usual frames: those within a factor 1.5 of the median, so a long pause at the end does not count."""
    middle = statistics.median(durations)
    usual = [d for d in durations if middle / 1.51 <= d <= middle * 1.51]
    return min(len(usual) / sum(usual), MAX_FPS)


def _image_frames(path: Path, image: Image.Image, durations: Sequence[float]) -> Generator[RawFrame, None, None]:
    start = 0.0
    with image:
        for number, duration in enumerate(durations):
            with _pillow_errors(path):
                image.seek(number)
                array = to_rgb(ImageOps.exif_transpose(image) if len(durations) == 1 else image)
            yield RawFrame(start, duration, partial(np.asarray, array))
            start += duration


def _open_file(path: Path, head: bytes) -> RawVideo:
    import av
    from av.stream import Disposition

    try:
        # The prefix keeps FFmpeg from reading a colon in the name as a protocol.
        container = av.open(f"file:{path.resolve()}", mode="r")
    except (OSError, ValueError, av.FFmpegError) as error:
        if head[4:8] in (b"ftyp", b"mdat", b"wide", b"free"):
            text = "is a damaged mp4 or mov file (its index, the moov box, is missing or broken): copy it again in full"
        else:
            text = f"is not a video or image that FFmpeg or Pillow can read ({describe(error)}): check the file"
        raise VideoReadError(f"{path}: {text}") from error
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if container.format.name == "tty" or not streams:  # FFmpeg draws plain text as video, which nobody means
        has_audio = bool(container.streams.audio)
        container.close()
        raise VideoReadError(f"{path}: holds {'sound only' if has_audio else 'no video'}: give a file with a picture")
    stream = streams[0]
    if stream.codec_context is None:
        container.close()
        raise VideoReadError(f"{path}: its picture is in a format that FFmpeg cannot decode: convert the file to H.264")
    pixels = stream.codec_context.width * stream.codec_context.height
    # Frame threads keep one picture each in flight: only sizes where that is little get them.
    stream.thread_type = "AUTO" if pixels <= 2**22 else "SLICE"
    fps = _stream_rate(path, stream)
    has_audio = bool(container.streams.audio)
    return RawVideo(
        "video", fps, _count_frames(container, stream, fps), has_audio, True, _stream_frames(path, container, stream, fps)
    )


def _count_frames(container: Any, stream: Any, fps: float) -> int | None:
    if stream.frames:
        return stream.frames
    if stream.duration:
        return max(1, round(stream.duration * stream.time_base * fps))
    if container.duration and not container.streams.audio:  # the sound may be longer than the picture
        return max(1, round(container.duration / 1e6 * fps))
    return None


def _stream_rate(path: Path, stream: Any) -> float:
    average, base = float(stream.average_rate or 0), float(stream.base_rate or 0)
    if average and abs(base / average - 1) < 0.01:
        return base  # constant: the header's fraction is more exact than the mean over the file
    rate = average or base
    if 0 < rate <= MAX_FPS:
        return rate
    logger.warning("%s: states no usable frame rate (%g): it is read at %g frames a second", path, rate, DEFAULT_FPS)
    return DEFAULT_FPS


def _stream_frames(path: Path, container: Any, stream: Any, fps: float) -> Generator[RawFrame, None, None]:
    import av

    clock = _Clock(path, fps)
    num_packets, end = 0, 0.0
    with container:
        try:
            for packet in container.demux([stream, *container.streams.audio]):
                end = max(end, _packet_end(packet))
                if packet.stream_index != stream.index:
                    continue
                if packet.is_corrupt:
                    raise _damaged(path, clock.num_frames, "the data ends within a frame")
                num_packets += packet.size > 0
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise _damaged(path, clock.num_frames, "a frame cannot be decoded in full")
                    start, duration = clock.place(frame)
                    yield RawFrame(start, duration, partial(_to_rgb_array, path, frame))
        except (OSError, ValueError, av.FFmpegError) as error:
            raise _damaged(path, clock.num_frames, describe(error)) from error
        if _ends_early(container, stream, num_packets, end) or not clock.num_frames:
            raise _damaged(path, clock.num_frames, "the file ends before its stated length")


def _damaged(path: Path, num_frames: int, reason: str) -> VideoReadError:
    if num_frames == 0:
        return VideoReadError(f"{path}: is damaged or is not a video: no frame could be read ({reason}): check or copy it again")
    return VideoReadError(
        f"{path}: is damaged or cut off: {num_frames} frames could be read, then {reason}: "
        f"copy it again, or read no more than {num_frames} frames"
    )


def _packet_end(packet: Any) -> float:
    if packet.pts is None:
        return 0.0
    start = packet.stream.start_time or 0
    return float((packet.pts - start + (packet.duration or 0)) * packet.time_base)


def _ends_early(container: Any, stream: Any, num_packets: int, end: float) -> bool:
    """Tell whether fewer packets came than the header announced; where it counts none, its duration is compared."""
    name = container.format.name
    if name.startswith("mov") and len(stream.index_entries):
        return num_packets < len(stream.index_entries)
    if name == "avi" and stream.frames:
        return num_packets < 0.99 * stream.frames - 1  # recorders leave out single frames
    if name.startswith(("matroska", "flv", "asf")) and container.duration:
        return end < 0.95 * container.duration / 1e6 - 0.5
    return False


class _Clock:
    """Times of the frames from 0, with broken timestamps (absent, running backwards, jumping) bridged at the stated rate."""

    def __init__(self, path: Path, fps: float) -> None:
        self.num_frames = 0
        self._path, self._interval = path, 1 / fps
        self._offset = self._next = self._last = 0.0
        self._is_reported = False

    def place(self, frame: Any) -> tuple[float, float]:
        """Give a frame's start and duration in seconds."""
        duration = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else self._interval
        duration = duration if 0 < duration <= MAX_GAP else self._interval
        if frame.time is None:
            start = self._next
        else:
            if self.num_frames == 0:
                self._offset = -frame.time
            start = frame.time + self._offset
            if self.num_frames and not self._last < start <= self._last + MAX_GAP:
                self._offset += self._next - start
                start = self._next
                if not self._is_reported:
                    logger.warning("%s: timestamps jump after %d frames: they are bridged", self._path, self.num_frames)
                    self._is_reported = True
        self.num_frames += 1
        self._last, self._next = start, start + self._interval
        return start, duration


def _to_rgb_array(path: Path, frame: Any) -> np.ndarray:
    """Convert a decoded frame to uint8 "H W 3", alpha over black, turned as its rotation flag asks."""
    import av

    is_clear = frame.format.has_palette or any(component.is_alpha for component in frame.format.components)
    try:
        array = over_black(frame.to_ndarray(format="rgba")) if is_clear else frame.to_ndarray(format="rgb24")
    except (ValueError, OSError, av.FFmpegError) as error:
        raise VideoReadError(f"{path}: its pixels ({frame.format.name}) cannot be turned into RGB: convert the file") from error
    quarters = round(frame.rotation / 90) % 4  # the flag counts degrees counterclockwise, as rot90 does
    return np.ascontiguousarray(np.rot90(array, quarters)) if quarters else array
