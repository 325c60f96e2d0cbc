"""Who shares which noise: the draws of training and of sampling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divid.diffusion.schedule import timesteps_from_uniform
from divid.randomness import Randomness, make_generator, to_device


def training_noise(
    randomness: Randomness, num_frames: int, frame_shape: Sequence[int], *, is_shared: bool, device: torch.device | str
) -> Float[Tensor, "batch frames channels height width"]:
    """Draw eps for a batch.

    Args:
        randomness: The step's randomness.
        num_frames: F.
        frame_shape: (C, H, W).
        is_shared: One draw for all frames of a clip, else one a frame. Frames are denoised alone, so both have the same expected
            gradient; sharing only raises its variance.
        device: Where to draw.

    Source:
        Paper section 3.1, below eq. (1): the noise is shared across the frames.
    """
    count = 1 if is_shared else num_frames
    noise = randomness.normal("noise", (count, *frame_shape), device)
    return noise.expand(-1, num_frames, *frame_shape)


def training_timesteps(
    randomness: Randomness,
    num_frames: int,
    num_train_timesteps: int,
    *,
    is_shared: bool,
    device: torch.device | str,
    shift: float = 1.0,
) -> Int[Tensor, "batch frames"]:
    """Draw t for a batch: one a clip where noise is shared, else one a frame, stratified over the global batch.

    Args:
        randomness: The step's randomness.
        num_frames: F.
        num_train_timesteps: T.
        is_shared: One t for all frames of a clip.
        device: Where the result lives.
        shift: a of u -> a u / (1 + (a - 1) u), which is applied to the uniform draw: above 1 the density of t rises, from 1/a at
            little noise to a at pure noise.

    Source:
        The shift is that of Esser et al., "Scaling Rectified Flow Transformers" (2024), section 5.3.2. The paper has none.
    """
    if is_shared:
        uniform = randomness.uniform("timestep")[:, None].expand(-1, num_frames)
    else:
        uniform = torch.stack([randomness.stratified(f"timestep {frame}") for frame in range(num_frames)], dim=1)
    return to_device(timesteps_from_uniform(shift * uniform / (1 + (shift - 1) * uniform), num_train_timesteps), device)


class SamplingNoise:
    """The noise of a sampling run, a function of each clip's seed (and of the frame's place, where it is not shared).

    Drawn on the CPU, so that a seed means the same sample on every device, in every batch and in every chunk.

    Args:
        seeds: One a clip.
        num_frames: Frames of each clip that are decoded now.
        frame_shape: (C, H, W).
        is_shared: All frames of a clip get the same noise; this ties the frames together in time.
        first_frame: Place of the first of these frames in its clip.

    Source:
        Paper section 3.1: noise shared across the frames; in the reverse process start and step noise alike.
    """

    def __init__(
        self, seeds: Sequence[int], num_frames: int, frame_shape: Sequence[int], *, is_shared: bool, first_frame: int = 0
    ) -> None:
        self.num_frames, self.frame_shape, self.is_shared = num_frames, tuple(frame_shape), is_shared
        if is_shared:
            self._generators = [[make_generator("sample", seed)] for seed in seeds]
        else:
            frames = range(first_frame, first_frame + num_frames)
            self._generators = [[make_generator("sample", seed, frame) for frame in frames] for seed in seeds]

    def draw(self, device: torch.device | str) -> Float[Tensor, "images channels height width"]:
        """Draw the next noise for all frames of all clips, the clips' frames one after another.

        Args:
            device: Where the result lives.
        """
        clips = [
            torch.stack([torch.randn(self.frame_shape, generator=generator) for generator in generators]).expand(
                self.num_frames, *self.frame_shape
            )
            for generators in self._generators
        ]
        return to_device(torch.cat(clips), device)
