"""Identities and closed forms of the forward process, in float64."""

import pytest
import torch

from divid.diffusion.schedule import (
    PIXEL_VARIANCE,
    add_noise,
    alphas_cumprod,
    input_scale,
    prediction_target,
    prediction_to_x_0,
    prior_divergence,
    signal_to_noise,
    timesteps_from_uniform,
)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_signal_falls_from_nearly_one_to_nearly_zero(schedule):
    abar = alphas_cumprod(schedule, 1000)
    assert abar.dtype == torch.float64
    assert abar[0] > 0.999
    assert abar[-1] < 1e-4
    assert (abar[1:] < abar[:-1]).all()
    assert (signal_to_noise(abar).diff() < 0).all()


def test_linear_schedule_is_ho_et_al():
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    torch.testing.assert_close(alphas_cumprod("linear", 1000), torch.cumprod(1 - betas, 0))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_gives_back_x_0(prediction_type):
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.randn(6, 3, 4, 4, dtype=torch.float64, generator=generator)
    noise = torch.randn(6, 3, 4, 4, dtype=torch.float64, generator=generator)
    abar_t = alphas_cumprod("cosine", 1000)[[0, 10, 100, 500, 900, 990]][:, None, None, None]
    x_t = add_noise(x_0, noise, abar_t)
    target = prediction_target(x_0, noise, abar_t, prediction_type)
    torch.testing.assert_close(prediction_to_x_0(target, x_t, abar_t, prediction_type), x_0, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("t", [0, 200, 500, 900])
def test_the_scaled_input_is_the_best_linear_estimate_of_the_clean_pixels(t):
    generator = torch.Generator().manual_seed(t)
    x_0, noise = torch.randn(2, 400_000, dtype=torch.float64, generator=generator)
    x_0 *= PIXEL_VARIANCE**0.5
    abar = alphas_cumprod("cosine", 1000)
    x_t = add_noise(x_0, noise, abar[t])
    regression = (x_t * x_0).mean() / x_t.square().mean()
    assert input_scale(abar)[t].item() == pytest.approx(regression.item(), abs=0.005)


def test_the_scaled_input_falls_with_the_signal():
    scale = input_scale(alphas_cumprod("cosine", 1000))
    assert (scale.diff() < 0).all()
    assert scale[0] > 0.99
    assert scale[-1] < 1e-3


def test_noising_keeps_unit_variance():
    generator = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn(2, 200_000, dtype=torch.float64, generator=generator)
    for t in (0, 300, 999):
        abar_t = alphas_cumprod("cosine", 1000)[t]
        assert add_noise(x_0, noise, abar_t).var().item() == pytest.approx(1, abs=0.02)


def test_prior_divergence_is_the_gaussian_closed_form():
    x_0 = torch.full((1, 1, 2, 2), 0.5)
    abar = torch.tensor([0.3], dtype=torch.float64)
    normal = torch.distributions.Normal
    q = normal(abar.sqrt() * 0.5, (1 - abar).sqrt())
    expected = 4 * torch.distributions.kl_divergence(q, normal(torch.zeros_like(abar), torch.ones_like(abar)))
    torch.testing.assert_close(prior_divergence(x_0, abar), expected)


def test_timesteps_cover_the_range():
    t = timesteps_from_uniform(torch.tensor([0.0, 0.4999, 0.99999994]), 1000)
    assert t.tolist() == [0, 499, 999]
