"""Tokens on a grid: what rounding keeps, what a code costs, and that training blurs as rounding does."""

import dataclasses
import math

import pytest
import torch

from divid.augmentation import move_along
from divid.diffusion.objective import token_distance
from divid.errors import ConfigError
from divid.models.divid import DividModel
from divid.models.token_grid import FIRST_SCALE, FIRST_STEP, SPEED, TokenGrid
from small_model import SMALL, make_model, step, video

RATE = {"kind": "rate"}


def grid_of(steps, scales, centres):
    grid = TokenGrid(len(steps))
    with torch.no_grad():
        grid.step.copy_(torch.tensor(steps).log() / SPEED)
        grid.scale.copy_(torch.tensor(scales).log() / SPEED)
        grid.centre.copy_(torch.tensor(centres))
    return grid


def test_rounding_goes_to_the_nearest_multiple_around_the_centre():
    grid = grid_of([0.5, 2.0], [1.0, 1.0], [0.1, -1.0])
    tokens = torch.tensor([[0.34, 0.9], [0.36, 1.1], [-1.0, -1.9]])
    expected = torch.tensor([[0.1, 1.0], [0.6, 1.0], [-0.9, -1.0]])
    torch.testing.assert_close(grid.round(tokens), expected)


def test_what_varies_by_less_than_half_a_cell_is_gone():
    grid = grid_of([1.0], [1.0], [0.0])
    codes = grid.round(0.49 * torch.linspace(-1, 1, 9)[:, None])
    assert (codes == 0).all()


def test_bits_are_the_code_length_of_the_cell():
    step, scale, centre = 0.5, 0.7, 0.3
    grid = grid_of([step], [scale], [centre])
    cells = centre + step * torch.arange(-20, 21, dtype=torch.float64)
    upper, lower = ((cells - centre + side * step / 2) / scale for side in (1, -1))
    probabilities = torch.special.expit(upper) - torch.special.expit(lower)
    torch.testing.assert_close(grid.bits(cells.float()[:, None]).double(), -probabilities.log2(), rtol=1e-3, atol=1e-3)
    assert (2.0 ** -grid.bits(cells.float()[:, None])).sum().item() == pytest.approx(1, abs=1e-4)


def test_bits_are_summed_over_a_token_and_stay_finite_far_out():
    grid = grid_of([0.1, 3.0], [1e-3, 50.0], [0.0, 0.0])
    one, other = (grid_of([s], [b], [0.0]).bits(torch.tensor([[x]])) for s, b, x in ((0.1, 1e-3, 900.0), (3.0, 50.0, -1e5)))
    bits = grid.bits(torch.tensor([[900.0, -1e5]]))
    assert bits.isfinite().all()
    torch.testing.assert_close(bits, one + other)


def test_a_number_that_is_always_at_the_centre_of_a_wide_cell_costs_nothing():
    assert grid_of([1.0], [0.02], [0.5]).bits(torch.tensor([[0.5]])).item() < 1e-6


def test_blur_stays_within_half_a_cell_and_has_gradients():
    grid = grid_of([0.5, 2.0], [1.0, 1.0], [0.0, 0.0])
    tokens = torch.randn(1000, 2, requires_grad=True)
    blurred = grid.blur(tokens, torch.rand(1000, 2))
    moved = (blurred - tokens).detach().abs().amax(0)
    assert (moved <= torch.tensor([0.25, 1.0])).all()
    assert (moved > torch.tensor([0.24, 0.98])).all()
    blurred.sum().backward()
    assert (tokens.grad == 1).all()


def test_codes_of_a_model_lie_on_its_grids():
    model = make_model(bottleneck=RATE).eval()
    plain = make_model().eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    codes, unrounded = model.encode(video()), plain.encode(video())
    for grid, tokens, loose in (
        (model.static_grid, codes.static, unrounded.static),
        (model.dynamic_grid, codes.dynamic, unrounded.dynamic),
    ):
        torch.testing.assert_close(tokens, grid.round(tokens))
        assert 0 < (tokens - loose).abs().max() <= FIRST_STEP / 2 + 1e-6


def test_the_loss_pays_for_the_bits_of_one_static_token_and_of_a_frames_dynamic_one():
    prices = {}
    for shares in ((1.0, 0.0), (0.0, 1.0), (0.25, 2.0)):
        model = make_model(bottleneck={**RATE, "static_share": shares[0], "dynamic_share": shares[1]})
        prices[shares] = model.losses(video(), step())["bottleneck"].item()
    assert prices[0.25, 2.0] == pytest.approx(0.25 * prices[1.0, 0.0] + 2 * prices[0.0, 1.0], rel=1e-5)
    centre = -math.log2(math.tanh(FIRST_STEP / FIRST_SCALE / 4))  # what a number at the centre costs
    assert prices[1.0, 0.0] > 12 * centre
    assert prices[0.0, 1.0] > 6 * centre
    model = make_model(bottleneck={**RATE, "beta": 0.5})
    terms = model.losses(video(), step())
    expected = terms["simple"] + 0.1 * terms["orthogonality"] + 0.5 * terms["bottleneck"]
    assert terms["total"].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(("number", "is_priced"), [(49, False), (50, True)])
