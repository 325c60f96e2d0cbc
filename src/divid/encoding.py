"""Writing video files chunk by chunk: mp4, gif and animated webp through FFmpeg (PyAV)."""

from __future__ import annotations

import logging
import math
import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from divid.errors import ConfigError, OutputError
from divid.outputs import check_ending, temporary_path, write_failure, write_image
from divid.sheets import contact_sheet

WRITER_ENDINGS = (".mp4", ".gif", ".webp")
GIF_TICKS = 100
"""GIF counts time in hundredths of a second."""
GIF_MAX_FPS = 50
"""Browsers slow a frame of one hundredth down to a tenth of a second, so two are the least."""
DEFAULT_CRF = 16.0
"""x264's constant rate factor: visually lossless, and small enough to share."""

logger = logging.getLogger("divid")


class VideoWriter:
    """A video file that is written chunk by chunk and appears under its name only when it is whole.

    Use as a context manager: leaving it well finishes the file, leaving it by an exception removes what was written. Memory does
    not grow with the length.

    - `.mp4`: H.264, yuv420p, BT.709, index in front, so that browsers play it while it loads. Odd sizes are padded to even ones
      by repeating the last column or row, which is logged. What x264 leaves out may differ a little from run to run for the same
      frames (about one file in a thousand); at quality 0 nothing but the colour conversion is lost, and every run gives the same.
    - `.gif`: every frame has its own palette of 256 colours (grey clips lose nothing), and loops for ever. Times are multiples of
      10 ms, spread so that the clip's length is kept; above 50 fps frames are left out, which is logged.
    - `.webp`: animated, lossless, loops for ever.

    Args:
        path: Output; its ending chooses the format.
        fps: Frames a second.
        quality: x264's constant rate factor for .mp4, from 0 (lossless but for the colour conversion) to 51.

    Raises:
        OutputError: If the file cannot be written or the ending is none of these.
        ConfigError: If `fps` or `quality` is out of range.
    """

    def __init__(self, path: Path | str, *, fps: float, quality: float = DEFAULT_CRF) -> None:
        self.path = Path(path)
        check_ending(self.path, WRITER_ENDINGS)
        if not (math.isfinite(fps) and 0.001 <= fps <= 1000):
            raise ConfigError(f"fps is {fps}: a video can be written with 0.001 to 1000 frames a second")
        if not 0 <= quality <= 51:
            raise ConfigError(f"quality is {quality}: x264's constant rate factor goes from 0 (best) to 51")
        self.fps = fps
        self.num_frames = 0
        self._quality = quality
        self._kind = self.path.suffix.lower()
        self._rate = Fraction(fps).limit_denominator(1001)
        self._temporary = temporary_path(self.path)
        self._container: Any = None
        self._stream: Any = None
        self._shape: tuple[int, ...] = ()
        self._last_tick = -1
        if self._kind == ".gif" and fps > GIF_MAX_FPS:
            logger.warning("%s: a GIF shows at most %d of %g frames a second: the rest is left out", self.path, GIF_MAX_FPS, fps)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def write(self, frames: np.ndarray) -> None:
        """Append frames.

        Args:
            frames: uint8 "F H W C", C = 1 or 3, of one size throughout the file.

        Raises:
            OutputError: If writing fails; nothing is left behind.
            ValueError: If the shape or type is wrong, or differs from that of the first frames.
        """
        import av

        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in (1, 3) or 0 in frames.shape[1:]:
            raise ValueError(f"frames must be uint8 F H W C with C = 1 or 3, got {frames.dtype} {frames.shape}")
        if self._shape and frames.shape[1:] != self._shape:
            raise ValueError(f"frames of {self.path} are {self._shape}, got {frames.shape[1:]}")
        self._shape = frames.shape[1:]
        try:
            for frame in frames:
                if self._container is None:
                    self._open()
                self._encode(frame)
        except (OSError, av.FFmpegError) as error:
            self.discard()
            raise write_failure(self.path, error) from error
        except BaseException:
            self.discard()
            raise

    def close(self) -> None:
        """Finish the file and put it in its place.

        Raises:
            OutputError: If there is no frame or writing fails; nothing is left behind.
        """
        import av

        if self._container is None:
            raise OutputError(f"{self.path}: there is no frame to write")
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            os.replace(self._temporary, self.path)
        except (OSError, av.FFmpegError) as error:
            raise write_failure(self.path, error) from error
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove what has been written so far; what stood under the name before stays as it is."""
        import av

        if self._container is not None:
            with suppress(OSError, av.FFmpegError):
                self._container.close()
        self._temporary.unlink(missing_ok=True)

    def _open(self) -> None:
        import av

        height, width, _ = self._shape
        if self._kind == ".mp4":
            if height % 2 or width % 2:
                logger.warning(
                    "%s: H.264 needs even sizes: %dx%d is padded to %dx%d by repeating the edge",
                    self.path, width, height, width + width % 2, height + height % 2,
                )  # fmt: skip
            self._container = av.open(str(self._temporary), "w", format="mp4", options={"movflags": "+faststart"})
            self._stream = self._container.add_stream("libx264", rate=self._rate, options={"crf": f"{self._quality:g}"})
            self._stream.pix_fmt = "yuv420p"
            for name in ("colorspace", "color_primaries", "color_trc", "color_range"):
                setattr(self._stream.codec_context, name, 1)  # BT.709, limited range: what browsers take untagged video for
            width, height = width + width % 2, height + height % 2
        elif self._kind == ".gif":
            self._container = av.open(str(self._temporary), "w", format="gif", options={"loop": "0"})
            self._stream = self._container.add_stream("gif", rate=GIF_TICKS)
            self._stream.pix_fmt = "pal8"
        else:
            self._container = av.open(str(self._temporary), "w", format="webp", options={"loop": "0"})
            self._stream = self._container.add_stream("libwebp_anim", rate=self._rate, options={"lossless": "1"})
            self._stream.pix_fmt = "bgra"
        self._stream.width, self._stream.height = width, height

    def _encode(self, frame: np.ndarray) -> None:
        position = self.num_frames
        self.num_frames += 1
        if self._kind == ".gif":
            tick = round(position * GIF_TICKS / self.fps)
            if self._last_tick >= 0 and tick - self._last_tick < GIF_TICKS // GIF_MAX_FPS:
                return
            self._last_tick = tick
            picture = _palette_frame(frame)
            picture.pts, picture.time_base = tick, Fraction(1, GIF_TICKS)
            duration = max(round((position + 1) * GIF_TICKS / self.fps) - tick, GIF_TICKS // GIF_MAX_FPS)
        else:
            picture = _colour_frame(frame, even=self._kind == ".mp4")
            picture.pts, picture.time_base = position, 1 / self._rate
            duration = None
        for packet in self._stream.encode(picture):
            if duration is not None:
                packet.duration = duration  # else the last frame flashes by
            self._container.mux(packet)


def _palette_frame(frame: np.ndarray) -> Any:
    import av

    palette = np.full((256, 4), 255, dtype=np.uint8)  # alpha first, then red, green, blue
    if frame.shape[-1] == 1:
        indices = np.ascontiguousarray(frame[..., 0])
        palette[:, 1:] = np.arange(256, dtype=np.uint8)[:, None]
    else:
        image = Image.fromarray(np.ascontiguousarray(frame))
        image = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        colours = np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3)
        indices = np.asarray(image)
        palette[: len(colours), 1:] = colours
    return av.VideoFrame.from_ndarray((indices, palette), format="pal8")  # type: ignore[arg-type]


def _colour_frame(frame: np.ndarray, *, even: bool) -> Any:
    import av

    height, width, num_channels = frame.shape
    if even:
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    if num_channels == 1:
        frame = frame.repeat(3, axis=-1)
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG") if even else picture


def write_video(path: Path | str, frames: np.ndarray, fps: float) -> None:
    """Write a whole clip; its ending chooses the format.

    Args:
        path: .mp4, .gif or .webp as in `VideoWriter`, or .png for a contact sheet of one row.
        frames: uint8 "F H W C", C = 1 or 3.
        fps: Frames a second.

    Raises:
        OutputError: If the file cannot be written or the ending is none of these.
    """
    path = Path(path)
    check_ending(path, (*WRITER_ENDINGS, ".png"))
    if path.suffix.lower() == ".png":
        write_image(path, contact_sheet([("", frames)]))
        return
    with VideoWriter(path, fps=fps) as writer:
        writer.write(frames)
