"""Attention inside the U-Net, by whichever kernel is quickest; all of them give the same numbers to float tolerance."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor
from torch.nn import functional

from divid.models.cpu_blocks import is_float32_on_cpu, linear

MOST_SCORES = 128 * 128
"""Query-key pairs a frame and head up to which plain matrix products beat the fused attention kernel on a CPU (`bench/`)."""

FUSED_WIDTH = 16
"""Width of a head from which the fused kernel for CPUs is quick in float32: 8 take half as long again as 16 do."""


class AttentionBySize:
    """On a CPU in float32: a context of two tokens by `PairAttention`, places among each other by `SelfAttention`.

    Everything else by the fused kernel or, where it is short (PyTorch's fused kernel for CPUs spends most of a training step on
    the gradient of attention to a context of two), by plain matrix products.
    """

    def __init__(self) -> None:
        self._plain, self._fused, self._pair, self._self = AttnProcessor(), AttnProcessor2_0(), PairAttention(), SelfAttention()

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **kwargs) -> Tensor:
        """Attend, with the arguments that diffusers hands to every attention processor."""
        return self._kernel(attn, hidden_states, encoder_hidden_states)(attn, hidden_states, encoder_hidden_states, **kwargs)

    def _kernel(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None) -> Any:
        if hidden_states.device.type != "cpu" or hidden_states.ndim != 3:
            return self._fused
        keys = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if is_float32_on_cpu(hidden_states):
            if encoder_hidden_states is None:
                return self._self
            if keys.shape[1] == 2:
                return self._pair
        return self._plain if hidden_states.shape[1] * keys.shape[1] <= MOST_SCORES else self._fused


class PairAttention:
    """Attention to two tokens, without queries: of a head's two scores only the difference counts, a product of x and one vector.

    With q = W_q x and keys k_0, k_1 the weight of the second is sigmoid(x . W_q' (k_1 - k_0) / sqrt(d)), and what a head adds to
    the result is W_o v_0 plus that weight times W_o (v_1 - v_0). So each place is multiplied by two matrices of (width, heads)
    instead of two of (width, width); results are the same to float tolerance.
    """

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Tensor:
        """Attend, with the arguments that diffusers hands to every attention processor.

        Args:
            attn: A transformer block's: without norms, masks or a straight path of its own.
            hidden_states: (images, places, width).
            encoder_hidden_states: (images, 2, context width).
        """
        heads, width = attn.heads, attn.inner_dim // attn.heads
        keys = attn.to_k(encoder_hidden_states).unflatten(-1, (heads, width))
        values = attn.to_v(encoder_hidden_states).unflatten(-1, (heads, width))
        queries = attn.to_q.weight.unflatten(0, (heads, width))
        directions = torch.einsum("bhd,hdc->bch", (keys[:, 1] - keys[:, 0]) * width**-0.5, queries)
        outputs = attn.to_out[0].weight.unflatten(1, (heads, width))
        changes = torch.einsum("bhd,chd->bhc", values[:, 1] - values[:, 0], outputs)
        of_first = functional.linear(values[:, 0].flatten(1), attn.to_out[0].weight, attn.to_out[0].bias)
        return torch.baddbmm(of_first[:, None], torch.sigmoid(torch.bmm(hidden_states, directions)), changes)


class SelfAttention:
    """Attention of places to each other: few by plain matrix products, many by the fused kernel, narrow heads with zeros beside.

    Heads are widened to `FUSED_WIDTH` by zeros, which change no score and no result: PyTorch's fused kernel for CPUs takes more
    time for heads of 8 numbers than for heads of 16.
    """

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: None = None, **_: Any) -> Tensor:
        """Attend, with the arguments that diffusers hands to every attention processor.

        Args:
            attn: A transformer block's: without norms, masks or a straight path of its own.
            hidden_states: (images, places, width).
            encoder_hidden_states: None, the places attend to each other.
        """
        width = attn.inner_dim // attn.heads
        query, key, value = (
            layer(hidden_states).unflatten(-1, (attn.heads, width)).transpose(1, 2) for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        if hidden_states.shape[1] ** 2 <= MOST_SCORES:
            attended = torch.softmax((query * width**-0.5) @ key.mT, dim=-1) @ value
        else:
            zeros = (0, max(0, FUSED_WIDTH - width))
            query, key, value = (functional.pad(part, zeros) if zeros[1] else part for part in (query, key, value))
            attended = functional.scaled_dot_product_attention(query, key, value, scale=width**-0.5)[..., :width]
        return linear(attended.transpose(1, 2).flatten(2), attn.to_out[0].weight, attn.to_out[0].bias)
