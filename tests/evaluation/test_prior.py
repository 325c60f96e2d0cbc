"""The prior over codes where the truth is known: Gaussians, a linear recursion, and codes that hold exactly a label."""

import math
from dataclasses import replace

import pytest
import torch

from divid.errors import ConfigError, DatasetError, ModelError
from divid.evaluation.prior import DynamicPrior, PriorOptions, Whitening, fit_prior
from divid.types import Codes

SMALL = PriorOptions(hidden=32, components=3, num_steps=200, learning_rate=1e-2)
NORMAL_NATS = 0.5 * (1 + math.log(2 * math.pi))
"""Entropy of a standard normal number."""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def label_codes(count=90, num_frames=4):
    """One of three static values and one of three dynamic values a clip, the latter in every frame."""
    numbers = torch.arange(count)
    return Codes((numbers % 3)[:, None].float(), (numbers // 3 % 3).float()[:, None, None].expand(-1, num_frames, 1))


def recursive_tokens(count=400, num_frames=8, keep=0.9):
    """z_f = keep z_f-1 + sqrt(1 - keep^2) e, of variance 1 throughout."""
    noise = torch.randn(count, num_frames, 2, generator=generator())
    tokens = [noise[:, 0]]
    for f in range(1, num_frames):
        tokens.append(keep * tokens[-1] + math.sqrt(1 - keep**2) * noise[:, f])
    return torch.stack(tokens, dim=1)


@pytest.fixture(scope="module")
def labels():
    return fit_prior(label_codes(), replace(SMALL, components=8, num_steps=600))


@pytest.fixture(scope="module")
def recursion():
    static = torch.randn(400, 3, generator=generator(1))
    return fit_prior(Codes(static, recursive_tokens()), replace(SMALL, components=1, num_steps=400))


def test_whitened_numbers_are_independent_with_variance_1_and_come_back():
    mixing = torch.tensor([[2.0, 0.5, 0.0], [0.0, 1.0, 3.0], [1.0, 1.0, 1.0]])
    rows = torch.randn(500, 3, generator=generator()) @ mixing + 5
    whitening = Whitening(rows)
    numbers = whitening.whiten(rows)
    torch.testing.assert_close(torch.cov(numbers.T), torch.eye(3), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(whitening.restore(numbers), rows, rtol=1e-4, atol=1e-4)
    assert whitening.num_directions == 3
    assert whitening.explained == pytest.approx(1)


def test_only_directions_that_vary_are_kept():
    rows = torch.zeros(50, 4)
    rows[:, 1], rows[:, 2] = torch.linspace(-10, 10, 50), torch.linspace(-1, 1, 50).square()
    assert Whitening(rows).num_directions == 2
    assert Whitening(rows, variance=0.9).num_directions == 1
    assert Whitening(rows, max_directions=1).num_directions == 1
    assert Whitening(rows, variance=0.9).explained > 0.9


def test_what_does_not_vary_at_all_is_given_as_it_is():
    whitening = Whitening(torch.full((5, 3), 0.25))
    assert torch.equal(whitening.whiten(torch.full((2, 3), 0.25)), torch.zeros(2, 1))
    torch.testing.assert_close(whitening.restore(torch.randn(2, 1)), torch.full((2, 3), 0.25))


def test_static_samples_have_mean_and_covariance_of_the_codes():
    static = torch.randn(300, 3, generator=generator()) @ torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.0, 0.2]]) - 2
    prior = fit_prior(Codes(static, torch.randn(300, 2, 1, generator=generator(2))), replace(SMALL, num_steps=1))
    drawn = prior.sample_static(range(4000))
    torch.testing.assert_close(drawn.mean(0), static.mean(0), rtol=0.05, atol=0.08)
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(static.T), rtol=0.1, atol=0.1)


def test_with_fewer_clips_than_dimensions_samples_stay_in_the_span_of_the_codes():
    static = torch.randn(4, 10, generator=generator())
    prior = fit_prior(Codes(static, torch.randn(4, 2, 1)), replace(SMALL, num_steps=1))
    span = torch.linalg.svd(static - static.mean(0), full_matrices=False)[2][:3]
    drawn = prior.sample_static(range(20)) - static.mean(0)
    torch.testing.assert_close(drawn @ span.T @ span, drawn, rtol=1e-3, atol=1e-4)
    assert prior.facts["static_directions"] == 3


def test_the_density_of_one_component_is_a_normal_one():
    model = DynamicPrior(2, 4, 1)
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.constant_(model.head.bias, 0.0)
    tokens = torch.randn(3, 5, 2)
    normal = torch.distributions.Normal(torch.tensor(0.0), torch.tensor(math.exp(-0.5)))  # the middle of SCALE_RANGE
    torch.testing.assert_close(model.log_prob(tokens), normal.log_prob(tokens).sum((1, 2)))


