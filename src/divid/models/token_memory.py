"""Tokens of the clips of earlier steps, over which the two kinds of token are kept apart: a batch alone is too few."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def summarise_dynamic(dynamic: Float[Tensor, "clips frames dim"]) -> Float[Tensor, "clips features"]:
    """Give mean and standard deviation over the frames of d_1..F: what can be read of a clip whatever its length.

    Args:
        dynamic: d_1..F.
    """
    least = 1e-6  # the root's slope would be infinite where all frames have the same token
    return torch.cat([dynamic.mean(1), (dynamic.var(1, correction=0) + least**2).sqrt() - least], dim=1)


class TokenMemory:
    """The newest clips' tokens, without gradient; empty at first.

    It is no part of the weights, which are averaged and exported: a checkpoint keeps it by `state` and `restore`.

    Args:
        num_clips: Most clips that are remembered.
        static_dim: Width of s.
        dynamic_dim: Width of d.
    """

    def __init__(self, num_clips: int, static_dim: int, dynamic_dim: int) -> None:
        self.num_clips = num_clips
        self.static = torch.empty(0, static_dim)
        self.dynamic = torch.empty(0, 2 * dynamic_dim)

    def remember(self, static: Float[Tensor, "clips dim"], dynamic: Float[Tensor, "clips features"]) -> None:
        """Put clips in front; the oldest beyond `num_clips` are forgotten.

        Args:
            static: s.
            dynamic: As `summarise_dynamic` gives it.
        """
        earlier_static, earlier_dynamic = self.on(static.device)
        self.static = torch.cat([static.detach().float(), earlier_static])[: self.num_clips]
        self.dynamic = torch.cat([dynamic.detach().float(), earlier_dynamic])[: self.num_clips]

    def on(self, device: torch.device) -> tuple[Float[Tensor, "clips dim"], Float[Tensor, "clips features"]]:
        """Give what is remembered, static and dynamic.

        Args:
            device: Where it is wanted.
        """
        return self.static.to(device), self.dynamic.to(device)

    def state(self) -> dict[str, Tensor]:
        """Give what a checkpoint keeps."""
        return {"static": self.static, "dynamic": self.dynamic}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` gave.

        Args:
            state: From a checkpoint.
        """
        self.static, self.dynamic = state["static"], state["dynamic"]
