"""Measures between made and real clips: structural similarity, perceptual distance, Frechet distance and flicker."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from divid.errors import DatasetError, MissingExtraError, ModelError
from divid.types import Frames, Video

LEVELS = 127.5
"""Grey levels of 8 bits in one unit of a video in [-1, 1]."""
STILL_THRESHOLD = 4 / LEVELS
"""A place of a real clip is still between two frames where no channel changes by more than this: 4 of 255 grey levels."""


class FeatureNetwork(Protocol):
    """A named network whose features measure how alike pictures look; what it needs of size and channels it sees to itself."""

    @property
    def name(self) -> str:
        """Which network with which weights: every number that rests on it carries this name."""
        ...

    def features(self, frames: Frames) -> Tensor:
        """Give one vector a frame, "frames dim".

        Args:
            frames: Frames in [-1, 1].
        """
        ...

    def maps(self, frames: Frames) -> list[Tensor]:
        """Give intermediate feature maps, each "frames channels height width".

        Args:
            frames: Frames in [-1, 1].
        """
        ...


class MapNetwork:
    """A `FeatureNetwork` made of a network that gives maps only: its features are the last map's means over all places.

    Args:
        name: Which network with which weights.
        network: Gives the maps of frames in [-1, 1].
    """

    def __init__(self, name: str, network: Callable[[Tensor], list[Tensor]]) -> None:
        self.name, self._network = name, network

    def features(self, frames: Frames) -> Tensor:
        """Give one vector a frame; see `FeatureNetwork.features`."""
        return self._network(frames)[-1].flatten(2).mean(2)

    def maps(self, frames: Frames) -> list[Tensor]:
        """Give the maps; see `FeatureNetwork.maps`."""
        return self._network(frames)


def structural_similarity(video: Video, reference: Video) -> Float[Tensor, " batch"]:
    """Give the SSIM of each clip, averaged over its frames: Gaussian window of width 1.5, on frames in [0, 1].

    Args:
        video: Made clips.
        reference: Real ones.

    Raises:
        MissingExtraError: torchmetrics is not installed.
    """
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError:
        raise MissingExtraError("torchmetrics", "eval", "measuring SSIM") from None
    made, real = (((clips.double().clamp(-1, 1) + 1) / 2).flatten(0, 1) for clips in (video, reference))
    values = structural_similarity_index_measure(made, real, data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return values.unflatten(0, video.shape[:2]).mean(1)


def perceptual_distance(network: FeatureNetwork, video: Video, reference: Video) -> Float[Tensor, " batch"]:
    """Give the distance of each clip in feature space, averaged over its frames.

    At every place of every map both feature vectors are scaled to length 1; the distance is their squared difference, averaged
    over places, summed over maps. Equal frames have 0, features without anything in common 2 a map.

    Args:
        network: Gives the maps.
        video: Made clips.
        reference: Real ones.

    Source:
        Zhang et al., 2018, eq. (1). Differs: no weights learned from people's judgement.
    """
    pairs = zip(network.maps(video.clamp(-1, 1).flatten(0, 1)), network.maps(reference.flatten(0, 1)), strict=True)
    layers = [(functional.normalize(made.double()) - functional.normalize(real.double())).square().sum(1) for made, real in pairs]
    return torch.stack([layer.flatten(1).mean(1) for layer in layers]).sum(0).unflatten(0, video.shape[:2]).mean(1)


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of feature vectors, in float64.

    Args:
        mean: Their mean.
        covariance: Their covariance, with N - 1.
        count: N.
    """

    mean: Float[Tensor, " dim"]
    covariance: Float[Tensor, "dim dim"]
    count: int


