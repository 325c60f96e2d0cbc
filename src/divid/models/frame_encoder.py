"""The convolutional frame encoder E: each frame by itself to a short feature vector."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from divid.model_parts import EncoderConfig

GROUPS = 8
"""Groups of the group norms; every width of every preset is a multiple."""


class ResidualBlock(nn.Module):
    """Two normalised 3x3 convolutions beside a straight path.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm_1 = nn.GroupNorm(GROUPS, in_channels)
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm_2 = nn.GroupNorm(GROUPS, out_channels)
        self.conv_2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.straight = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Float[Tensor, "images channels height width"]) -> Float[Tensor, "images out_channels height width"]:
        """Apply the block."""
        y = self.conv_1(functional.silu(self.norm_1(x)))
        y = self.conv_2(functional.silu(self.norm_2(y)))
        return self.straight(x) + y


class FrameEncoder(nn.Module):
    """Encode single frames: residual levels, strided convolutions between them, a 1x1 convolution to few channels.

    Args:
        config: Widths, blocks and patch size, resolved.
        image_size: Height and width of the frames.
        in_channels: 1 or 3.

    Source:
        Paper section 4.1, "Image Encoder". Differs: optional space-to-depth instead of the first halvings.
    """

    def __init__(self, config: EncoderConfig, image_size: int, in_channels: int) -> None:
        super().__init__()
        assert config.base_channels and config.blocks_per_level and config.patch_size and config.feature_channels
        widths = [config.base_channels * m for m in config.multipliers]
        skipped = int(math.log2(config.patch_size))
        halves = [level >= skipped for level in range(len(widths) - 1)]
        self.patch_size = config.patch_size
        self.stem = nn.Conv2d(in_channels * config.patch_size**2, widths[0], 3, padding=1)
        layers: list[nn.Module] = []
        channels = widths[0]
        for level, width in enumerate(widths):
            for _ in range(config.blocks_per_level):
                layers.append(ResidualBlock(channels, width))
                channels = width
            if level < len(halves) and halves[level]:
                layers.append(nn.Conv2d(channels, channels, 3, stride=2, padding=1))
        self.levels = nn.Sequential(*layers)
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.head = nn.Conv2d(channels, config.feature_channels, 1)
        nn.init.kaiming_normal_(self.head.weight, nonlinearity="linear")
        side = image_size // config.patch_size // 2 ** sum(halves)
        self.num_features = config.feature_channels * side**2

    def forward(self, frames: Float[Tensor, "images channels height width"]) -> Float[Tensor, "images features"]:
        """Give h, flattened.

        Args:
            frames: In [-1, 1].
        """
        x = functional.pixel_unshuffle(frames, self.patch_size)
        x = self.levels(self.stem(x))
        return self.head(functional.silu(self.norm(x))).flatten(1)
