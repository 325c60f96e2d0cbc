"""Tokens between two tokens."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from divid.errors import ConfigError, nearest

InterpolationPath = Literal["linear", "slerp"]


def interpolate_tokens(
    first: Float[Tensor, "*axes dim"], second: Float[Tensor, "*axes dim"], share: float, path: str = "linear"
) -> Float[Tensor, "*axes dim"]:
    """Give the token at `share` of the way from one token to another.

    `slerp` turns the direction at constant speed and changes the length linearly; where two tokens are nearly parallel or
    opposite, or one is zero, the turn is undefined and the straight line is taken.

    Args:
        first: Tokens at share 0.
        second: Tokens at share 1.
        share: In [0, 1].
        path: `linear` or `slerp`.

    Raises:
        ConfigError: The path's name is unknown.
    """
    if path not in get_args(InterpolationPath):
        raise ConfigError(f"interpolation path is {path!r}{nearest(path, get_args(InterpolationPath))}")
    straight = torch.lerp(first, second, share)
    if path == "linear":
        return straight
    first_norm, second_norm = first.norm(dim=-1, keepdim=True), second.norm(dim=-1, keepdim=True)
    tiny = torch.finfo(first.dtype).tiny
    first_direction, second_direction = first / first_norm.clamp_min(tiny), second / second_norm.clamp_min(tiny)
    angle = (first_direction * second_direction).sum(dim=-1, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin()
    turned = (((1 - share) * angle).sin() * first_direction + (share * angle).sin() * second_direction) / sine.clamp_min(tiny)
    is_turning = (sine > 1e-3) & (first_norm > tiny) & (second_norm > tiny)
    return torch.where(is_turning, turned * torch.lerp(first_norm, second_norm, share), straight)


def resample_tokens(tokens: Float[Tensor, "batch frames dim"], num_frames: int) -> Float[Tensor, "batch new_frames dim"]:
    """Stretch or squeeze dynamic tokens in time, linearly between neighbours, ends on ends.

    Args:
        tokens: Dynamic tokens.
        num_frames: Frames wanted.
    """
    if tokens.shape[1] == num_frames:
        return tokens
    return torch.nn.functional.interpolate(tokens.mT, size=num_frames, mode="linear", align_corners=True).mT
