"""The conditional U-Net: noisy frames and two tokens in, the prediction out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from divid.model_parts import DenoiserConfig, TokenConfig
from divid.models.attention import AttentionBySize
from divid.models.cpu_blocks import quicken
from divid.models.sequence_encoder import keep_variance
from divid.models.token_canvas import TokenCanvas


class TokenContext(NamedTuple):
    """What the denoiser makes of a frame's two tokens; it is the same at every step t.

    Args:
        sequence: The projected, normalised tokens [s ; d_f], of shape (images, 2, attention_width).
        canvas: The map drawn from them, of shape (images, canvas_channels, side, side); None without one.
    """

    sequence: Float[Tensor, "images 2 width"]
    canvas: Float[Tensor, "images canvas_channels side side"] | None


def most_heads(channels: int, least_width: int) -> int:
    """Give the most heads into which channels divide evenly, none of them narrower than asked for; at least one.

    Args:
        channels: Width of all heads together.
        least_width: Of one.
    """
    return next(count for count in range(max(1, channels // least_width), 0, -1) if channels % count == 0)


class Denoiser(nn.Module):
    """Predict eps or v for single frames, each given the static token of its clip and its own dynamic token.

    With `cross_attention` the context of every transformer block is the two-token sequence [s ; d_f], each projected to the
    attention width by its own layer and normalised. With `adagn` the two, concatenated, are added to the time embedding, which
    scales and shifts the norms, at the finest level too, where there is no attention; with `both` they enter either way. With
    `canvas_channels` the U-Net also sees, beside the noisy frame, a map drawn from the two or, with `canvas_source`, from the
    dynamic one alone.

    Args:
        config: Widths, levels and conditioning, resolved.
        tokens: Token widths, resolved.
        image_size: Height and width of the frames.
        channels: 1 or 3.
        input_scale: Factor on x_t at each step t; None: 1.

    Source:
        Paper section 4.1, "Conditional Diffusion Model". Differs: the projected tokens are normalised; optional space-to-depth
        around the U-Net; x_t scaled; `adagn` and `both`; the canvas.
    """

    input_scale: Tensor | None

    def __init__(
        self,
        config: DenoiserConfig,
        tokens: TokenConfig,
        image_size: int,
        channels: int,
        input_scale: Float[Tensor, " timesteps"] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("input_scale", None if input_scale is None else input_scale.float(), persistent=False)
        assert config.channels and config.blocks_per_level and config.patch_size and config.attention_width
        assert config.attention_levels is not None and config.conditioning is not None and config.norm_groups
        assert tokens.static_dim and tokens.dynamic_dim
        self.patch_size = config.patch_size
        self.uses_cross_attention = config.conditioning != "adagn"
        self.uses_norms = config.conditioning != "cross_attention"
        attentive, plain = ("CrossAttn", "UNetMidBlock2DCrossAttn") if self.uses_cross_attention else ("Attn", "UNetMidBlock2D")
        levels = range(len(config.channels))
        width = config.attention_width
        self.static_projection = nn.Linear(tokens.static_dim, width)
        self.dynamic_projection = nn.Linear(tokens.dynamic_dim, width)
        keep_variance(self.static_projection)
        keep_variance(self.dynamic_projection)
        # Both tokens enter at one scale: a static token that has grown ten times larger drowns the dynamic ones.
        self.static_norm = nn.LayerNorm(width)
        self.dynamic_norm = nn.LayerNorm(width)
        side = image_size // config.patch_size
        self.canvas = TokenCanvas(config, tokens, side) if config.canvas_channels else None
        self.unet = UNet2DConditionModel(
            sample_size=side,
            in_channels=channels * config.patch_size**2 + config.canvas_channels,
            out_channels=channels * config.patch_size**2,
            block_out_channels=tuple(config.channels),
            layers_per_block=config.blocks_per_level,
            down_block_types=tuple(f"{attentive}DownBlock2D" if i in config.attention_levels else "DownBlock2D" for i in levels),
            up_block_types=tuple(
                f"{attentive}UpBlock2D" if i in config.attention_levels else "UpBlock2D" for i in reversed(levels)
            ),
            mid_block_type=plain,
            cross_attention_dim=width,
            attention_head_dim=self._heads(config),
            norm_num_groups=config.norm_groups,
            resnet_time_scale_shift="scale_shift",
            class_embed_type="simple_projection" if self.uses_norms else None,
            projection_class_embeddings_input_dim=2 * width if self.uses_norms else None,
        )
        self.unet.set_attn_processor(AttentionBySize())
        quicken(self.unet)

    def _heads(self, config: DenoiserConfig) -> int | tuple[int, ...]:
        """Give what diffusers calls `attention_head_dim`: for transformer blocks the number of heads, otherwise their width."""
        assert config.channels
        if not config.attention_head_width:
            return config.attention_heads
        heads = [most_heads(channels, config.attention_head_width) for channels in config.channels]
        if self.uses_cross_attention:
            return tuple(heads)
        return tuple(channels // count for channels, count in zip(config.channels, heads, strict=True))

    def forward(
        self,
        x_t: Float[Tensor, "images channels height width"],
        t: Int[Tensor, " images"],
        static: Float[Tensor, "images static_dim"],
        dynamic: Float[Tensor, "images dynamic_dim"],
    ) -> Float[Tensor, "images channels height width"]:
        """Give the prediction for each noisy frame.

        Args:
            x_t: Noisy frames.
            t: Their steps.
            static: s of each frame's clip.
            dynamic: d_f of each frame.
        """
        return self.predict(x_t, t, self.context(static, dynamic))

    def context(self, static: Float[Tensor, "images static_dim"], dynamic: Float[Tensor, "images dynamic_dim"]) -> TokenContext:
        """Prepare the tokens; a sampler does it once for all its steps.

        Args:
            static: s of each frame's clip.
            dynamic: d_f of each frame.
        """
        s = self.static_norm(self.static_projection(static))
        d = self.dynamic_norm(self.dynamic_projection(dynamic))
        canvas = None if self.canvas is None else self.canvas(static, dynamic)
        return TokenContext(torch.stack([s, d], dim=1), canvas)

    def predict(
        self, x_t: Float[Tensor, "images channels height width"], t: Int[Tensor, " images"], context: TokenContext
    ) -> Float[Tensor, "images channels height width"]:
        """Give the prediction for each noisy frame, from prepared tokens.

        Args:
            x_t: Noisy frames.
            t: Their steps.
            context: From `context`.
        """
        if self.input_scale is not None:
            x_t = x_t * self.input_scale[t][:, None, None, None].to(x_t.dtype)
        x = functional.pixel_unshuffle(x_t, self.patch_size)
        if context.canvas is not None:
            x = torch.cat([x, context.canvas.to(x.dtype)], dim=1)
        output = self.unet(
            x,
            t,
            encoder_hidden_states=context.sequence if self.uses_cross_attention else None,
            class_labels=context.sequence.flatten(1) if self.uses_norms else None,
            return_dict=False,
        )[0]
        return functional.pixel_shuffle(output, self.patch_size)
