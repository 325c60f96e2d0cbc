"""Who shares which noise."""

import pytest
import torch

from divid.diffusion.noise import SamplingNoise, training_noise, training_timesteps
from divid.randomness import Randomness

SHAPE = (1, 4, 4)


def step(slots=(0, 1, 2, 3), num_slots=4, number=0):
    return Randomness(seed=0, step=number, slots=tuple(slots), num_slots=num_slots)


@pytest.mark.parametrize("is_shared", [True, False])
def test_training_noise_is_shared_within_a_clip_or_not(is_shared):
    noise = training_noise(step(), 5, SHAPE, is_shared=is_shared, device="cpu")
    assert noise.shape == (4, 5, *SHAPE)
    assert torch.equal(noise[:, 0], noise[:, 1]) is is_shared
    assert not torch.equal(noise[0], noise[1])


def test_two_processes_draw_what_one_would():
    whole = training_noise(step(), 3, SHAPE, is_shared=False, device="cpu")
    parts = [training_noise(step(slots), 3, SHAPE, is_shared=False, device="cpu") for slots in ((0, 1), (2, 3))]
    assert torch.equal(whole, torch.cat(parts))
    t = training_timesteps(step(), 3, 1000, is_shared=False, device="cpu")
    parts = [training_timesteps(step(slots), 3, 1000, is_shared=False, device="cpu") for slots in ((0, 1), (2, 3))]
    assert torch.equal(t, torch.cat(parts))


def test_separate_timesteps_are_stratified_over_the_global_batch():
    t = training_timesteps(step(range(10), 10), 2, 1000, is_shared=False, device="cpu")
    for frame in range(2):
        assert sorted((t[:, frame] // 100).tolist()) == list(range(10))


@pytest.mark.parametrize("is_shared", [True, False])
def test_shifted_timesteps_have_the_density_of_the_shift(is_shared):
    """With a = 3, t / T has the distribution function u / (3 - 2 u): half of the draws lie above 3/4."""
    draws = [training_timesteps(step(number=n), 4, 1000, is_shared=is_shared, device="cpu", shift=3.0) for n in range(500)]
    t = torch.stack(draws).float() / 1000
    assert (t > 0.75).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert (t < 0.2).float().mean().item() == pytest.approx(0.2 / 2.6, abs=0.02)
    assert t.max() < 1


def test_shared_timesteps_are_equal_within_a_clip():
    t = training_timesteps(step(), 5, 1000, is_shared=True, device="cpu")
    assert (t == t[:, :1]).all()
    assert len(t[:, 0].unique()) > 1


def test_steps_differ():
    first, second = (training_noise(step(number=n), 1, SHAPE, is_shared=True, device="cpu") for n in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("is_shared", [True, False])
def test_sampling_noise_depends_on_the_seed_alone(is_shared):
    alone = SamplingNoise([7], 4, SHAPE, is_shared=is_shared)
    batch = SamplingNoise([3, 7], 4, SHAPE, is_shared=is_shared)
    later = SamplingNoise([7], 2, SHAPE, is_shared=is_shared, first_frame=2)
    for _ in range(3):
        a, b, c = (noise.draw("cpu") for noise in (alone, batch, later))
        assert torch.equal(a, b[4:])
        assert torch.equal(a[2:], c)
        assert torch.equal(a[0], a[1]) is is_shared
        assert not torch.equal(b[0], b[4])
