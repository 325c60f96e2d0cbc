"""Reconstruction: how much of a held-out clip survives its own codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from divid.arrays import peak_signal_to_noise
from divid.config import SamplingConfig
from divid.data.clips import ClipDataset
from divid.data.module import middle_video
from divid.types import Disentangler

BATCH_CLIPS = 16

Told = Callable[[str, int, int | None], None]
"""Called with (what is done, clips done, clips in all)."""


@dataclass(frozen=True)
class Estimate:
    """A mean over clips with its uncertainty.

    Args:
        mean: The mean.
        low: Lower end of the 95 % interval (normal, from the spread over the clips).
        high: Upper end.
        num_clips: Clips it was taken over.
    """

    mean: float
    low: float
    high: float
    num_clips: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Estimate the mean of what some clips gave; one clip alone has no interval.

        Args:
            values: One a clip.
        """
        count = len(values)
        mean = math.fsum(values) / count
        spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1) / count) if count > 1 else math.nan
        return cls(mean, mean - 1.96 * spread, mean + 1.96 * spread, count)


@dataclass(frozen=True)
class Reconstruction:
    """PSNR in dB of held-out clips, and of two answers that need no model.

    Args:
        model: Decoded from the clips' own codes.
        first_frame: The clip's first frame, standing still: what a model without motion would reach.
        mean_frame: The clip's mean frame, standing still: the best still picture.
    """

    model: Estimate
    first_frame: Estimate
    mean_frame: Estimate


@torch.no_grad()
def measure_reconstruction(
    model: Disentangler,
    clips: ClipDataset,
    *,
    num_frames: int,
    sampling: SamplingConfig,
    seed: int = 0,
    told: Told | None = None,
) -> Reconstruction:
    """Decode every clip from its own codes, and compare.

    Args:
        model: On its device, in evaluation mode.
        clips: Held-out clips.
        num_frames: F, frames of a clip, as in training.
        sampling: Solver and steps.
        seed: Clip i is sampled with seed + i.
        told: Hears of the progress.
    """
    device = next(iter(model.parameters())).device  # type: ignore[attr-defined]
    made, first, mean = [], [], []
    for start in range(0, len(clips), BATCH_CLIPS):
        indices = range(start, min(start + BATCH_CLIPS, len(clips)))
        video = middle_video(clips, list(indices), num_frames).to(device)
        decoded = model.decode(model.encode(video), seeds=[seed + i for i in indices], sampling=sampling)
        made += peak_signal_to_noise(decoded, video).tolist()
        first += peak_signal_to_noise(video[:, :1].expand_as(video), video).tolist()
        mean += peak_signal_to_noise(video.mean(1, keepdim=True).expand_as(video), video).tolist()
        if told:
            told("reconstructing", indices[-1] + 1, len(clips))
    return Reconstruction(Estimate.of(made), Estimate.of(first), Estimate.of(mean))