class GaussianFit:
    """Mean and covariance of vectors that come in parts, without keeping them: exact in float64 (Chan et al., 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self._mean: Tensor | None = None
        self._scatter: Tensor | None = None

    def add(self, rows: Float[Tensor, "rows dim"]) -> None:
        """Take in some more.

        Args:
            rows: The vectors.
        """
        rows = rows.detach().double().cpu()
        mean = rows.mean(0)
        scatter = (rows - mean).T @ (rows - mean)
        if self._mean is None or self._scatter is None:
            self.count, self._mean, self._scatter = len(rows), mean, scatter
            return
        total, shift = self.count + len(rows), mean - self._mean
        self._scatter = self._scatter + scatter + torch.outer(shift, shift) * (self.count * len(rows) / total)
        self._mean = self._mean + shift * (len(rows) / total)
        self.count = total

    def result(self) -> Gaussian:
        """Give mean and covariance of all that was taken in.

        Raises:
            DatasetError: These are fewer than two.
        """
        if self.count < 2 or self._mean is None or self._scatter is None:
            raise DatasetError(f"a Frechet distance needs at least 2 clips on each side, got {self.count}: take more")
        return Gaussian(self._mean, self._scatter / (self.count - 1), self.count)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Compute ||m_a - m_b||^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2), the squared Frechet distance, in float64.

    Args:
        a: One distribution.
        b: The other.
    """
    root = _square_root(a.covariance)
    inner = root @ b.covariance @ root
    overlap = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp_min(0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * overlap
    return max(0.0, float(distance))


def clip_features(features: Float[Tensor, "batch frames dim"]) -> Float[Tensor, "batch clip_dim"]:
    """Describe each clip by its frames' features: their mean, and the mean absolute difference of neighbouring frames.

    The second half sees what single frames do not show: motion that is too fast or too slow, flicker, a clip that stands still.

    Args:
        features: One vector a frame.
    """
    return torch.cat([features.mean(1), features.diff(dim=1).abs().mean(1)], dim=1)


@dataclass(frozen=True)
class Realism:
    """How far made clips as a whole are from real ones in feature space.

    With fewer clips than dimensions the covariances are incomplete and the distances too large: compare only numbers from equally
    many clips and the same network.

    Args:
        network: Name of the feature network.
        frame: Frechet distance of single frames' features.
        clip: Frechet distance of whole clips' features.
        frame_dim: Dimensions of the frames' features.
        num_made_clips: Made clips.
        num_made_frames: Their frames.
        num_real_clips: Real clips.
        num_real_frames: Their frames.
    """

    network: str
    frame: float
    clip: float
    frame_dim: int
    num_made_clips: int
    num_made_frames: int
    num_real_clips: int
    num_real_frames: int

    def to_text(self) -> str:
        """Give both distances as lines of text, with all that they depend on."""
        beside = f"({self.network}; {self.num_made_clips} made, {self.num_real_clips} real clips)"
        return f"Frechet distance, frames {self.frame:.4g}  {beside}\nFrechet distance, clips  {self.clip:.4g}  {beside}"


class FeatureFit:
    """Takes in clips batch by batch, and keeps the distribution of their features, by frame and by clip.

    Args:
        network: Gives the features.
    """

    def __init__(self, network: FeatureNetwork) -> None:
        self.network, self._frames, self._clips = network, GaussianFit(), GaussianFit()

    @torch.no_grad()
    def add(self, video: Video) -> None:
        """Take in some more.

        Args:
            video: Clips.

        Raises:
            ModelError: They are not finite.
        """
        check_finite(video)
        features = self.network.features(video.clamp(-1, 1).flatten(0, 1)).flatten(1)
        self._frames.add(features)
        self._clips.add(clip_features(features.double().unflatten(0, video.shape[:2])))

    def distance_to(self, real: FeatureFit) -> Realism:
        """Give the Frechet distances to other clips, all together.

        Args:
            real: Fitted to real clips, with the same network.

        Raises:
            DatasetError: There are fewer than two clips on a side.
        """
        assert self.network is real.network
        made_frames, made_clips = self._frames.result(), self._clips.result()
        real_frames, real_clips = real._frames.result(), real._clips.result()
        return Realism(
            network=self.network.name,
            frame=frechet_distance(made_frames, real_frames),
            clip=frechet_distance(made_clips, real_clips),
            frame_dim=len(made_frames.mean),
            num_made_clips=made_clips.count,
            num_made_frames=made_frames.count,
            num_real_clips=real_clips.count,
            num_real_frames=real_frames.count,
        )


def measure_realism(made: Iterable[Video], real: Iterable[Video], network: FeatureNetwork) -> Realism:
    """Compare made clips with real ones, all together; neither their number nor their order need agree.

    Args:
        made: Made clips, in batches.
        real: Real clips, in batches.
        network: Gives the features.

    Raises:
        DatasetError: There are fewer than two clips on a side.
        ModelError: Made clips are not finite.
    """
    fits = []
    for batches in (made, real):
        fit = FeatureFit(network)
        for video in batches:
            fit.add(video)
        fits.append(fit)
    return fits[0].distance_to(fits[1])


@dataclass(frozen=True)
class Flicker:
    """How much made clips change where the real ones are still; the sum of two holds the clips of both.

    Args:
        made_change: Sum of the absolute frame differences of the made clips over the still places, in units of [-1, 1].
        real_change: The same of the real clips.
        num_still: Number of still places: pixels of one frame that are still towards the next.
        num_places: Number of places in all.
        threshold: Largest difference of a real clip that counts as still.
    """

    made_change: float = 0.0
    real_change: float = 0.0
    num_still: int = 0
    num_places: int = 0
    threshold: float = STILL_THRESHOLD

    def __add__(self, other: Flicker) -> Flicker:
        assert self.threshold == other.threshold
        return Flicker(
            self.made_change + other.made_change,
            self.real_change + other.real_change,
            self.num_still + other.num_still,
            self.num_places + other.num_places,
            self.threshold,
        )

    @property
    def ratio(self) -> float | None:
        """Mean change of the made clips over that of the real ones; None where it is undefined, see `to_text`."""
        return self.made_change / self.real_change if self.real_change > 0 else None

    @property
    def made_levels(self) -> float | None:
        """Mean change of the made clips at still places, in grey levels of 255; None if no place is still."""
        return self.made_change / self.num_still * LEVELS if self.num_still else None

    @property
    def real_levels(self) -> float | None:
        """The same of the real clips."""
        return self.real_change / self.num_still * LEVELS if self.num_still else None

    def to_dict(self) -> dict[str, Any]:
        """Give all numbers as JSON stores them; null where one is undefined."""
        return {
            "ratio": self.ratio,
            "made_levels": self.made_levels,
            "real_levels": self.real_levels,
            "still_share": self.num_still / self.num_places if self.num_places else None,
            "threshold_levels": self.threshold * LEVELS,
        }

    def to_text(self) -> str:
        """Give the ratio as a line of text, or say why there is none."""
        rule = f"still: changes by at most {self.threshold * LEVELS:.3g} of 255 levels"
        if not self.num_still:
            return f"flicker ratio undefined: nothing in the real clips is still ({rule})"
        levels = f"{self.made_levels:.3g} levels made, {self.real_levels:.3g} real"
        share = f"{self.num_still / self.num_places:.1%} of all places still"
        if self.ratio is None:
            return f"flicker ratio undefined: the real clips do not change at all where still ({levels}; {share}; {rule})"
        return f"flicker ratio {self.ratio:.3g} ({levels}; {share}; {rule})"


def measure_flicker(video: Video, reference: Video, threshold: float = STILL_THRESHOLD) -> Flicker:
    """Sum up how much made clips change from frame to frame where the real clips are still.

    Args:
        video: Made clips.
        reference: The real clips that they should equal.
        threshold: Largest difference in any channel that counts as still.
    """
    made, real = (clips.double().clamp(-1, 1).diff(dim=1).abs() for clips in (video, reference))
    is_still = real.amax(2) <= threshold
    made_change, real_change = (float((change.mean(2) * is_still).sum()) for change in (made, real))
    return Flicker(made_change, real_change, int(is_still.sum()), is_still.numel(), threshold)


def check_finite(video: Video) -> None:
    """Check what a model has made.

    Args:
        video: Made clips.

    Raises:
        ModelError: They hold NaN or infinite values.
    """
    if not video.isfinite().all():
        raise ModelError("the model gives frames that hold NaN or infinite values, so there is nothing to see: train it again")


def _square_root(covariance: Float[Tensor, "dim dim"]) -> Float[Tensor, "dim dim"]:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T
