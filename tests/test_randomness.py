"""Draws as functions of seed, step and place."""

import pytest
import torch

from divid.randomness import BLOCK_SLOTS, Randomness, to_device

MANY = 2 * BLOCK_SLOTS + 5


def step(slots, number=0, purpose="x"):
    return Randomness(seed=0, step=number, slots=tuple(slots), num_slots=MANY)


@pytest.mark.parametrize("draw", ["normal", "uniform"])
@pytest.mark.parametrize("slots", [[0], [BLOCK_SLOTS - 1, BLOCK_SLOTS], range(40, MANY), [MANY - 1, 3, BLOCK_SLOTS + 7]])
def test_some_places_have_what_all_places_have(draw, slots):
    whole = getattr(step(range(MANY)), draw)("x", (2, 3))
    torch.testing.assert_close(getattr(step(slots), draw)("x", (2, 3)), whole[list(slots)], rtol=0, atol=0)
    assert whole.shape == (MANY, 2, 3)


def test_places_steps_and_purposes_have_numbers_of_their_own():
    whole = step(range(MANY)).uniform("x")
    assert len(whole.unique()) == MANY
    others = step(range(MANY), number=1).uniform("x"), step(range(MANY)).uniform("y")
    assert not any(torch.isin(other, whole).any() for other in others)


def test_what_is_on_its_device_stays_there():
    values = torch.arange(3)
    assert to_device(values, "cpu") is values
