"""The denoiser: tokens prepared once for all steps, tokens drawn as a map beside the noisy frame, and its attention kernels."""

import math

import pytest
import torch
from diffusers.models.attention_processor import Attention

from divid.errors import ConfigError
from divid.model_parts import DenoiserConfig, TokenConfig
from divid.models.denoiser import Denoiser, most_heads
from divid.models.token_canvas import ModulatedBlock, TokenCanvas, TokenWarp

TOKENS = TokenConfig(static_dim=6, dynamic_dim=4)
WIDTHS = {
    "blocks_per_level": 1,
    "attention_levels": (1,),
    "attention_width": 16,
    "attention_heads": 2,
    "conditioning": "cross_attention",
    "norm_groups": 4,
}


def config(**changes):
    return DenoiserConfig(**{"channels": (8, 16), "patch_size": 2, **WIDTHS, **changes})


def make(**changes):
    torch.manual_seed(0)
    return Denoiser(config(**changes), TOKENS, image_size=16, channels=3, input_scale=torch.linspace(1, 0, 1000)).eval()


def inputs(images=3):
    generator = torch.Generator().manual_seed(1)
    x_t = torch.randn(images, 3, 16, 16, generator=generator)
    return (
        x_t,
        torch.tensor([0, 500, 999]),
        torch.randn(images, 6, generator=generator),
        torch.randn(images, 4, generator=generator),
    )


@pytest.mark.parametrize("conditioning", ["cross_attention", "adagn", "both"])
@pytest.mark.parametrize("canvas_channels", [0, 5])
def test_tokens_may_be_prepared_once_for_all_steps(conditioning, canvas_channels):
    denoiser = make(conditioning=conditioning, canvas_channels=canvas_channels)
    x_t, t, static, dynamic = inputs()
    context = denoiser.context(static, dynamic)
    for shifted in (t, t.flip(0)):
        torch.testing.assert_close(denoiser.predict(x_t, shifted, context), denoiser(x_t, shifted, static, dynamic))


@pytest.mark.parametrize("way", ["attn2", "class_embedding"])
def test_with_both_each_way_of_the_tokens_has_a_say(way):
    denoiser = make(conditioning="both")
    x_t, t, static, dynamic = inputs()
    with torch.no_grad():
        for name, weight in denoiser.unet.named_parameters():
            if way not in name and ("attn2" in name or "class_embedding" in name):
                weight.zero_()
    changed = denoiser(x_t, t, static + 1, dynamic)
    assert (denoiser(x_t, t, static, dynamic) - changed).abs().mean() > 1e-4


def test_without_a_canvas_the_tokens_enter_by_attention_alone():
    denoiser = make()
    x_t, _, static, dynamic = inputs()
    assert denoiser.canvas is None
    assert denoiser.context(static, dynamic).canvas is None
    assert denoiser.unet.config.in_channels == x_t.shape[1] * 4


@pytest.mark.parametrize("token", ["static", "dynamic"])
def test_the_prediction_at_pure_noise_follows_each_token_by_the_canvas(token):
    """At the last step the network sees nothing of x_t here, and the attention is cut off: what is left is the canvas."""
    denoiser = make(canvas_channels=5)
    x_t, _, static, dynamic = inputs()
    changed = {"static": static, "dynamic": dynamic}
    changed[token] = changed[token] + 1
    context, other = denoiser.context(static, dynamic), denoiser.context(**changed)
    last = torch.full((3,), 999)
    first, second = (denoiser.predict(x_t, last, item._replace(sequence=context.sequence)) for item in (context, other))
    assert (first - second).abs().mean() > 1e-4
    again = denoiser.predict(x_t + 1, last, context)
    torch.testing.assert_close(again, first)


def test_the_canvas_has_places_of_its_own_and_the_networks_finest_size():
    canvas = TokenCanvas(config(canvas_channels=5), TOKENS, side=8)
    tokens = torch.randn(2, 10, generator=torch.Generator().manual_seed(2))
    drawn = canvas(*tokens.split([TOKENS.static_dim, TOKENS.dynamic_dim], dim=1))
    assert drawn.shape == (2, 5, 8, 8)
    assert drawn[..., 2:6, 2:6].std((2, 3)).min() > 1e-3


@pytest.mark.parametrize(("source", "moves"), [("both", True), ("dynamic", False)])
def test_the_static_token_has_no_say_in_a_canvas_of_the_dynamic_one(source, moves):
    denoiser = make(canvas_channels=5, canvas_source=source)
    static, dynamic = torch.randn(3, TOKENS.static_dim), torch.randn(3, TOKENS.dynamic_dim)
    first, second = (denoiser.context(s, dynamic) for s in (static, static + 1))
    assert first.canvas.equal(second.canvas) != moves
    assert not first.sequence.equal(second.sequence)
    assert not denoiser.context(static, dynamic + 1).canvas.equal(first.canvas)


