"""Self-consistency of swaps: is a swap, encoded again, nearer to the tokens that it was made of? Needs no label and no judge.

A swap x = decode(s(A), d(B)) is encoded again. Its look is kept if its static token is nearer to s(A) than to s(B), its motion if
its dynamic tokens are nearer to d(B) than to d(A). Where the look rides in the dynamic tokens, x looks like B and s(x) says so.
The encoder judges its own work here, so a good number is needed, not enough: what it does not encode it does not miss. Another
model's encoder, the same for all that are compared, is a fairer reader. Both serve to choose between models while labels are out
of bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divid.config import SamplingConfig
from divid.data.clips import ClipDataset
from divid.errors import ConfigError, DatasetError
from divid.evaluation.codes import Told, device_of, encode_clips, swap_clips
from divid.evaluation.intervals import ClipBootstrap, Rate
from divid.randomness import make_generator
from divid.types import Disentangler


@dataclass(frozen=True)
class Consistency:
    """How often a swap's own tokens are nearer to those it was made of.

    Args:
        static: Static token nearer to A's than to B's; a tie is neither.
        dynamic: Dynamic tokens nearer to B's than to A's.
        joint: Both.
        reader: Name of the model whose encoder read the swaps; empty: the model's own.
    """

    static: Rate
    dynamic: Rate
    joint: Rate
    reader: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Give all numbers as JSON stores them."""
        return {"reader": self.reader, **{name: getattr(self, name).to_dict() for name in ("static", "dynamic", "joint")}}

    def to_text(self) -> str:
        """Give the shares with their intervals, in lines."""
        lines = []
        for name, what in (("static", "look kept"), ("dynamic", "motion kept"), ("joint", "both")):
            rate: Rate = getattr(self, name)
            low, high = rate.interval
            by = f", read by {self.reader}" if self.reader else ""
            lines.append(f"self-consistency  {what:<12} {rate.rate:6.1%}  [{low:.1%}, {high:.1%}]  of {rate.num} swaps{by}")
        return "\n".join(lines)


def draw_any_pairs(num_clips: int, num_pairs: int, seed: int = 0) -> Int[np.ndarray, "pairs 2"]:
    """Draw ordered pairs of different clips without repetition, whatever their labels.

    Args:
        num_clips: Clips there are.
        num_pairs: How many; all there are, if fewer.
        seed: The same seed gives the same pairs.

    Raises:
        DatasetError: There are fewer than two clips.
    """
    if num_clips < 2:
        raise DatasetError(f"a swap needs two clips, there is {num_clips}: prepare more clips, or choose another --split")
    order = torch.randperm(num_clips * (num_clips - 1), generator=make_generator(seed, "pairs for self-consistency")).numpy()
    first, second = np.divmod(order[:num_pairs], num_clips - 1)
    return np.stack([first, second + (second >= first)], axis=1)


@torch.no_grad()
def measure_consistency(
    model: Disentangler,
    clips: ClipDataset,
    *,
    num_pairs: int,
    num_frames: int,
    sampling: SamplingConfig,
    seed: int = 0,
    reader: Disentangler | None = None,
    told: Told | None = None,
) -> Consistency:
    """Swap random pairs of clips, encode the swaps again, and see whose tokens theirs are nearer to.

    Distances are squared, every entry of a token in units of its spread over the clips; those of dynamic tokens are of the same
    frame, summed over the frames.

    Args:
        model: On its device, in evaluation mode.
        clips: Two or more.
        num_pairs: Ordered pairs.
        num_frames: F, frames of a clip, as in training.
        sampling: Solver and steps.
        seed: Of the pairs; pair i is sampled with seed + i.
        reader: Another model, whose encoder reads the swaps and the clips; None: the model's own.
        told: Hears of the progress.

    Raises:
        DatasetError: There are fewer than two clips.
        ConfigError: The reader sees clips of another size or of other channels than the model makes.
        ModelError: Codes or swaps are not finite.
    """
    if reader is not None:
        _check_sizes(reader, clips)
    pairs = draw_any_pairs(len(clips), num_pairs, seed)
    real, places, made = swap_clips(
        model, clips, pairs, num_frames=num_frames, sampling=sampling, seed=seed, what="swap", told=told
    )
    a, b = places.T
    if reader is not None:
        real = encode_clips(reader, clips, np.unique(pairs).tolist(), num_frames=num_frames, told=told, stage="reading clips")
    reads = model if reader is None else reader
    again = [reads.encode(video.to(device_of(reads))).to("cpu", torch.float32) for video in made]
    keeps_look = _is_nearer(torch.cat([codes.static for codes in again]), real.static, a, b)
    keeps_motion = _is_nearer(torch.cat([codes.dynamic for codes in again]), real.dynamic, b, a)
    bootstrap = ClipBootstrap(pairs, seed)
    both = keeps_look & keeps_motion
    return Consistency(bootstrap.rate(keeps_look), bootstrap.rate(keeps_motion), bootstrap.rate(both))


def _check_sizes(reader: Disentangler, clips: ClipDataset) -> None:
    options: Any = reader.options  # type: ignore[attr-defined]  # every model has them
    wanted, got = (clips.info.image_size, clips.info.channels), (options.image_size, options.channels)
    if wanted != got:
        raise ConfigError(
            f"the model that reads the swaps was made for {got[0]}x{got[0]} clips of {got[1]} channels, these are "
            f"{wanted[0]}x{wanted[0]} of {wanted[1]}: name one of that size"
        )


def _is_nearer(
    made: Float[Tensor, pairs * token],
    real: Float[Tensor, clips * token],
    wanted: Int[np.ndarray, " pairs"],
    other: Int[np.ndarray, " pairs"],
) -> Bool[np.ndarray, " pairs"]:
    entries = tuple(range(real.ndim - 1))  # all axes but the token's own: clips, and frames where there are any
    spread = real.std(entries).clamp_min(torch.finfo(real.dtype).tiny)
    near, far = (((made - real[places]) / spread).flatten(1).square().sum(1) for places in (wanted, other))
    return (near < far).numpy()