def test_the_price_begins_after_its_share_of_the_training(number, is_priced):
    bottleneck = dataclasses.replace(SMALL.bottleneck, kind="rate", start=0.5)
    model = DividModel(dataclasses.replace(SMALL, num_train_steps=100, bottleneck=bottleneck))
    terms = model.losses(video(), step(number=number))
    assert (terms["bottleneck"].item() > 0) == is_priced
    terms["total"].backward()
    weights = [*model.static_grid.parameters(), *model.dynamic_grid.parameters()]
    moves = [weight.grad.abs().max().item() > 0 for weight in weights]
    assert all(moves) if is_priced else not any(moves)


def test_bottleneck_start_is_a_share():
    with pytest.raises(ConfigError, match=r"model\.bottleneck\.start is 2"):
        make_model(bottleneck={**RATE, "start": 2.0})


def test_token_distance_is_in_units_of_the_variance():
    draws = torch.Generator().manual_seed(0)
    one, other = (torch.randn(4000, 3, generator=draws) * torch.tensor([1.0, 10.0, 0.1]) for _ in range(2))
    assert token_distance(one, one.clone()).item() == 0
    assert token_distance(one, other).item() == pytest.approx(1, abs=0.05)
    assert token_distance(one, one + 0.1 * other).item() == pytest.approx(0.005, rel=0.1)
    assert token_distance(7 * one, 7 * other).item() == pytest.approx(token_distance(one, other).item(), rel=1e-5)


LEVERS = {"motion_augmentation": 1.0, "back_translation": 1.0, "back_translation_start": 0.0}


def test_invariance_compares_tokens_of_the_clip_as_it_is_and_as_it_was_seen():
    weights = {"dynamic_invariance": 0.5, "static_invariance": 0.25}
    model = make_model(tokens={**LEVERS, **weights})
    terms = model.losses(video(), step())
    assert terms["dynamic_invariance"].item() > 0.01
    assert terms["static_invariance"].item() > 0.01
    expected = terms["simple"] + 0.1 * terms["orthogonality"]
    expected += 0.5 * terms["dynamic_invariance"] + 0.25 * terms["static_invariance"]
    assert terms["total"].item() == pytest.approx(expected.item(), rel=1e-6)
    plain = make_model(tokens=LEVERS).losses(video(), step())
    assert plain["simple"].item() == pytest.approx(terms["simple"].item(), rel=1e-5)
    assert not any("invariance" in name for name in plain)


def test_a_static_token_that_sees_the_same_frame_has_no_distance():
    tokens = {"motion_augmentation": 1.0, "static_source": "random", "static_invariance": 1.0, "dynamic_invariance": 1.0}
    terms = make_model(tokens=tokens).losses(video(), step())
    assert terms["static_invariance"].item() < 1e-9
    assert terms["dynamic_invariance"].item() > 0.01


def test_a_static_token_may_be_compared_with_that_of_any_other_frame():
    tokens = {"motion_augmentation": 1.0, "static_source": "random", "static_invariance": 1.0, "static_invariance_frame": "other"}
    model = make_model(tokens=tokens)
    randomness, clips = step(), video()
    frames = (randomness.uniform("compared static frame") * clips.shape[1]).long()
    seen = (randomness.uniform("static frame") * clips.shape[1]).long()
    assert not torch.equal(frames, seen)
    terms = model.losses(clips, randomness)
    features = model.frame_features(clips)
    one, other = (model._tokens(features, choice).codes.static for choice in (seen, frames))
    assert terms["static_invariance"].item() == pytest.approx(token_distance(one, other).item(), rel=1e-4)
    assert terms["static_invariance"].item() > 0.01
    still = clips[:, :1].expand_as(clips).contiguous()
    assert model.losses(still, randomness)["static_invariance"].item() < 1e-9


def test_tokens_are_compared_with_those_of_the_clip_that_is_asked_for(monkeypatch):
    tokens = {"motion_augmentation": 1.0, "motion_augmentation_target": "sideways", "dynamic_invariance": 1.0}
    model = make_model(tokens=tokens)
    seen, encode = [], model.frame_features
    monkeypatch.setattr(model, "frame_features", lambda clips: seen.append(clips) or encode(clips))
    randomness = step()
    model.losses(video(), randomness)
    compared = seen[0][:, -video().shape[1] :]
    assert torch.equal(compared, move_along(video(), randomness, 1.0, upwards=0.0))
    assert not torch.equal(compared, video())


def test_held_out_losses_know_no_invariance():
    model = make_model(tokens={**LEVERS, "dynamic_invariance": 1.0})
    with torch.no_grad():
        terms = model.losses(video(), step())
    assert "dynamic_invariance" not in terms


def test_invariances_have_ranges():
    for name in ("dynamic_invariance", "static_invariance"):
        with pytest.raises(ConfigError, match=rf"model\.tokens\.{name} is -1"):
            make_model(tokens={name: -1.0})