def test_the_static_token_sets_the_channels_of_a_modulated_canvas():
    torch.manual_seed(0)
    canvas = TokenCanvas(config(canvas_channels=5, canvas_source="modulated"), TOKENS, side=8)
    static, dynamic = torch.randn(3, TOKENS.static_dim), torch.randn(3, TOKENS.dynamic_dim)
    assert canvas(static, dynamic).equal(canvas(-static, dynamic))  # nothing yet, at the start of a training
    blocks = [layer for layer in canvas.levels if isinstance(layer, ModulatedBlock)]
    assert blocks
    for block in blocks:
        torch.nn.init.normal_(block.modulation.weight)
    drawn = canvas(static, dynamic)
    assert not drawn.allclose(canvas(-static, dynamic), atol=1e-2)
    torch.testing.assert_close(canvas(5 * static, dynamic), drawn, rtol=1e-3, atol=1e-3)  # however long the token is


def test_a_modulated_block_has_the_same_scale_and_shift_at_every_place():
    torch.manual_seed(0)
    block = ModulatedBlock(8, 8, static_dim=6)
    for layer in (block.conv_1, block.conv_2):  # no place sees its neighbours
        layer.weight.data *= torch.zeros(3, 3).index_put((torch.tensor(1), torch.tensor(1)), torch.tensor(1.0))
    even, static = torch.randn(2, 8, 1, 1).expand(-1, -1, 4, 4), torch.randn(2, 6)
    before = block(even, static)
    torch.nn.init.normal_(block.modulation.weight)
    after = block(even, static)
    assert not after.allclose(before, atol=1e-2)
    torch.testing.assert_close(after, after[..., :1, :1].expand_as(after))


def test_a_warp_scales_and_shifts_the_map_and_draws_nothing():
    torch.manual_seed(0)
    warp = TokenWarp(TOKENS)
    static, dynamic = torch.randn(2, 6), torch.randn(2, 4)
    dot = torch.zeros(2, 3, 33, 33)
    dot[..., 15:18, 19:22] = 1
    torch.testing.assert_close(warp(dot, static, dynamic), dot, rtol=0, atol=1e-4)  # untrained, it changes nothing
    warp.output.bias.data = torch.tensor([math.log(0.5), 0.0, 0.0, 0.25])  # twice as broad, and a quarter of half the side up

    def place(x, dim):
        return (x.sum((1, dim)) * torch.arange(33.0)).sum(1) / x.sum((1, 2, 3)) - 16

    moved = warp(dot, static, dynamic)
    torch.testing.assert_close(moved.sum((1, 2, 3)), 2 * dot.sum((1, 2, 3)), rtol=0.1, atol=0)
    torch.testing.assert_close(place(moved, 2), torch.full((2,), 8.0), rtol=0, atol=0.1)
    torch.testing.assert_close(place(moved, 3), torch.full((2,), -33 / 8), rtol=0, atol=0.1)
    torch.nn.init.normal_(warp.output.weight)
    assert not torch.allclose(warp(dot, static, dynamic), moved, atol=1e-2)
    even = torch.randn(2, 3, 1, 1).expand(-1, -1, 33, 33)
    torch.testing.assert_close(warp(even, static, dynamic), even)  # no token has anything to draw with


def test_both_tokens_have_a_say_in_the_warp_of_a_map_of_one():
    _, _, static, dynamic = inputs()
    denoiser = make(canvas_channels=4, canvas_source="dynamic", canvas_warp=True)
    plain = denoiser.context(static, dynamic).canvas
    torch.testing.assert_close(denoiser.context(-static, dynamic).canvas, plain)
    torch.nn.init.normal_(denoiser.canvas.warp.output.weight)
    warped = denoiser.context(static, dynamic).canvas
    assert not torch.allclose(warped, plain, atol=1e-3)
    assert not torch.allclose(denoiser.context(-static, dynamic).canvas, warped, atol=1e-3)
    assert make(canvas_channels=4).canvas.warp is None


def test_heads_may_have_a_width_instead_of_a_number():
    def heads(**changes: object) -> set[tuple[int, int]]:
        unet = make(channels=(8, 16, 32), attention_levels=(1, 2), **changes).unet
        return {(module.to_q.in_features, module.heads) for module in unet.modules() if isinstance(module, Attention)}

    assert heads() == {(16, 2), (32, 2)}
    assert heads(attention_head_width=8) == {(16, 2), (32, 4)}
    assert {(16, 2), (32, 4)} <= heads(attention_head_width=8, conditioning="adagn")
    assert heads(attention_head_width=24) == {(16, 1), (32, 1)}


@pytest.mark.parametrize(("channels", "least", "heads"), [(48, 16, 3), (48, 32, 1), (40, 16, 2), (8, 16, 1), (14, 4, 2)])
def test_heads_divide_the_channels_evenly_and_none_is_narrower(channels, least, heads):
    assert most_heads(channels, least) == heads


def test_widths_that_the_canvas_cannot_normalise_are_named():
    with pytest.raises(ConfigError, match=r"channels holds 12, with a canvas every width must be a multiple of 8"):
        make(channels=(8, 12), canvas_channels=5)
    make(channels=(8, 12))
