"""What the pipeline reads and writes: its options, its results, and streams of frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from divid.arrays import frames_to_video, video_to_frames
from divid.config import SamplingConfig
from divid.errors import ConfigError, nearest
from divid.types import Codes
from divid.video import Fit

ProgressCallback = Callable[[str, int, int | None], None]
"""Called with (stage, frames done, frames in all if known)."""

SHEET_COLUMNS = 10


@dataclass(frozen=True)
class Recording:
    """A video and what the model made of it.

    Args:
        path: The file or folder.
        codes: Its codes, on the CPU; the batch is 1.
        fps: Its frame rate.
        num_frames: How many frames were encoded.
    """

    path: Path
    codes: Codes
    fps: float
    num_frames: int


@dataclass(frozen=True)
class RenderOptions:
    """How videos are read, sampled and written.

    Args:
        seed: The sample's seed.
        sampling: Solver, steps and guidance; default: the model's own.
        fit: How a frame that is not square is made square.
        scale: Enlarges the output by this whole factor.
        compare: Put the inputs beside the result in an mp4 or gif (a png sheet always shows them).
        progress: Told how far the work is.
    """

    seed: int = 0
    sampling: SamplingConfig | None = None
    fit: Fit = "crop"
    scale: int = 1
    compare: bool = False
    progress: ProgressCallback | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.scale <= 32:
            raise ConfigError(f"scale is {self.scale}, must lie between 1 and 32")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}, must be 0 or more, and less than 2^63")
        if self.fit not in get_args(Fit):
            raise ConfigError(f"fit is {self.fit!r}{nearest(self.fit, get_args(Fit))}")


@dataclass(frozen=True)
class Result:
    """A made video.

    Args:
        num_frames: Its length.
        fps: Its frame rate.
        path: Where it was written, if it was.
        frames: uint8 F H W C, if no output was named.
    """

    num_frames: int
    fps: float
    path: Path | None = None
    frames: np.ndarray | None = None


def runs(positions: Sequence[int], longest: int) -> Iterator[list[int]]:
    """Cut sorted positions into runs of neighbours, none longer than `longest`."""
    run: list[int] = []
    for position in positions:
        if run and (position != run[-1] + 1 or len(run) == longest):
            yield run
            run = []
        run.append(position)
    if run:
        yield run


def enlarge(frames: np.ndarray, scale: int) -> np.ndarray:
    """Enlarge uint8 frames F H W C by a whole factor, bicubic: small models make small pictures."""
    if scale == 1:
        return frames
    video = torch.nn.functional.interpolate(frames_to_video(frames)[0], scale_factor=scale, mode="bicubic", align_corners=False)
    return video_to_frames(video.unsqueeze(0))[0]
