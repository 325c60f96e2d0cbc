"""The trunks of the judge's architectures: networks that turn a clip into the features which its heads read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from divid.data.schema import KINDS
from divid.types import Video

Architecture = Literal["gru", "conv3d", "two_stream"]
ARCHITECTURES: tuple[str, ...] = get_args(Architecture)

WORKING_SIZE = 32
"""Larger frames are averaged down to this side: a judge looks for content, not for sharpness."""
FRAME_FEATURES = 128


class _GruTrunk(nn.Module):
    """A CNN on every frame, a bidirectional GRU over the frames, and the mean over time of both."""

    widths: ClassVar[dict[str, int]] = dict.fromkeys(KINDS, 384)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.frames = _frame_net(channels)
        self.recurrent = nn.GRU(FRAME_FEATURES, 128, batch_first=True, bidirectional=True)

    def forward(self, video: Video, moving: None = None) -> dict[str, Float[Tensor, "batch features"]]:
        features = self.frames(video.flatten(0, 1)).unflatten(0, video.shape[:2])
        return dict.fromkeys(KINDS, torch.cat([self.recurrent(features)[0].mean(1), features.mean(1)], dim=1))


class _TwoStreamTrunk(nn.Module):
    """The mean over single frames for the static factors; grey differences of neighbouring frames for the dynamic ones.

    Neither stream sees what the other judges by, colours or order, so what goes together in the training clips (this person alone
    does that action) misleads it less.
    """

    widths: ClassVar[dict[str, int]] = {"static": 128, "dynamic": 384}

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.frames = _frame_net(channels)
        self.differences = _GruTrunk(1)

    def forward(self, video: Video, moving: Video | None = None) -> dict[str, Float[Tensor, "batch features"]]:
        static = self.frames(video.flatten(0, 1)).unflatten(0, video.shape[:2]).mean(1)
        grey = (video if moving is None else moving).mean(2, keepdim=True)
        return {"static": static, "dynamic": self.differences(grey.diff(dim=1))["dynamic"]}


class _Conv3dTrunk(nn.Module):
    """Convolutions over frames, height and width together."""

    widths: ClassVar[dict[str, int]] = dict.fromkeys(KINDS, 256)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.clips = nn.Sequential(
            *_block(nn.Conv3d, nn.BatchNorm3d, channels, 24, (3, 5, 5), (1, 2, 2)),
            *_block(nn.Conv3d, nn.BatchNorm3d, 24, 48, 3, (1, 2, 2)),
            *_block(nn.Conv3d, nn.BatchNorm3d, 48, 96, 3, 2),
            nn.AdaptiveAvgPool3d((2, 4, 4)),
            nn.Flatten(),
            nn.Linear(96 * 32, self.widths["static"], bias=False),
            nn.BatchNorm1d(self.widths["static"]),
            nn.ReLU(),
        )

    def forward(self, video: Video, moving: None = None) -> dict[str, Float[Tensor, "batch features"]]:
        return dict.fromkeys(KINDS, self.clips(video.transpose(1, 2)))


TRUNKS: dict[str, Callable[[int], _GruTrunk | _Conv3dTrunk | _TwoStreamTrunk]] = {
    "gru": _GruTrunk, "conv3d": _Conv3dTrunk, "two_stream": _TwoStreamTrunk,
}  # fmt: skip
"""Architecture -> its trunk, made with the number of channels; `widths` tells how many features each kind of factor gets."""


def _frame_net(channels: int) -> nn.Sequential:
    return nn.Sequential(
        *_block(nn.Conv2d, nn.BatchNorm2d, channels, 32, 5, 2),
        *_block(nn.Conv2d, nn.BatchNorm2d, 32, 64, 3, 2),
        *_block(nn.Conv2d, nn.BatchNorm2d, 64, 128, 3, 2),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(128 * 16, FRAME_FEATURES, bias=False),
        nn.BatchNorm1d(FRAME_FEATURES),
        nn.ReLU(),
    )


def at_working_size(video: Video) -> Float[Tensor, "batch frames channels small small"]:
    """Average frames down to `WORKING_SIZE`; smaller ones stay as they are.

    Args:
        video: The clips.
    """
    if video.shape[-1] <= WORKING_SIZE:
        return video
    return functional.adaptive_avg_pool2d(video.flatten(0, 1), WORKING_SIZE).unflatten(0, video.shape[:2])


def _block(convolution: Any, norm: Any, inputs: int, outputs: int, kernel: Any, stride: Any) -> tuple[nn.Module, ...]:
    sizes = kernel if isinstance(kernel, tuple) else (kernel,)
    padding = tuple(size // 2 for size in sizes) if len(sizes) > 1 else sizes[0] // 2
    return convolution(inputs, outputs, kernel, stride, padding, bias=False), norm(outputs), nn.ReLU()
