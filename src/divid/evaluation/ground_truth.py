"""Swaps beside their ground truth: clips of A in B's motion that the data can show, so neither judge nor label stands between.

In most data nobody else does the very same thing. Two sets are drawn, and there the answer to a swap is a clip: the look of A
in B's performance (puppets: the same phase, tempo and amplitude; sprites: the same cells of A's sheets). How far a swap is from
it in pixels says what a judge cannot: whether it is this performance, by exactly this figure, at the right place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from divid.arrays import frames_to_video, peak_signal_to_noise
from divid.config import SamplingConfig
from divid.data.clips import ClipDataset, middle_positions
from divid.data.images import resize_uint8, to_channels
from divid.data.module import middle_video
from divid.data.sources.puppets import NUM_FRAMES, PuppetsSource, render_clip
from divid.data.sources.sprites import SpritesSource
from divid.errors import DatasetError
from divid.evaluation.codes import BATCH_CLIPS, Told, device_of, swap_clips
from divid.evaluation.intervals import ClipBootstrap, Rate
from divid.evaluation.quality import Estimate
from divid.evaluation.swap import draw_pairs
from divid.types import Disentangler, Video

FrameSource = Callable[[int, int, int], np.ndarray]
"""Gives the frames, uint8 F H W C, of clip A's look in clip B's motion: (A, B, number of frames)."""

ROWS = {
    "swap": "the swap",
    "reconstruction": "the ground truth, reconstructed: what a perfect swap would reach",
    "swap_aligned": "the swap, moved sideways to where it fits best",
    "reconstruction_aligned": "the ground truth, reconstructed and moved likewise",
    "copy_a": "A, unchanged",
    "copy_b": "B, unchanged",
}
"""Field of `GroundTruth` -> what is compared with the ground truth."""

LARGEST_SHIFT = 1 / 8
"""How far a clip is moved sideways to fit, at most, as a share of the frame's side."""


@dataclass(frozen=True)
class GroundTruth:
    """How near swaps are to the clips that they should be, in dB of PSNR.

    Args:
        swap: Of decode(s(A), d(B)).
        reconstruction: Of the ground truth decoded from its own codes, which no swap is expected to beat.
        swap_aligned: Of the swap at the sideways shift, the same for all its frames, at which it is nearest. Whether a figure's
            place belongs to its look or to its motion is for the method to say; what is lost by it is the difference to `swap`.
        reconstruction_aligned: The same of the reconstruction.
        copy_a: Of A as it is.
        copy_b: Of B as it is.
        is_nearest: Share of the pairs whose swap is nearer to the ground truth than to A and than to B.
        num_pairs: Pairs.
    """

    swap: Estimate
    reconstruction: Estimate
    swap_aligned: Estimate
    reconstruction_aligned: Estimate
    copy_a: Estimate
    copy_b: Estimate
    is_nearest: Rate
    num_pairs: int

    def to_dict(self) -> dict[str, Any]:
        """Give all numbers as JSON stores them."""
        rows = {field.name: getattr(self, field.name).to_dict() for field in fields(self) if field.name in ROWS}
        return {"num_pairs": self.num_pairs, "psnr_db": rows, "is_nearest": self.is_nearest.to_dict()}

    def to_text(self) -> str:
        """Give all numbers as lines of text."""
        lines = []
        for name in ROWS:
            value: Estimate = getattr(self, name)
            interval = "no interval" if math.isnan(value.low) else f"[{value.low:.2f}, {value.high:.2f}]"
            lines.append(f"PSNR to the ground truth  {name:<22} {value.mean:6.2f} dB  {interval}  over {self.num_pairs} pairs")
        low, high = self.is_nearest.interval
        interval = f"[{low:.1%}, {high:.1%}]"
        lines.append(f"swap nearer to the ground truth than to A and to B  {self.is_nearest.rate:6.1%}  {interval}")
        return "\n".join(lines)


def has_ground_truth(clips: ClipDataset) -> bool:
    """Tell whether the data can show what a swap should be: one set of `puppets` or `sprites`.

    Args:
        clips: Of prepared data sets.
    """
    return len(clips.info.names) == 1 and clips.origin(0)[0] in _SOURCES


def ground_truth_source(clips: ClipDataset) -> FrameSource:
    """Give the way to the ground truth of swaps of these clips.

    Args:
        clips: Of one prepared data set.

    Raises:
        DatasetError: The data show no such clips, or several sets were opened together.
    """
    names = ", ".join(clips.info.names)
    if len(clips.info.names) > 1:
        raise DatasetError(f"ground truth is taken from one data set, got {names}: give one")
    source, _ = clips.origin(0)
    if source not in _SOURCES:
        raise DatasetError(
            f"{names} (source {source}) has no ground truth of swaps, since nobody else does the very same thing in it: "
            "use a puppets or sprites set"
        )
    return _SOURCES[source](clips)


