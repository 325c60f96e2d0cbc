"""The shared parts: divergences against closed forms, the prior against LSTM cells, the backbones at every size."""

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from baselines.small_models import VARIANTS, make_model, video
from divid.baselines.networks import (
    DCGANDecoder,
    DCGANEncoder,
    SpatialAttention,
    UpsamplingDecoder,
    dcgan_widths,
    frozen_statistics,
    initialise_as_original,
)
from divid.baselines.vae import DynamicPrior, Gaussian, divergence, standard_divergence
from divid.model_parts import EncoderConfig
from divid.models.frame_encoder import FrameEncoder


def gaussian(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Gaussian(*torch.randn(2, *shape, generator=generator, dtype=torch.float64))


def normal(q):
    return Normal(q.mean, (0.5 * q.logvar).exp())


def test_standard_divergence_is_the_closed_form():
    q = gaussian(5, 7)
    expected = kl_divergence(normal(q), Normal(torch.zeros(5, 7), torch.ones(5, 7))).sum(1).mean()
    torch.testing.assert_close(standard_divergence(q), expected)
    zero = torch.zeros(2, 3)
    assert standard_divergence(Gaussian(zero, zero)) == 0


def test_divergence_is_the_closed_form_summed_over_frames():
    q, p = gaussian(4, 6, 3), gaussian(4, 6, 3, seed=1)
    torch.testing.assert_close(divergence(q, p), kl_divergence(normal(q), normal(p)).sum((1, 2)).mean())
    assert divergence(q, q).abs() < 1e-12
    zeros = torch.zeros_like(q.mean)
    torch.testing.assert_close(divergence(q, Gaussian(zeros, zeros)), standard_divergence(q))


def test_divergences_have_right_gradients():
    values = [x.requires_grad_() for q in (gaussian(2, 3, 2), gaussian(2, 3, 2, seed=1)) for x in (q.mean, q.logvar)]
    assert torch.autograd.gradcheck(lambda a, b, c, d: divergence(Gaussian(a, b), Gaussian(c, d)), values)
    assert torch.autograd.gradcheck(lambda a, b: standard_divergence(Gaussian(a, b)), values[:2])


def test_half_precision_is_summed_in_single():
    q = Gaussian(torch.full((1, 4000), 1.0, dtype=torch.bfloat16), torch.zeros(1, 4000, dtype=torch.bfloat16))
    assert standard_divergence(q).dtype == torch.float32
    assert standard_divergence(q).item() == 2000


def test_the_prior_is_two_stacked_lstm_cells_on_shifted_samples():
    prior, drawn = DynamicPrior(4, 8), torch.randn(3, 5, 4)
    cells = [nn.LSTMCell(4, 8), nn.LSTMCell(8, 8)]
    for layer, cell in enumerate(cells):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(cell, name).data.copy_(getattr(prior.cells, f"{name}_l{layer}"))
    states = [(torch.zeros(3, 8), torch.zeros(3, 8)) for _ in cells]
    given = prior(drawn)
    previous = torch.zeros(3, 4)
    for frame in range(5):
        states[0] = cells[0](previous, states[0])
        states[1] = cells[1](states[0][0], states[1])
        torch.testing.assert_close(given.mean[:, frame], prior.mean(states[1][0]))
        torch.testing.assert_close(given.logvar[:, frame], prior.logvar(states[1][0]))
        previous = drawn[:, frame]


def test_drawing_from_the_prior_follows_its_own_samples():
    prior, noise = DynamicPrior(4, 8), torch.randn(3, 6, 4)
    drawn = prior.draw(noise)
    torch.testing.assert_close(prior(drawn).draw(noise), drawn)


@pytest.mark.parametrize(("size", "widths"), [(8, [64]), (32, [64, 128, 256]), (64, [64, 128, 256, 512])])
def test_dcgan_at_other_sizes(size, widths):
    assert dcgan_widths(size) == widths
    frames = torch.rand(2, 3, size, size) * 2 - 1
    features = DCGANEncoder(size, 3, 10).eval()(frames)
    assert features.shape == (2, 10)
    assert features.abs().max() <= 1
    made = DCGANDecoder(size, 3, 7).eval()(torch.randn(2, 7))
    assert made.shape == frames.shape
    assert 0 <= made.min() <= made.max() <= 1


@pytest.mark.parametrize(("size", "patch"), [(16, 1), (32, 1), (32, 2), (64, 4)])
def test_the_upsampling_decoder_mirrors_divids_frame_encoder(size, patch):
    config = EncoderConfig(base_channels=8, blocks_per_level=1, patch_size=patch, feature_channels=3)
    encoder, decoder = FrameEncoder(config, size, 3), UpsamplingDecoder(config, size, 3, 7)
    assert decoder.input.out_features == encoder.num_features
    made = decoder(torch.randn(2, 7))
    assert made.shape == (2, 3, size, size)
    assert 0 <= made.min() <= made.max() <= 1
    downs = [layer for layer in encoder.levels if isinstance(layer, nn.Conv2d)]
    ups = [layer for layer in decoder.levels if isinstance(layer, nn.Upsample)]
    assert len(downs) == len(ups)


def test_spatial_attention_is_softmax_attention_over_places():
    layer, x = SpatialAttention(8), torch.randn(2, 8, 3, 5)
    queries, keys, values = layer.queries_keys_values(layer.norm(x)).flatten(2).chunk(3, dim=1)
    heads = []
    for q, k, v in zip(*(part.chunk(4, dim=1) for part in (queries, keys, values)), strict=True):
        heads.append(v @ (q.transpose(1, 2) @ k / 2**0.5).softmax(-1).transpose(1, 2))
    expected = x + layer.head(torch.cat(heads, dim=1).view_as(x))
    torch.testing.assert_close(layer(x), expected)


def test_the_original_initialisation():
    parts = nn.Sequential(nn.Conv2d(64, 64, 4), nn.ConvTranspose2d(64, 64, 4), nn.Linear(256, 256), nn.BatchNorm2d(4))
    before = parts[1].weight.clone()
    initialise_as_original(parts)
    for layer in (parts[0], parts[2]):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert (layer.bias == 0).all()
    assert torch.equal(parts[1].weight, before)
    assert (parts[3].weight == 1).all() and (parts[3].bias == 0).all()


def test_only_the_original_backbone_is_initialised_as_the_original():
    assert make_model("dbse", "dcgan").dynamic_mean.weight.std() < 0.02
    assert make_model("dbse", "divid").dynamic_mean.weight.std() > 0.1


def test_frozen_statistics_leave_the_running_ones_alone():
    model = make_model("dbse", "dcgan")
    before = {name: value.clone() for name, value in model.named_buffers()}
    with frozen_statistics(model):
        frozen = model.frame_features(video())
        torch.testing.assert_close(frozen[:1], model.frame_features(video()[:1]))  # each clip by itself
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert all(module.training for module in model.modules())
    model.frame_features(video())
    assert any(not torch.equal(value, before[name]) for name, value in model.named_buffers())


@pytest.mark.parametrize(("name", "backbone"), VARIANTS)
def test_pixel_errors_are_summed_on_the_scale_from_0_to_1(name, backbone):
    model = make_model(name, backbone)
    white, black = torch.ones(2, 3, 1, 16, 16), -torch.ones(2, 3, 1, 16, 16)
    torch.testing.assert_close(model.pixel_errors(white, black), torch.full((2, 3), 256.0))
    torch.testing.assert_close(model.pixel_errors(white, 0 * black), torch.full((2, 3), 64.0))
    absolute = make_model(name, backbone, pixel_loss="absolute")
    torch.testing.assert_close(absolute.pixel_errors(white, 0 * black), torch.full((2, 3), 128.0))
