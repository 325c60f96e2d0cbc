"""Appearance augmentation: of whole training clips, or only of what the motion branch sees."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from divid.randomness import Randomness, to_device
from divid.types import Video

LOG_SCALE = 0.25
"""Largest change of a clip's width or height, as a logarithm: factors from 0.78 to 1.28."""
SHIFT = 0.1
"""Largest shift, as a share of the frame's side."""
SHEAR = 0.1
"""Largest horizontal shear."""
LOG_GAMMA = 0.5
"""Largest exponent of brightness, as a logarithm."""
LOG_CONTRAST = 0.3
"""Largest change of contrast, as a logarithm."""
BRIGHTNESS = 0.15
"""Largest change of brightness, as a share of the range."""
LOG_PROPORTION = 0.4
"""Largest change of the size of one part of the frame beside the others, as a logarithm: factors from 0.67 to 1.49."""
PARTS = 6
"""Parts of the frame's height, and of its width, that change their sizes separately."""
COLOUR_MIX = 0.5
"""Spread of the random colour matrix around the identity."""
_SHIFTS_ALONE = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0])
"""Of the amounts of `_warp`: neither scales nor shear."""


def augment_appearance(
    video: Video,
    randomness: Randomness,
    strength: float,
    purpose: str = "motion augmentation",
    *,
    colours: float = 1.0,
    sideways: float = 1.0,
    upwards: float = 1.0,
    proportions: float = 0.0,
    whole_pixels: bool = False,
) -> Video:
    """Change each clip's build, place and colours, all its frames alike, and leave what happens as it is.

    Of a whole training clip (`data.augmentation`), encoder and denoiser see the same changed clip: there are more people and
    places than the recordings have, and none to learn by heart. Of what the motion branch alone sees
    (`model.tokens.motion_augmentation`), the denoiser is asked for the unchanged clip, so what the change takes away (how tall
    and broad, which colours, where) can come from the static token only. Left and right, which tell actions apart, stay as they
    are.

    Args:
        video: Clips in [-1, 1].
        randomness: The step's; every clip has draws of its own.
        strength: 1: the ranges of this module's constants; 0: nothing changes.
        purpose: Name of the draws; equal names give equal changes.
        colours: Strength of the change of colours as a factor of `strength`; build changes by that alone.
        sideways: Strength of the change of place to the left or right, as such a factor; 0 leaves that place to the motion.
        upwards: The same of the change of place up or down. Where everybody stands on one floor, the feet would tell without it
            how much a clip was scaled, and so how tall its person is.
        proportions: Strength of the change of proportions as such a factor: parts of the frame's height, and of its width, grow
            or shrink at the expense of the others, as long legs and broad shoulders do, which no scale of the whole hides.
        whole_pixels: Whether shifts are of whole pixels, as those of `move_along` are.

    Returns:
        Clips of the same shape, in [-1, 1].

    Source:
        `docs/method.md`, "Identity in the dynamic tokens". Not in the paper.
    """
    if not strength:
        return video
    amounts = to_device(_amounts(randomness, strength, purpose, sideways, upwards), video.device)
    mix = None
    if video.shape[2] == 3:
        mix = to_device(randomness.normal(f"{purpose} colours", (3, 3)), video.device) * (strength * colours)
    sizes = None
    if proportions:
        draws = randomness.uniform(f"{purpose} proportions", (2, PARTS)) * 2 - 1
        sizes = to_device(draws * (strength * proportions * LOG_PROPORTION), video.device).exp()
    return _recolour(_warp(video, amounts[:, :5], whole_pixels, sizes), amounts[:, 5:] * colours, mix)


def move_along(
    video: Video,
    randomness: Randomness,
    strength: float,
    purpose: str = "motion augmentation",
    *,
    sideways: float = 1.0,
    upwards: float = 1.0,
) -> Video:
    """Shift each clip as `augment_appearance` of the same arguments does with `whole_pixels`, and change nothing else.

    Where the denoiser is asked for this clip, the dynamic tokens, which see the changed one, tell where things are, and the
    static token, whose frame stays where it is, cannot.

    Args:
        video: Clips, or some frames of each.
        randomness: The step's.
        strength: As there.
        purpose: As there.
        sideways: As there; 0: no such shift.
        upwards: As there; 0: no such shift.

    Returns:
        Clips of the same shape.
    """
    if not strength or not (sideways or upwards):
        return video
    amounts = _amounts(randomness, strength, purpose, sideways, upwards)[:, :5] * _SHIFTS_ALONE
    return _warp(video, to_device(amounts, video.device), whole_pixels=True)


