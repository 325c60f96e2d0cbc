"""The objective's terms where their values are known."""

import math

import pytest
import torch

from divid.diffusion.objective import (
    channel_divergence,
    channel_profile,
    channel_variance,
    orthogonality_loss,
    pseudo_huber_loss,
    simple_loss,
)
from divid.model_parts import BottleneckConfig


def test_simple_loss_is_the_mean_square():
    assert simple_loss(torch.zeros(2, 3), torch.full((2, 3), 2.0)).item() == 4


def test_huber_is_the_square_of_small_errors_and_linear_in_large_ones():
    nothing = torch.zeros(2, 3)
    assert pseudo_huber_loss(nothing, nothing, 0.1).item() == 0
    assert pseudo_huber_loss(nothing, torch.full((2, 3), 0.75), 1.0).item() == pytest.approx(2 * (1.25 - 1))
    small, large = (pseudo_huber_loss(nothing, torch.full((2, 3), error), 0.1).item() for error in (1e-3, -1e3))
    assert small == pytest.approx(1e-6, rel=1e-2)
    assert large == pytest.approx(2 * 0.1 * 1e3, rel=1e-3)


def test_huber_draws_what_is_uncertain_at_its_median():
    """An edge that lies here in three of four clips: the best single answer is near it, by the squared error three quarters."""
    seen = torch.tensor([1.0, 1.0, 1.0, -1.0])

    def best(loss):
        answers = torch.linspace(-1, 1, 401)
        return answers[torch.stack([loss(answer.expand(4), seen) for answer in answers]).argmin()].item()

    assert best(simple_loss) == pytest.approx(0.5, abs=0.01)
    assert best(lambda answer, target: pseudo_huber_loss(answer, target, 0.1)) > 0.9


def test_orthogonality_of_equal_and_of_orthogonal_tokens():
    s = torch.eye(4)[:2]
    assert orthogonality_loss(s, s[:, None].expand(-1, 3, -1) * -5).item() == pytest.approx(1)
    assert orthogonality_loss(s, torch.eye(4)[2:][:, None].expand(-1, 3, -1)).item() == pytest.approx(0, abs=1e-6)


def test_orthogonality_of_random_tokens_is_one_over_the_width():
    generator = torch.Generator().manual_seed(0)
    s = torch.randn(400, 256, generator=generator)
    d = torch.randn(400, 10, 256, generator=generator)
    assert orthogonality_loss(s, d).item() == pytest.approx(1 / 256, rel=0.05)


def test_orthogonality_at_unequal_widths_is_a_correlation():
    generator = torch.Generator().manual_seed(0)
    s = torch.randn(2000, 8, generator=generator)
    copied = s[:, None, :1].expand(-1, 2, -1)
    assert orthogonality_loss(s[:, :1].repeat(1, 2), copied).item() == pytest.approx(1, abs=1e-3)
    independent = torch.randn(2000, 2, 3, generator=generator)
    assert orthogonality_loss(s, independent).item() < 0.002


def test_chance_in_a_small_batch_is_not_punished():
    """Among 8 clips independent tokens correlate; a token that is the same for all clips would not, and must gain nothing."""
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(50):
        s, d = torch.randn(8, 16, generator=generator), torch.randn(8, 1, 12, generator=generator).expand(-1, 5, -1)
        values.append(orthogonality_loss(s, d).item())
        assert orthogonality_loss(s, torch.ones_like(d)).item() == 0
    assert sum(values) / 50 < 0.02 < 1 / 7


def test_neither_token_gains_by_shrinking_and_s_has_no_gradient_at_unequal_widths():
    s = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    d = torch.cat([s, s[:, :1]], dim=1)[:, None].expand(-1, 5, -1).clone().requires_grad_()
    s.requires_grad_()
    value = orthogonality_loss(s, d)
    value.backward()
    assert value.item() > 0.2
    assert s.grad is None
    assert d.grad is not None
    assert orthogonality_loss(1e-3 * s, 1e-3 * d).item() == pytest.approx(value.item(), rel=1e-3)


@pytest.mark.parametrize("kappa", [0.0, 0.7])
def test_channel_divergence_is_the_gaussian_closed_form(kappa):
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(3, 2, 5, generator=generator, dtype=torch.float64)
    logvar = torch.randn(3, 2, 5, generator=generator, dtype=torch.float64)
    weight = torch.rand(3, 2, 1, generator=generator, dtype=torch.float64)
    variance = channel_variance(logvar, kappa, weight)
    torch.testing.assert_close(variance, logvar.exp() + kappa * weight)
    normal = torch.distributions.Normal
    prior = normal(torch.zeros_like(mean), (1 + kappa * weight).sqrt().expand_as(mean))
    expected = torch.distributions.kl_divergence(normal(mean, variance.sqrt()), prior).sum(-1).mean()
    torch.testing.assert_close(channel_divergence(mean, variance, kappa, weight), expected)
    assert expected > 0


def test_a_wider_channel_tells_less():
    mean, logvar, weight = torch.ones(1, 1, 4), torch.zeros(1, 1, 4), torch.ones(1, 1, 1)
    values = [channel_divergence(mean, channel_variance(logvar, k, weight), k, weight).item() for k in (0, 1, 10)]
    assert values[0] > values[1] > values[2] > 0


def test_profiles():
    abar, progress = torch.tensor([0.9, 0.1]), torch.tensor([0.0, 1.0])
    expected = {"one_minus_abar": [0.1, 0.9], "linear": [0.0, 1.0], "constant": [1.0, 1.0]}
    for name, values in expected.items():
        weights = channel_profile(abar, BottleneckConfig(profile=name), progress)  # type: ignore[arg-type]
        assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(weights.tolist(), values, strict=True))
