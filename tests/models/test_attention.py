"""Every attention kernel gives the same numbers, and the one that is chosen is the one for that size."""

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor

from divid.models.attention import AttentionBySize, PairAttention, SelfAttention


def attention_layer(context_length: int | None) -> Attention:
    torch.manual_seed(0)
    layer = Attention(query_dim=16, cross_attention_dim=None if context_length is None else 12, heads=4, dim_head=4)
    return layer.requires_grad_()


def attend(processor, context_length: int | None) -> tuple[torch.Tensor, ...]:
    """Give the result, and the gradients of places, context and every weight."""
    layer = attention_layer(context_length)
    layer.set_processor(processor)
    places = torch.randn(3, 9, 16, requires_grad=True)
    context = None if context_length is None else torch.randn(3, context_length, 12, requires_grad=True)
    result = layer(places, encoder_hidden_states=context)
    inputs = [places, *layer.parameters()] if context is None else [places, context, *layer.parameters()]
    return result, *torch.autograd.grad(result.square().sum(), inputs)


@pytest.mark.parametrize("limits", [(10**6, 16), (0, 16), (0, 0)], ids=["products", "widened", "fused"])
def test_places_attend_to_each_other_as_by_diffusers(limits, monkeypatch):
    for name, value in zip(("MOST_SCORES", "FUSED_WIDTH"), limits, strict=True):
        monkeypatch.setattr(f"divid.models.attention.{name}", value)
    for ours, theirs in zip(attend(SelfAttention(), None), attend(AttnProcessor(), None), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_places_attend_to_two_tokens_as_by_diffusers():
    for ours, theirs in zip(attend(PairAttention(), 2), attend(AttnProcessor(), 2), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("context_length", [None, 2])
def test_sampling_gives_the_numbers_of_training(context_length):
    layer = attention_layer(context_length)
    layer.set_processor(AttentionBySize())
    places, context = torch.randn(3, 9, 16), None if context_length is None else torch.randn(3, 2, 12)
    in_training = layer(places, encoder_hidden_states=context)
    with torch.inference_mode():
        torch.testing.assert_close(layer(places, encoder_hidden_states=context), in_training, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("places", "context", "kernel"),
    [
        (128, None, "SelfAttention"),
        (8192, 2, "PairAttention"),
        (8192, 1, "AttnProcessor"),
        (16384, 1, "AttnProcessor"),
        (16385, 1, "AttnProcessor2_0"),
    ],
)
def test_the_kernel_follows_the_context(places, context, kernel, monkeypatch):
    used = []
    for name in ("AttnProcessor", "AttnProcessor2_0", "SelfAttention", "PairAttention"):
        monkeypatch.setattr(f"divid.models.attention.{name}", lambda name=name: lambda attn, x, *_, **__: used.append(name) or x)
    tokens = None if context is None else torch.zeros(1, context, 4)
    AttentionBySize()(Attention(query_dim=4, heads=1, dim_head=4), torch.zeros(1, places, 4), tokens)
    assert used == [kernel]


@pytest.mark.parametrize("context", [None, torch.zeros(1, 2, 4)])
def test_half_precision_is_left_to_diffusers(context, monkeypatch):
    for name in ("SelfAttention", "PairAttention"):
        monkeypatch.setattr(f"divid.models.attention.{name}", lambda: None)
    attention = Attention(query_dim=4, heads=1, dim_head=4, processor=AttentionBySize())
    with torch.autocast("cpu", torch.bfloat16):
        assert attention(torch.zeros(1, 129, 4), encoder_hidden_states=context).dtype == torch.bfloat16
