"""Reconstruction: how much of a held-out clip survives its own codes, in pixels and in looks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from divid.arrays import peak_signal_to_noise
from divid.config import SamplingConfig
from divid.data.clips import ClipDataset
from divid.data.module import middle_video
from divid.evaluation.codes import BATCH_CLIPS, Told, device_of
from divid.evaluation.realism import (
    FeatureNetwork,
    Flicker,
    check_finite,
    measure_flicker,
    perceptual_distance,
    structural_similarity,
)
from divid.types import Disentangler, Video

Watch = Callable[[Video, Video], None]
"""Called with (made clips, the real clips that they should equal)."""


@dataclass(frozen=True)
class Estimate:
    """A mean over clips with its uncertainty.

    Args:
        mean: The mean.
        low: Lower end of the 95 % interval (by `of` normal, from the spread over the clips).
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

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it: what is not a number becomes null."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}


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
    watch: Watch | None = None,
    told: Told | None = None,
) -> Reconstruction:
    """Decode every clip from its own codes, and compare.

    Args:
        model: On its device, in evaluation mode.
        clips: Held-out clips.
        num_frames: F, frames of a clip, as in training.
        sampling: Solver and steps.
        seed: Clip i is sampled with seed + i.
        watch: Sees every batch: `LikenessMeter.add`, say, which measures more of the same clips.
        told: Hears of the progress.

    Raises:
        ModelError: The model gives clips that are not finite.
    """
    made, first, mean = [], [], []
    for decoded, video in _reconstructions(model, clips, num_frames, sampling, seed, told):
        check_finite(decoded)
        if watch is not None:
            watch(decoded, video)
        made += peak_signal_to_noise(decoded, video).tolist()
        first += peak_signal_to_noise(video[:, :1].expand_as(video), video).tolist()
        mean += peak_signal_to_noise(video.mean(1, keepdim=True).expand_as(video), video).tolist()
    return Reconstruction(Estimate.of(made), Estimate.of(first), Estimate.of(mean))


@dataclass(frozen=True)
class Quality:
    """How like the real clips the made ones are, clip by clip.

    Args:
        psnr: In dB.
        ssim: Structural similarity, 1 for equal clips.
        flicker: Change where the real clips are still.
        perceptual: Distance in the feature network's maps, 0 for equal clips; None without a network.
        network: Name of the feature network.
    """

    psnr: Estimate
    ssim: Estimate
    flicker: Flicker
    perceptual: Estimate | None = None
    network: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give all numbers as JSON stores them; null where there is none."""
        return {
            "psnr_db": self.psnr.to_dict(),
            "ssim": self.ssim.to_dict(),
            "perceptual": None if self.perceptual is None else {"network": self.network, **self.perceptual.to_dict()},
            "flicker": self.flicker.to_dict(),
        }

    def to_text(self) -> str:
        """Give all numbers as lines of text."""
        rows = [("PSNR", self.psnr, " dB", 2), ("SSIM", self.ssim, "", 4)]
        if self.perceptual is not None:
            rows.append((f"perceptual distance ({self.network})", self.perceptual, "", 4))
        lines = [f"{name} {_describe(estimate, digits, unit)}" for name, estimate, unit, digits in rows]
        return "\n".join([*lines, self.flicker.to_text()])


class LikenessMeter:
    """Takes in made clips beside the real ones that they should equal, batch by batch.

    Args:
        network: Measures the perceptual distance; none without it.
    """

    def __init__(self, network: FeatureNetwork | None = None) -> None:
        self._network = network
        self._psnr: list[float] = []
        self._ssim: list[float] = []
        self._perceptual: list[float] = []
        self._flicker = Flicker()

    @torch.no_grad()
    def add(self, made: Video, real: Video) -> None:
        """Take in some more.

        Args:
            made: Made clips.
            real: The real ones.

        Raises:
            ModelError: Made clips are not finite.
            MissingExtraError: torchmetrics is not installed.
        """
        check_finite(made)
        self._psnr += peak_signal_to_noise(made, real).tolist()
        self._ssim += structural_similarity(made, real).tolist()
        self._flicker += measure_flicker(made, real)
        if self._network is not None:
            self._perceptual += perceptual_distance(self._network, made, real).tolist()

    def result(self) -> Quality:
        """Give the measures of all that was taken in."""
        psnr, ssim = Estimate.of(self._psnr), Estimate.of(self._ssim)
        if self._network is None:
            return Quality(psnr, ssim, self._flicker)
        return Quality(psnr, ssim, self._flicker, Estimate.of(self._perceptual), self._network.name)


def compare(pairs: Iterable[tuple[Video, Video]], network: FeatureNetwork | None = None) -> Quality:
    """Measure made clips beside the real ones that they should equal.

    Args:
        pairs: (made, real) clips, in batches.
        network: Measures the perceptual distance; none without it.

    Raises:
        ModelError: Made clips are not finite.
        MissingExtraError: torchmetrics is not installed.
    """
    meter = LikenessMeter(network)
    for made, real in pairs:
        meter.add(made, real)
    return meter.result()


@torch.no_grad()
def measure_quality(
    model: Disentangler,
    clips: ClipDataset,
    *,
    num_frames: int,
    sampling: SamplingConfig,
    network: FeatureNetwork | None = None,
    seed: int = 0,
    told: Told | None = None,
) -> Quality:
    """Decode every clip from its own codes, and compare in pixels, in structure, in features and in time.

    Args:
        model: On its device, in evaluation mode.
        clips: Held-out clips.
        num_frames: F, frames of a clip, as in training.
        sampling: Solver and steps.
        network: Measures the perceptual distance, on the model's device; none without it.
        seed: Clip i is sampled with seed + i.
        told: Hears of the progress.

    Raises:
        ModelError: The model gives clips that are not finite.
        MissingExtraError: torchmetrics is not installed.
    """
    return compare(_reconstructions(model, clips, num_frames, sampling, seed, told), network)


def _reconstructions(
    model: Disentangler, clips: ClipDataset, num_frames: int, sampling: SamplingConfig, seed: int, told: Told | None
) -> Iterator[tuple[Video, Video]]:
    """Give (decoded from its own codes, real) for all clips, in batches."""
    device = device_of(model)
    for start in range(0, len(clips), BATCH_CLIPS):
        indices = range(start, min(start + BATCH_CLIPS, len(clips)))
        video = middle_video(clips, list(indices), num_frames).to(device)
        yield model.decode(model.encode(video), seeds=[seed + i for i in indices], sampling=sampling), video
        if told:
            told("reconstructing", indices[-1] + 1, len(clips))


def _describe(estimate: Estimate, digits: int, unit: str) -> str:
    interval = "no interval" if math.isnan(estimate.low) else f"[{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
    return f"{estimate.mean:.{digits}f}{unit}  {interval}  over {estimate.num_clips} clips"
