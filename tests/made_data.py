"""Small files in the forms in which the data sets are distributed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from divid.data.prepare import PrepareSummary, prepare
from divid.data.sources import SourceOptions


def write_depth(folder: Path, name: str, num_frames: int = 6) -> Path:
    """A person of 40 by 120 pixels at 3 m, who walks to the right, as UTD-MHAD stores depth."""
    from scipy.io import savemat

    depth = np.zeros((240, 320, num_frames), dtype=np.uint16)
    for f in range(num_frames):
        depth[80:200, 120 + 4 * f : 160 + 4 * f, f] = 3000
    path = folder / f"{name}_depth.mat"
    savemat(path, {"d_depth": depth}, do_compression=True)
    return path


def write_avi(path: Path, num_frames: int = 5, height: int = 48, width: int = 64, fps: int = 25) -> Path:
    """A video whose middle square is red and whose margins are blue."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[..., 2] = 255
    left = (width - height) // 2
    picture[:, left : left + height] = (255, 0, 0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 4_000_000
        for _ in range(num_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_images(folder: Path, num_frames: int = 4, size: int = 16) -> Path:
    """A folder of grey pictures, each lighter than the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    for f in range(num_frames):
        Image.new("RGB", (size, size), (20 * f, 20 * f, 20 * f)).save(folder / f"frame{f}.png")
    return folder


def make_set(folder: Path, out: Path, source: str = "utd_mhad", **options) -> PrepareSummary:
    """Prepare in this process, at 16x16 grey."""
    return prepare(source, folder, out, options=SourceOptions(**{"image_size": 16, "channels": 1, **options}), num_processes=1)
