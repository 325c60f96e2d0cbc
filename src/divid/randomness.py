"""Every random draw as a function of (seed, step, place in the global batch).

A training step asks for its noise, time steps, dropout masks and frame choices here and nowhere else. So a resumed run equals an
unbroken one, and two processes equal one: neither generator states nor the number of processes enter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK_SLOTS = 64
"""Places of the global batch that are drawn in one call: a draw for each would keep a GPU waiting for its launches."""


def derive_seed(*parts: int | str) -> int:
    """Hash any integers and words to a 63-bit seed.

    Args:
        parts: What the seed depends on, in order.
    """
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def make_generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a generator seeded with `derive_seed(*parts)`.

    Args:
        parts: What the seed depends on.
        device: Where the generator lives; the stream differs between kinds of device.
    """
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """Copy values to a device, to a GPU without waiting until it has done all that it was told before.

    Args:
        values: On the CPU, or there already.
        device: Where they are wanted.
    """
    if torch.device(device).type == "cuda" and not values.is_cuda:
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


@dataclass(frozen=True)
class Randomness:
    """The randomness of one training step, for the clips that this process holds.

    Args:
        seed: The run's seed.
        step: The optimiser step.
        slots: Places of this process's clips in the global batch.
        num_slots: Size of the global batch over all processes.
    """

    seed: int
    step: int
    slots: tuple[int, ...]
    num_slots: int

    def normal(self, purpose: str, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Draw standard normal numbers, one independent block a clip.

        Args:
            purpose: Name of the draw; equal names give equal numbers.
            shape: Shape of one clip's block.
            device: Where to draw.

        Returns:
            A tensor of shape (clips, *shape).
        """
        return self._draw(torch.randn, purpose, shape, device)

    def uniform(self, purpose: str, shape: Sequence[int] = (), device: torch.device | str = "cpu") -> Tensor:
        """Draw numbers uniform in [0, 1), one independent block a clip; arguments as for `normal`."""
        return self._draw(torch.rand, purpose, shape, device)

    def stratified(self, purpose: str) -> Tensor:
        """Draw one number in [0, 1) a clip such that the global batch covers the interval evenly.

        The interval is cut into as many equal parts as there are clips, the parts are dealt out at random, and each clip draws
        uniformly within its own: every single draw is uniform, and the mean over the batch has far less variance.

        Args:
            purpose: Name of the draw.

        Returns:
            A CPU tensor of shape (clips,).
        """
        parts = torch.randperm(self.num_slots, generator=make_generator(self.seed, self.step, "deal", purpose))
        return (parts[list(self.slots)] + self.uniform(purpose)) / self.num_slots

    def step_uniform(self, purpose: str) -> float:
        """Draw one number in [0, 1) that all clips and all processes of this step share.

        Args:
            purpose: Name of the draw.
        """
        return torch.rand((), generator=make_generator(self.seed, self.step, "step", purpose)).item()

    def _draw(self, function, purpose: str, shape: Sequence[int], device: torch.device | str) -> Tensor:
        blocks = sorted({slot // BLOCK_SLOTS for slot in self.slots})
        drawn = [
            function(
                (min(BLOCK_SLOTS, self.num_slots - block * BLOCK_SLOTS), *shape),
                generator=make_generator(self.seed, self.step, "block", block, purpose, device=device),
                device=device,
            )
            for block in blocks
        ]
        rows = drawn[0] if len(drawn) == 1 else torch.cat(drawn)
        places = [blocks.index(slot // BLOCK_SLOTS) * BLOCK_SLOTS + slot % BLOCK_SLOTS for slot in self.slots]
        return rows if places == list(range(len(rows))) else rows[to_device(torch.tensor(places), device)]
