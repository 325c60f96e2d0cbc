"""Likeness: how alike reconstructions and their clips are, and how far made clips as a whole are from real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from divid.config import SamplingConfig
from divid.data.clips import ClipDataset
from divid.data.module import middle_video
from divid.evaluation.codes import BATCH_CLIPS, Told, swap_clips
from divid.evaluation.quality import LikenessMeter, Quality
from divid.evaluation.realism import FeatureFit, FeatureNetwork, Realism
from divid.types import Disentangler, Video


@dataclass(frozen=True)
class Likeness:
    """How real what a method makes looks.

    Args:
        quality: Reconstructions beside the clips that they should equal.
        frechet: Distances to the held-out clips, by what is compared: `reconstruction`, `swap`, and, where there are training
            clips, `real training clips`: what real clips of the same kind reach.
    """

    quality: Quality
    frechet: Mapping[str, Realism]

    @property
    def network(self) -> str:
        """Name of the feature network."""
        assert self.quality.network is not None
        return self.quality.network

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the distances has to know: whether there are fewer clips than dimensions of their features."""
        dims = 2 * next(iter(self.frechet.values())).frame_dim  # of a clip: mean features and their mean change
        counts = {name: min(realism.num_made_clips, realism.num_real_clips) for name, realism in self.frechet.items()}
        few = [f"{name} {count}" for name, count in counts.items() if count < dims]
        if not few:
            return ()
        return (
            f"Distances of clips are too large where there are fewer clips than the {dims} dimensions of their features "
            f"({', '.join(few)}): compare them with distances of as many clips only.",
        )

    def to_dict(self) -> dict[str, Any]:
        """Give all numbers as JSON stores them; null where there is none."""
        distances = {name: dict(vars(realism)) for name, realism in self.frechet.items()}
        return {"network": self.network, **self.quality.to_dict(), "frechet": distances}

    def to_text(self) -> str:
        """Give all numbers as lines of text."""
        width = max(map(len, self.frechet))
        lines = [
            f"{name:<{width}}  frames {realism.frame:9.4g}  clips {realism.clip:9.4g}  "
            f"{realism.num_made_clips} beside {realism.num_real_clips} clips"
            for name, realism in self.frechet.items()
        ]
        return "\n".join([self.quality.to_text(), f"Frechet distance to held-out clips ({self.network}):", *lines, *self.notes])


class LikenessStudy:
    """Measures likeness while reconstructions pass by, and adds swaps and training clips.

    Args:
        network: Gives maps and features, on the model's device.
    """

    def __init__(self, network: FeatureNetwork) -> None:
        self._network, self._meter = network, LikenessMeter(network)
        self._real = FeatureFit(network)
        self._made = {"reconstruction": FeatureFit(network)}

    def watch(self, made: Video, real: Video) -> None:
        """Take in reconstructions: `watch` of `measure_reconstruction`.

        Args:
            made: Reconstructions.
            real: The held-out clips.

        Raises:
            ModelError: Reconstructions are not finite.
            MissingExtraError: torchmetrics is not installed.
        """
        self._meter.add(made, real)
        self._made["reconstruction"].add(made)
        self._real.add(real)

    @torch.no_grad()
    def add_swaps(
        self,
        model: Disentangler,
        clips: ClipDataset,
        pairs: Sequence[tuple[int, int]],
        *,
        num_frames: int,
        sampling: SamplingConfig,
        seed: int = 0,
        told: Told | None = None,
    ) -> None:
        """Swap pairs and take in what is made.

        Args:
            model: On its device, in evaluation mode.
            clips: Held-out clips.
            pairs: (A, whose appearance is taken; B, whose motion is).
            num_frames: F.
            sampling: Solver and steps.
            seed: Pair i is sampled with seed + i.
            told: Hears of the progress.

        Raises:
            ModelError: The model gives codes or clips that are not finite.
        """
        options: dict[str, Any] = {"num_frames": num_frames, "sampling": sampling, "seed": seed, "told": told}
        fit = FeatureFit(self._network)
        for video in swap_clips(model, clips, np.array(pairs), what="random swap", **options)[2]:
            fit.add(video)
        self._made["swap"] = fit

    def add_training_clips(self, clips: ClipDataset, *, num_frames: int, device: torch.device | str = "cpu") -> None:
        """Take in real training clips, for the distance that real clips have.

        Args:
            clips: Training clips.
            num_frames: F.
            device: Where the network works.
        """
        fit = FeatureFit(self._network)
        for start in range(0, len(clips), BATCH_CLIPS):
            indices = list(range(start, min(start + BATCH_CLIPS, len(clips))))
            fit.add(middle_video(clips, indices, num_frames).to(device))
        self._made["real training clips"] = fit

    def result(self) -> Likeness:
        """Give all that was measured.

        Raises:
            DatasetError: There are fewer than two clips.
        """
        return Likeness(self._meter.result(), {name: fit.distance_to(self._real) for name, fit in self._made.items()})
