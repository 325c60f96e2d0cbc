"""Attention inside the U-Net, by whichever kernel is quickest; all of them give the same numbers to float tolerance."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor
from torch.nn import functional

MOST_SCORES = 128 * 128
"""Query-key pairs a frame and head up to which plain matrix products beat the fused attention kernel on a CPU (`bench/`)."""

FUSED_WIDTH = 16
"""Width of a head from which the fused kernel for CPUs is quick in float32: 8 take half as long again as 16 do."""


class AttentionBySize:
    """On a CPU: short contexts (such as two tokens) by plain matrix products, narrow heads with zeros beside them.

    PyTorch's fused kernel for CPUs spends most of a training step on the gradient of attention to a context of two, and more
    time on heads of 8 numbers than on heads of 16.
    """

    def __init__(self) -> None:
        self._plain, self._fused, self._widened = AttnProcessor(), AttnProcessor2_0(), WidenedAttention()

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **kwargs) -> Tensor:
        """Attend, with the arguments that diffusers hands to every attention processor."""
        return self._kernel(attn, hidden_states, encoder_hidden_states)(attn, hidden_states, encoder_hidden_states, **kwargs)

    def _kernel(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None) -> Any:
        if hidden_states.device.type != "cpu" or hidden_states.ndim != 3:
            return self._fused
        keys = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if hidden_states.shape[1] * keys.shape[1] <= MOST_SCORES:
            return self._plain
        is_single = hidden_states.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        is_narrow = attn.inner_dim // attn.heads < FUSED_WIDTH
        return self._widened if is_single and is_narrow and encoder_hidden_states is None else self._fused


class WidenedAttention:
    """Self-attention by the fused kernel, each head widened to `FUSED_WIDTH` by zeros, which change no score and no result."""

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: None = None, **_: Any) -> Tensor:
        """Attend, with the arguments that diffusers hands to every attention processor.

        Args:
            attn: A transformer block's: without norms, masks or a straight path of its own.
            hidden_states: (images, places, width).
            encoder_hidden_states: None, the places attend to each other.
        """
        width = attn.inner_dim // attn.heads
        query, key, value = (
            functional.pad(layer(hidden_states).unflatten(-1, (attn.heads, width)).transpose(1, 2), (0, FUSED_WIDTH - width))
            for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        attended = functional.scaled_dot_product_attention(query, key, value, scale=width**-0.5)
        return attn.to_out[0](attended[..., :width].transpose(1, 2).flatten(2))
