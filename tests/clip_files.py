"""Made clips and files for the tests of reading and writing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from divid.video import to_grey


def make_clip(num_frames: int = 12, height: int = 32, width: int = 32, channels: int = 3) -> np.ndarray:
    """Frame f has brightness steps that name it: a bright block that moves, over a gradient."""
    y, x = np.mgrid[:height, :width]
    base = np.stack([80 + 60 * x / width, 60 + 60 * y / height, np.full_like(x, 90.0)], axis=-1)
    clip = np.repeat(base[None], num_frames, axis=0)
    for f in range(num_frames):
        left = round(f * (width - 8) / max(num_frames - 1, 1))
        clip[f, 4:12, left : left + 8] = (230, 200, 40)
    clip = clip.round().astype(np.uint8)
    return clip if channels == 3 else np.stack([to_grey(frame) for frame in clip])


def encode_at(path: Path, clip: np.ndarray, ticks: list[int], *, tick: Fraction = Fraction(1, 1000), **flags: float) -> None:
    """Write frames with the given timestamps, and a rotation flag in degrees counterclockwise if asked."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.pix_fmt, stream.height, stream.width = "yuv420p", *clip.shape[1:3]
        stream.codec_context.time_base = tick
        if "rotation" in flags:
            stream.set_display_rotation(flags["rotation"])
        for pts, array in zip(ticks, clip, strict=True):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = pts, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def levels(num_frames: int, size: int = 16) -> np.ndarray:
    """Flat frames of brightness 20 f: which one is shown can be told after any compression."""
    return np.repeat(np.arange(num_frames, dtype=np.uint8) * 20, size * size * 3).reshape(num_frames, size, size, 3)


def shown(frames: np.ndarray) -> list[int]:
    return [round(frame.mean() / 20) for frame in frames]


def one_line(caught: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


@contextmanager
def unprivileged() -> Iterator[Path]:
    """Give a folder in which this process has only the rights that the permission bits grant, even when it runs as root."""
    folder = Path(tempfile.mkdtemp())
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        folder.chmod(0o700)
        if is_root:
            os.seteuid(0)
        shutil.rmtree(folder)