@torch.no_grad()
def measure_ground_truth(
    model: Disentangler,
    clips: ClipDataset,
    *,
    num_pairs: int,
    num_frames: int,
    sampling: SamplingConfig,
    seed: int = 0,
    told: Told | None = None,
) -> GroundTruth:
    """Swap random pairs of clips, and compare with the clips that show A's look in B's motion.

    Args:
        model: On its device, in evaluation mode.
        clips: Of a set whose ground truth can be shown: see `ground_truth_source`.
        num_pairs: Ordered pairs that differ in every factor, without repetition; all there are, if fewer.
        num_frames: F, frames of a clip, as in training.
        sampling: Solver and steps.
        seed: Of the pairs; pair i is sampled with seed + i, and so is the reconstruction of its ground truth.
        told: Hears of the progress.

    Raises:
        DatasetError: No two clips differ in every factor, or there is no ground truth of these.
        ModelError: Codes or swaps are not finite.

    Source:
        Not in the paper. Paired ground truth is how reenactment is tested where two actors do the same.
    """
    truth_of = ground_truth_source(clips)
    pairs = np.array(draw_pairs(clips, num_pairs, seed))
    options: dict[str, Any] = {"num_frames": num_frames, "sampling": sampling, "seed": seed, "told": told}
    _, _, swaps = swap_clips(model, clips, pairs, what="swap", **options)
    found: dict[str, list[Float[np.ndarray, " batch"]]] = {name: [] for name in ROWS}
    nearest: list[Bool[np.ndarray, " batch"]] = []
    for start, made in zip(range(0, len(pairs), BATCH_CLIPS), swaps, strict=True):
        part = pairs[start : start + BATCH_CLIPS]
        truth = torch.cat([frames_to_video(truth_of(a, b, num_frames)) for a, b in part.tolist()])
        seeds = [seed + start + number for number in range(len(part))]
        again = model.decode(model.encode(truth.to(device_of(model))), seeds=seeds, sampling=sampling).cpu()
        made, a, b = made.cpu(), *(middle_video(clips, part[:, side].tolist(), num_frames) for side in (0, 1))
        for name, video in (("swap", made), ("reconstruction", again), ("copy_a", a), ("copy_b", b)):
            found[name].append(_psnr(video, truth))
        for name, video in (("swap_aligned", made), ("reconstruction_aligned", again)):
            found[name].append(_aligned_psnr(video, truth))
        nearest.append(found["swap"][-1] > np.maximum(_psnr(made, a), _psnr(made, b)))
    bootstrap, num_clips = ClipBootstrap(pairs, seed), len(np.unique(pairs))
    values = {name: np.concatenate(parts) for name, parts in found.items()}
    rows = {name: Estimate(float(of.mean()), *bootstrap.mean_interval(of), num_clips) for name, of in values.items()}
    return GroundTruth(**rows, is_nearest=bootstrap.rate(np.concatenate(nearest)), num_pairs=len(pairs))


class _PuppetTruth:
    """Draws B's performance again, by A's figure in A's clothes before A's scenery, standing where B stands."""

    def __init__(self, clips: ClipDataset) -> None:
        _, options = clips.origin(0)
        self._clips, self._size, self._scenery = clips, options["image_size"], options["scenery"]

    def __call__(self, a: int, b: int, num_frames: int) -> np.ndarray:
        look, motion = (json.loads(self._clips.row(index)["extra"]) for index in (a, b))
        frames = render_clip(
            look["look_seed"],
            motion["action"],
            motion["clip_seed"],
            num_frames=NUM_FRAMES,
            size=self._size,
            scenery=self._scenery,
        )
        info = self._clips.info
        frames = frames[middle_positions(NUM_FRAMES, num_frames)]
        return resize_uint8(to_channels(frames, info.channels), info.image_size)


class _SpriteTruth:
    """Looks up the clip of A's figure that shows B's motion: a figure's clip is settled by its labels."""

    def __init__(self, clips: ClipDataset) -> None:
        self._clips = clips
        self._static, self._dynamic = (clips.info.factors[kind] for kind in ("static", "dynamic"))
        self._labels = [clips.labels(index) for index in range(len(clips))]
        self._places = {self._key(index, index): index for index in range(len(clips))}

    def __call__(self, a: int, b: int, num_frames: int) -> np.ndarray:
        place = self._places.get(self._key(a, b))
        if place is None:
            raise DatasetError(
                f"{', '.join(self._clips.info.names)} holds no clip of the figure of {self._clips.clip_id(a)!r} in the motion of "
                f"{self._clips.clip_id(b)!r}: prepare the whole set"
            )
        return self._clips.frames(place, middle_positions(self._clips.num_frames(place), num_frames))

    def _key(self, a: int, b: int) -> tuple[str | None, ...]:
        return (*(self._labels[a][name] for name in self._static), *(self._labels[b][name] for name in self._dynamic))


_SOURCES: dict[str, Callable[[ClipDataset], FrameSource]] = {PuppetsSource.name: _PuppetTruth, SpritesSource.name: _SpriteTruth}
"""Name of the source that a set was prepared from -> where its ground truth comes from."""


def _aligned_psnr(video: Video, reference: Video) -> Float[np.ndarray, " batch"]:
    """Give each clip's PSNR at the best sideways shift; what comes in from outside repeats the border."""
    size = video.shape[-1]
    most, columns = int(size * LARGEST_SHIFT), torch.arange(size)
    moved = (video[..., (columns - shift).clamp(0, size - 1)] for shift in range(-most, most + 1))
    return np.max([_psnr(clip, reference) for clip in moved], axis=0)


def _psnr(video: Video, reference: Video) -> Float[np.ndarray, " batch"]:
    return peak_signal_to_noise(video, reference).double().numpy()
