"""Every attention kernel gives the same numbers, and the one that is chosen is the one for that size."""

import pytest
import torch
from diffusers.models.attention_processor import Attention

from divid.models.attention import FUSED_WIDTH, AttentionBySize

KERNELS = {"plain": (10**6, 16), "widened": (0, 16), "fused": (0, 0)}
"""`MOST_SCORES` and `FUSED_WIDTH` under which each is chosen for the attention of 9 places, heads of 4 numbers."""


def attend(kernel: str, context_length: int | None, monkeypatch) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    attention = Attention(query_dim=16, cross_attention_dim=None if context_length is None else 12, heads=4, dim_head=4)
    attention.set_processor(AttentionBySize())
    places = torch.randn(3, 9, 16, requires_grad=True)
    context = None if context_length is None else torch.randn(3, context_length, 12)
    for name, value in zip(("MOST_SCORES", "FUSED_WIDTH"), KERNELS[kernel], strict=True):
        monkeypatch.setattr(f"divid.models.attention.{name}", value)
    result = attention(places, encoder_hidden_states=context)
    return result, *torch.autograd.grad(result.square().sum(), [places, attention.to_k.weight, attention.to_v.weight])


@pytest.mark.parametrize("context_length", [None, 2])
@pytest.mark.parametrize("kernel", ["widened", "fused"])
def test_all_attention_kernels_give_the_same_numbers_and_gradients(context_length, kernel, monkeypatch):
    for plain, other in zip(*(attend(name, context_length, monkeypatch) for name in ("plain", kernel)), strict=True):
        torch.testing.assert_close(plain, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("places", "width", "context", "kernel"),
    [
        (128, 4, None, "AttnProcessor"),
        (129, 4, None, "WidenedAttention"),
        (129, FUSED_WIDTH, None, "AttnProcessor2_0"),
        (8192, 4, 2, "AttnProcessor"),
        (8193, 4, 2, "AttnProcessor2_0"),
    ],
)
def test_the_kernel_follows_the_context_and_the_heads(places, width, context, kernel, monkeypatch):
    used = []
    for name in ("AttnProcessor", "AttnProcessor2_0", "WidenedAttention"):
        monkeypatch.setattr(f"divid.models.attention.{name}", lambda name=name: lambda attn, x, *_, **__: used.append(name) or x)
    tokens = None if context is None else torch.zeros(1, context, 4)
    AttentionBySize()(Attention(query_dim=width, heads=1, dim_head=width), torch.zeros(1, places, width), tokens)
    assert used == [kernel]


def test_half_precision_is_left_to_the_fused_kernel(monkeypatch):
    monkeypatch.setattr("divid.models.attention.WidenedAttention", lambda: None)
    attention = Attention(query_dim=4, heads=1, dim_head=4, processor=AttentionBySize())
    with torch.autocast("cpu", torch.bfloat16):
        assert attention(torch.zeros(1, 129, 4)).dtype == torch.bfloat16
