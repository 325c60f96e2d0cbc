"""From clips to codes and from codes to clips, batch by batch, with every value checked: what all measures share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from divid.config import SamplingConfig
from divid.data.clips import ClipDataset
from divid.data.module import middle_video
from divid.errors import ModelError
from divid.types import Codes, Disentangler, Video

BATCH_CLIPS = 16

Told = Callable[[str, int, int | None], None]
"""Called with (what is done, clips done, clips in all)."""


def device_of(model: Disentangler) -> torch.device:
    """Give the device that a method's parameters lie on."""
    return next(iter(model.parameters())).device  # type: ignore[attr-defined]  # a torch module


@torch.no_grad()
def encode_clips(
    model: Disentangler,
    clips: ClipDataset,
    indices: Sequence[int] | None = None,
    *,
    num_frames: int,
    told: Told | None = None,
    stage: str = "encoding",
) -> Codes:
    """Encode clips; the codes come as float32 on the CPU.

    Args:
        model: On its device, in evaluation mode.
        clips: Any clips.
        indices: Which of them; default: all.
        num_frames: F.
        told: Hears of the progress.
        stage: What `told` is told.

    Raises:
        ModelError: The codes are not finite.
    """
    chosen = list(range(len(clips)) if indices is None else indices)
    parts = []
    for start in range(0, len(chosen), BATCH_CLIPS):
        video = middle_video(clips, chosen[start : start + BATCH_CLIPS], num_frames)
        parts.append(model.encode(video.to(device_of(model))).to("cpu", torch.float32))
        if told:
            told(stage, start + len(video), len(chosen))
    codes = Codes(torch.cat([part.static for part in parts]), torch.cat([part.dynamic for part in parts]))
    if not (codes.static.isfinite().all() and codes.dynamic.isfinite().all()):
        raise ModelError("the model gives codes that hold NaN or infinite values, so there is nothing to read: train it again")
    return codes


def decode_clips(
    model: Disentangler,
    codes: Codes,
    *,
    sampling: SamplingConfig,
    shape: tuple[int, int, int, int],
    seed: int,
    method: str,
    what: str,
    told: Told | None = None,
) -> Iterator[Video]:
    """Decode codes in batches of at most `BATCH_CLIPS`, on the model's device.

    Args:
        model: On its device, in evaluation mode.
        codes: Of any number of clips.
        sampling: Solver and steps.
        shape: (F, C, H, W) that every clip must have.
        seed: Clip i is sampled with seed + i.
        method: Its name, for messages.
        what: What is made, for messages and the progress.
        told: Hears of the progress.

    Raises:
        ModelError: The clips have another shape, or values that are not numbers.
    """
    for start in range(0, len(codes.static), BATCH_CLIPS):
        part = Codes(codes.static[start : start + BATCH_CLIPS], codes.dynamic[start : start + BATCH_CLIPS])
        seeds = [seed + start + number for number in range(len(part.static))]
        with torch.no_grad():
            video = model.decode(part.to(device_of(model)), seeds=seeds, sampling=sampling)
        check_clips(video, (len(seeds), *shape), method, what, start)
        yield video
        if told:
            told(what, start + len(video), len(codes.static))


def swap_clips(
    model: Disentangler,
    clips: ClipDataset,
    pairs: Int[np.ndarray, "pairs 2"],
    *,
    num_frames: int,
    sampling: SamplingConfig,
    seed: int,
    what: str,
    told: Told | None = None,
) -> tuple[Codes, Int[np.ndarray, "pairs 2"], Iterator[Video]]:
    """Encode the clips of some pairs, each once, and decode x = decode(s(A), d(B)) of every pair.

    Args:
        model: On its device, in evaluation mode.
        clips: What the pairs number.
        pairs: (A, whose appearance is taken; B, whose motion is).
        num_frames: F.
        sampling: Solver and steps.
        seed: Pair i is sampled with seed + i.
        what: What is made, for messages and the progress.
        told: Hears of the progress.

    Returns:
        The codes of the clips that occur, the places of every pair's clips among them, and the swaps, made as they are asked for.

    Raises:
        ModelError: Codes or swaps are not finite.
    """
    used, places = np.unique(pairs, return_inverse=True)
    places = places.reshape(-1, 2)
    codes = encode_clips(model, clips, used.tolist(), num_frames=num_frames, told=told, stage=f"encoding for {what}s")
    swapped = Codes(codes.static[places[:, 0]], codes.dynamic[places[:, 1]])
    options: dict[str, Any] = {"sampling": sampling, "shape": video_shape(clips, num_frames), "seed": seed, "told": told}
    return codes, places, decode_clips(model, swapped, method=type(model).__name__, what=what, **options)


def video_shape(clips: ClipDataset, num_frames: int) -> tuple[int, int, int, int]:
    """Give (F, C, H, W) of the clips of a data set.

    Args:
        clips: Any clips.
        num_frames: F.
    """
    info = clips.info
    return num_frames, info.channels, info.image_size, info.image_size


def check_clips(video: Video, shape: tuple[int, ...], method: str, what: str, first: int = 0) -> None:
    """Check what a method has made.

    Args:
        video: Made clips.
        shape: (B, F, C, H, W) that they must have.
        method: Its name.
        what: What they are.
        first: Number of the first of them.

    Raises:
        ModelError: They have another shape, or values that are not numbers.
    """
    if tuple(video.shape) != shape:
        raise ModelError(
            f"the method {method} gives clips of shape {tuple(video.shape)} where {shape} is wanted: "
            "open the clips and train the judge at the model's size"
        )
    if not torch.isfinite(video).all():
        number = first + int((~torch.isfinite(video)).flatten(1).any(1).nonzero()[0])
        raise ModelError(
            f"the method {method} gives values that are not numbers (NaN or infinite) in {what} {number}: "
            "its weights are broken, use an earlier model or train it again"
        )
