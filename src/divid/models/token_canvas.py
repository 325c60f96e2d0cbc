"""The canvas: a feature map of a frame, drawn from its two tokens alone, beside which the denoiser sees the noisy frame."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from divid.errors import ConfigError
from divid.model_parts import DenoiserConfig, TokenConfig
from divid.models.frame_encoder import GROUPS, ResidualBlock

FIRST_CHANNELS = 64
"""Width of the coarsest map, which a linear layer makes of the tokens."""
WARP_HIDDEN = 128
"""Width of the layer between the tokens and the four numbers of a warp."""


class ModulatedBlock(ResidualBlock):
    """A residual block whose channels the static token scales and shifts, the same at every place.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        static_dim: Width of the static token.

    Source:
        Not in the paper. Style by scale and shift of normalised channels: Huang and Belongie, "Arbitrary Style Transfer in
        Real-time with Adaptive Instance Normalization" (2017).
    """

    def __init__(self, in_channels: int, out_channels: int, static_dim: int) -> None:
        super().__init__(in_channels, out_channels)
        self.modulation = nn.Linear(static_dim, 2 * out_channels)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self, x: Float[Tensor, "images channels height width"], static: Float[Tensor, "images static_dim"] | None = None
    ) -> Float[Tensor, "images out_channels height width"]:
        """Apply the block.

        Args:
            x: Feature maps.
            static: s of each one's clip, normalised; None: no scale and no shift.
        """
        if static is None:
            return super().forward(x)
        scale, shift = self.modulation(static)[:, :, None, None].chunk(2, dim=1)
        y = self.norm_2(self.conv_1(functional.silu(self.norm_1(x)))) * (1 + scale) + shift
        return self.straight(x) + self.conv_2(functional.silu(y))


class TokenWarp(nn.Module):
    """Scale and shift a feature map as the two tokens of its frame tell: how large and where, and nothing else.

    The dynamic token may show a body in another size, and at another place, than the static one knows of. Attention hands every
    place the same values and moves nothing; a map of both tokens moves everything, A's pose included. Four numbers can hold no
    pose.

    Args:
        tokens: Token widths, resolved.

    Source:
        Not in the paper. Maps resampled by predicted transformations: Jaderberg et al., "Spatial Transformer Networks" (2015).
    """

    def __init__(self, tokens: TokenConfig) -> None:
        super().__init__()
        assert tokens.static_dim and tokens.dynamic_dim
        self.static_norm, self.dynamic_norm = nn.LayerNorm(tokens.static_dim), nn.LayerNorm(tokens.dynamic_dim)
        self.hidden = nn.Linear(tokens.static_dim + tokens.dynamic_dim, WARP_HIDDEN)
        self.output = nn.Linear(WARP_HIDDEN, 4)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(
        self,
        x: Float[Tensor, "images channels height width"],
        static: Float[Tensor, "images static_dim"],
        dynamic: Float[Tensor, "images dynamic_dim"],
    ) -> Float[Tensor, "images channels height width"]:
        """Resample the maps; what comes in from outside repeats the border.

        Args:
            x: Maps.
            static: s of each frame's clip.
            dynamic: d_f of each frame.
        """
        told = torch.cat([self.static_norm(static), self.dynamic_norm(dynamic)], dim=1)
        numbers = self.output(functional.silu(self.hidden(told))).float()
        scale, shift = numbers[:, :2].exp(), numbers[:, 2:]
        theta = torch.cat([torch.diag_embed(scale), shift[:, :, None]], dim=2)
        grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
        warped = functional.grid_sample(x.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
        return warped.to(x.dtype)


class TokenCanvas(nn.Module):
    """Draw a feature map from the static token and one dynamic token, or from the dynamic one alone.

    Tokens have no places and a picture has: cross-attention hands each place the same two values, and the U-Net is left to find
    out where a body stands. Here a linear layer makes the coarsest map, in which every place has weights of its own, and residual
    blocks with the U-Net's widths bring it to the U-Net's finest resolution. With `modulated` the coarsest map is the dynamic
    token's, and the static one scales and shifts the channels of every block, at every place alike. With `canvas_warp` the
    finished map is scaled and shifted in its plane as both tokens tell.

    Args:
        config: The denoiser's widths and `canvas_channels`, resolved.
        tokens: Token widths, resolved.
        side: Height and width of the U-Net's finest map.

    Raises:
        ConfigError: A width is no multiple of `GROUPS`.

    Source:
        Not in the paper, whose tokens enter by cross-attention alone.
    """

    def __init__(self, config: DenoiserConfig, tokens: TokenConfig, side: int) -> None:
        super().__init__()
        assert config.channels and tokens.static_dim and tokens.dynamic_dim
        uneven = [width for width in config.channels if width % GROUPS]
        if uneven:
            raise ConfigError(
                f"model.denoiser.channels holds {uneven[0]}, with a canvas every width must be a multiple of {GROUPS}: "
                "change it, or set model.denoiser.canvas_channels to 0"
            )
        coarsest = side // 2 ** (len(config.channels) - 1)
        self.first_shape = (FIRST_CHANNELS, coarsest, coarsest)
        self.sees_static = config.canvas_source == "both"
        width = tokens.dynamic_dim + (tokens.static_dim if self.sees_static else 0)
        self.input = nn.Linear(width, FIRST_CHANNELS * coarsest**2)
        self.static_norm = nn.LayerNorm(tokens.static_dim) if config.canvas_source == "modulated" else None
        layers: list[nn.Module] = []
        current = FIRST_CHANNELS
        for level in reversed(range(len(config.channels))):
            if self.static_norm is None:
                layers.append(ResidualBlock(current, config.channels[level]))
            else:
                layers.append(ModulatedBlock(current, config.channels[level], tokens.static_dim))
            current = config.channels[level]
            if level > 0:
                layers.append(nn.Upsample(scale_factor=2.0, mode="nearest"))
        layers += [nn.GroupNorm(GROUPS, current), nn.SiLU(), nn.Conv2d(current, config.canvas_channels, 3, padding=1)]
        self.levels = nn.Sequential(*layers)
        self.warp = TokenWarp(tokens) if config.canvas_warp else None

    def forward(
        self, static: Float[Tensor, "images static_dim"], dynamic: Float[Tensor, "images dynamic_dim"]
    ) -> Float[Tensor, "images canvas_channels side side"]:
        """Draw the map.

        Args:
            static: s of each frame's clip; not looked at where the canvas's source is the dynamic token.
            dynamic: d_f of each frame.
        """
        tokens = torch.cat([static, dynamic], dim=1) if self.sees_static else dynamic
        x = self.input(tokens).unflatten(1, self.first_shape)
        style = None if self.static_norm is None else self.static_norm(static)
        for layer in self.levels:
            x = layer(x, style) if isinstance(layer, ModulatedBlock) else layer(x)
        return x if self.warp is None else self.warp(x, static, dynamic)
