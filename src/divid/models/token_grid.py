"""Tokens on a grid, and what they cost in bits: the explicit bottleneck `rate`."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

FIRST_STEP = 0.2
"""Spacing of the grid before training, where an encoder's tokens spread over about 1."""
FIRST_SCALE = 1.0
"""Scale of the logistic distribution of each number before training (its standard deviation is 1.8 times that)."""
SPEED = 10.0
"""How many times as fast as weights the logarithms of spacing and scale move: over orders of magnitude, in hundreds of steps."""


class TokenGrid(nn.Module):
    """Round each number of a token to a grid of its own, and price it.

    A token's mean tells a probe everything, however little it varies: probes rescale what they read, and noise that is only added
    in training is not there when they do. Rounding is: a number that stays within one cell is a constant, and what it said is
    gone. Spacing, centre and spread of each number are learned together with the encoder, so bits that the decoder does
    not miss are given up.

    Args:
        dim: Numbers of a token.

    Source:
        Not in the paper. Uniform noise in the place of rounding, and the code length under a learned distribution as its price:
        Balle et al., "End-to-end Optimized Image Compression" (2017), here with one logistic distribution a number.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.full((dim,), math.log(FIRST_STEP) / SPEED))
        self.scale = nn.Parameter(torch.full((dim,), math.log(FIRST_SCALE) / SPEED))
        self.centre = nn.Parameter(torch.zeros(dim))

    def round(self, tokens: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Put tokens on the grid, as codes are stored, compared and decoded.

        Args:
            tokens: The encoder's.
        """
        step = (SPEED * self.step).exp()
        return (self.centre + ((tokens.float() - self.centre) / step).round() * step).to(tokens.dtype)

    def blur(self, tokens: Float[Tensor, "*batch dim"], uniform: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Move tokens by up to half a cell, which is what rounding does to them, in a way that has gradients.

        Args:
            tokens: The encoder's.
            uniform: Draws from [0, 1).
        """
        return tokens.float() + (SPEED * self.step).exp() * (uniform - 0.5)

    def bits(self, tokens: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
        """Give the code length of tokens in bits: -log2 of the probability of the cell around each number, summed over them.

        Args:
            tokens: On the grid, or blurred.
        """
        scale, step = (SPEED * self.scale).exp(), (SPEED * self.step).exp()
        distance, half = (tokens.float() - self.centre) / scale, 0.5 * step / scale
        # log(sigmoid(u) - sigmoid(l)) for u - l = 2 half, without the difference of two numbers near 1
        nats = functional.softplus(-distance - half) + functional.softplus(distance - half) - torch.log(-torch.expm1(-2 * half))
        return nats.sum(-1) / math.log(2)