def _amounts(randomness: Randomness, strength: float, purpose: str, sideways: float, upwards: float) -> Float[Tensor, "batch 8"]:
    """Draw two scales, two shifts and a shear for `_warp`, then gamma, contrast and brightness for `_recolour`; on the CPU."""
    amounts = (randomness.uniform(purpose, (8,)) * 2 - 1) * strength
    amounts[:, 2] *= sideways
    amounts[:, 3] *= upwards
    return amounts


def _warp(
    video: Video, draws: Float[Tensor, "batch 5"], whole_pixels: bool, sizes: Float[Tensor, "batch 2 parts"] | None = None
) -> Video:
    """Scale, shift and shear, parts of width and height by their `sizes` too; what comes in from outside repeats the border."""
    scale_x, scale_y = (draws[:, i].mul(LOG_SCALE).exp() for i in (0, 1))
    shift_x, shift_y, shear = 2 * SHIFT * draws[:, 2], 2 * SHIFT * draws[:, 3], SHEAR * draws[:, 4]
    if whole_pixels:  # 2 is the frame's side
        height, width = video.shape[-2:]
        shift_x, shift_y = (shift_x * width / 2).round() * 2 / width, (shift_y * height / 2).round() * 2 / height
    nothing = torch.zeros_like(shear)
    theta = torch.stack([scale_x, shear, shift_x, nothing, scale_y, shift_y], dim=1).view(-1, 2, 3)
    stacked = video.flatten(1, 2)  # all frames of a clip as channels of one picture: they move alike
    grid = functional.affine_grid(theta.to(video.dtype), list(stacked.shape), align_corners=False)
    if sizes is not None:
        grid = torch.stack([_resize_parts(grid[..., i], sizes[:, i].to(grid.dtype)) for i in (0, 1)], dim=-1)
    warped = functional.grid_sample(stacked, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return warped.unflatten(1, video.shape[1:3])


def _resize_parts(places: Float[Tensor, "batch h w"], sizes: Float[Tensor, "batch parts"]) -> Float[Tensor, "batch h w"]:
    """Map places along one side of the frame, from -1 to 1, so that equal parts of it show parts of these sizes; ends stay."""
    ends = 2 * torch.cumsum(sizes, dim=1) / sizes.sum(dim=1, keepdim=True) - 1
    edges = functional.pad(ends, (1, 0), value=-1.0)
    number = sizes.shape[1]
    position = ((places.clamp(-1, 1) + 1) / 2 * number).flatten(1)
    part = position.floor().clamp(0, number - 1).long()
    before, after = edges.gather(1, part), edges.gather(1, part + 1)
    inside = (before + (position - part) * (after - before)).view_as(places)
    return torch.where(places.abs() > 1, places, inside)


def _recolour(video: Video, draws: Float[Tensor, "batch 3"], mix: Float[Tensor, "batch 3 3"] | None) -> Video:
    """Mix the colours, then change gamma, contrast and brightness."""
    picture = (video + 1) / 2
    if mix is not None:
        matrix = torch.eye(3, device=video.device) + COLOUR_MIX * mix
        picture = torch.einsum("bij,bfjhw->bfihw", matrix.to(video.dtype), picture)
    gamma, contrast = (draws[:, i].mul(width).exp() for i, width in ((0, LOG_GAMMA), (1, LOG_CONTRAST)))
    brightness = BRIGHTNESS * draws[:, 2]
    gamma, contrast, brightness = (value[:, None, None, None, None].to(video.dtype) for value in (gamma, contrast, brightness))
    picture = picture.clamp(0, 1) ** gamma
    mean = picture.mean(dim=(1, 2, 3, 4), keepdim=True)
    return ((picture - mean) * contrast + mean + brightness).clamp(0, 1) * 2 - 1