def test_components_start_where_they_are_told_with_deviation_1():
    model, places = DynamicPrior(2, 4, 3), torch.tensor([[1.0, 2.0], [-1.0, 0.0], [0.5, 0.5]])
    torch.nn.init.zeros_(model.head.weight)
    model.start_at(places)
    _, means, scales, _ = model(torch.zeros(2, 5, 3))
    torch.testing.assert_close(means, places.expand(2, 5, -1, -1))
    torch.testing.assert_close(scales, torch.zeros(2, 5, 3, 2), rtol=0, atol=1e-6)


def test_the_density_of_a_token_does_not_depend_on_later_ones():
    model, tokens = DynamicPrior(2, 8, 3), torch.randn(2, 6, 2)
    changed = tokens.clone()
    changed[:, 4:] += 1
    with torch.no_grad():
        heads = [model(model._before(values))[1][:, :5] for values in (tokens, changed)]
    torch.testing.assert_close(heads[0], heads[1])


def test_independent_tokens_cost_the_entropy_of_a_normal_number():
    codes = Codes(torch.randn(400, 2), torch.randn(400, 5, 2, generator=generator()))
    facts = fit_prior(codes, replace(SMALL, components=1)).facts
    assert facts["nats_a_number_set_aside"] == pytest.approx(NORMAL_NATS, abs=0.1)


def test_a_linear_recursion_is_found(recursion):
    """Its entropy: a standard normal number first, then deviations of sqrt(1 - 0.81)."""
    expected = NORMAL_NATS + 7 / 8 * math.log(math.sqrt(1 - 0.81))
    assert recursion.facts["nats_a_number_set_aside"] == pytest.approx(expected, abs=0.12)
    drawn = recursion.sample_dynamic(range(1000), 8)
    assert drawn.shape == (1000, 8, 2)
    neighbours = torch.corrcoef(torch.stack([drawn[:, 4, 0], drawn[:, 5, 0]]))[0, 1].item()
    assert neighbours == pytest.approx(0.9, abs=0.05)
    assert drawn.std((0, 1)).tolist() == pytest.approx([1, 1], abs=0.2)


def test_codes_that_hold_exactly_the_label_are_drawn_again_as_labels(labels):
    drawn = labels.sample_dynamic(range(300), 4)[:, :, 0]
    assert (drawn - drawn.round()).abs().mean() < 0.15
    assert (drawn[:, 0].round() == drawn[:, -1].round()).float().mean() > 0.9  # a clip keeps its label
    shares = drawn[:, 0].round().clamp(0, 2).long().bincount(minlength=3) / 300
    assert shares.min() > 0.2


def test_seed_i_gives_sample_i_in_any_batch(labels):
    static, dynamic = labels.sample_static([3, 4, 5]), labels.sample_dynamic([3, 4, 5], 6)
    torch.testing.assert_close(labels.sample_static([5, 3]), static[[2, 0]])
    torch.testing.assert_close(labels.sample_dynamic([5, 3], 6), dynamic[[2, 0]])
    assert not torch.equal(static[0], static[1])


def test_fitting_repeats_by_its_seed_and_leaves_the_global_generator_alone():
    codes, before = label_codes(12), torch.get_rng_state()
    short = replace(SMALL, num_steps=3)
    one, same, other = (fit_prior(codes, options) for options in (short, short, replace(short, seed=1)))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.facts == same.facts
    assert torch.equal(one.sample_dynamic([0], 4), same.sample_dynamic([0], 4))
    assert not torch.equal(one.sample_dynamic([0], 4), other.sample_dynamic([0], 4))


def test_the_step_that_suits_the_clips_set_aside_is_kept():
    """Noise has nothing to learn: a wide net on few clips soon only learns them by heart, and is stopped before that."""
    codes = Codes(torch.randn(40, 2), torch.randn(40, 4, 6, generator=generator()))
    options = PriorOptions(hidden=128, components=4, num_steps=300, learning_rate=1e-3, set_aside=0.5)
    facts = fit_prior(codes, options).facts
    assert facts["num_set_aside"] == 20
    assert facts["step"] < 300
    assert facts["nats_a_number_set_aside"] < facts["nats_a_number"] + 0.4 < 2


def test_few_clips_are_all_trained_on_and_that_is_said():
    told = []
    prior = fit_prior(label_codes(6), replace(SMALL, num_steps=2), told=lambda *words: told.append(words))
    assert prior.facts["num_set_aside"] == 0
    assert prior.facts["nats_a_number_set_aside"] is None
    assert told == [("fitting the prior", 1, 2), ("fitting the prior", 2, 2)]
    text = prior.to_text()
    assert "fitted afterwards to the codes of 6 training clips and is no part of the method" in text


def test_what_cannot_be_fitted_is_refused():
    codes = label_codes(6)
    with pytest.raises(DatasetError, match="2 training clips or more, got 1"):
        fit_prior(Codes(codes.static[:1], codes.dynamic[:1]))
    with pytest.raises(ModelError, match="hold NaN"):
        fit_prior(Codes(codes.static * math.nan, codes.dynamic))
    with pytest.raises(ConfigError, match="set_aside of the prior is 1"):
        fit_prior(codes, replace(SMALL, set_aside=1))
