"""Solvers against a case whose answer is known, and what they share."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from divid.config import SamplingConfig
from divid.diffusion.noise import SamplingNoise
from divid.diffusion.sampling import make_scheduler, sample_frames, spaced_timesteps
from divid.diffusion.schedule import alphas_cumprod
from divid.errors import ConfigError
from divid.model_parts import DiffusionConfig

SOLVERS = ["ddpm", "ddim", "dpmsolver++", "unipc"]
SPACINGS = ["trailing", "power"]
SHAPE = (1, 4, 4)


def diffusion(prediction_type="v_prediction", schedule="cosine"):
    return DiffusionConfig(prediction_type=prediction_type, schedule=schedule, shared_training=False)


def perfect_denoiser(x_0, config):
    """Predict as a network would that knows the one clean frame there is."""
    abar = alphas_cumprod(config.schedule, config.num_train_timesteps).float()

    def denoise(x_t, t):
        noise = (x_t - abar[t].sqrt() * x_0) / (1 - abar[t]).sqrt()
        if config.prediction_type == "epsilon":
            return noise
        return abar[t].sqrt() * noise - (1 - abar[t]).sqrt() * x_0

    return denoise


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("prediction_type", "schedule"), [("v_prediction", "cosine"), ("epsilon", "linear")])
def test_every_solver_walks_to_the_only_clean_frame(solver, prediction_type, schedule):
    config = diffusion(prediction_type, schedule)
    x_0 = torch.linspace(-0.9, 0.9, 16).view(1, *SHAPE)
    noise = SamplingNoise([0], 1, SHAPE, is_shared=True)
    sampling = SamplingConfig(solver=solver, num_inference_steps=20)
    sample = sample_frames(perfect_denoiser(x_0, config), noise, config, sampling, device="cpu")
    torch.testing.assert_close(sample, x_0, atol=0.02, rtol=0)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 4, 10])
def test_steps_begin_at_pure_noise(solver, steps):
    scheduler = make_scheduler(diffusion(), SamplingConfig(solver=solver, num_inference_steps=steps))
    assert len(scheduler.timesteps) == steps
    assert scheduler.timesteps[0] == 999


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("total", [20, 50, 1000])
def test_steps_fall_from_the_noisiest_and_none_comes_twice(spacing, total):
    for number in (1, 2, 3, 4, 10, 19, 20, 200, 999, 1000):
        if number <= total:
            steps = spaced_timesteps(number, total, spacing)
            assert (len(steps), steps[0], min(steps) >= 0) == (number, total - 1, True)
            assert all(earlier > later for earlier, later in pairwise(steps))


@pytest.mark.parametrize(
    ("number", "spacing", "steps"),
    [
        (1, "trailing", [999]),
        (4, "trailing", [999, 749, 499, 249]),
        (1, "power", [999]),
        (2, "power", [999, 3]),
        (4, "power", [999, 244, 41, 3]),
        (1000, "power", list(range(999, -1, -1))),
    ],
)
def test_where_the_steps_are(number, spacing, steps):
    assert spaced_timesteps(number, 1000, spacing) == steps


def test_seventh_roots_of_power_steps_are_even():
    roots = [(step + 1) ** (1 / 7) for step in spaced_timesteps(8, 100_000, "power")]
    gaps = [earlier - later for earlier, later in pairwise(roots)]
    assert max(gaps) - min(gaps) < 1e-3


@pytest.mark.parametrize("solver", ["dpmsolver++", "unipc"])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_solver_has_the_noise_levels_of_its_steps(solver, spacing):
    config = diffusion()
    scheduler = make_scheduler(config, SamplingConfig(solver=solver, num_inference_steps=5, spacing=spacing))
    abar = alphas_cumprod(config.schedule, config.num_train_timesteps)[spaced_timesteps(5, 1000, spacing)]
    wanted = torch.cat([((1 - abar) / abar).sqrt(), torch.zeros(1)]).float()
    torch.testing.assert_close(scheduler.sigmas, wanted, rtol=1e-3, atol=0)


def test_spacing_left_open_is_the_solvers_own():
    ancestral, fast = (SamplingConfig(solver=name, num_inference_steps=4) for name in ("ddpm", "ddim"))
    assert make_scheduler(diffusion(), ancestral).timesteps.tolist() == spaced_timesteps(4, 1000, "trailing")
    assert make_scheduler(diffusion(), fast).timesteps.tolist() == spaced_timesteps(4, 1000, "power")
    assert make_scheduler(diffusion(), replace(fast, spacing="trailing")).timesteps.tolist() == spaced_timesteps(
        4, 1000, "trailing"
    )


@pytest.mark.parametrize("solver", ["ddim", "dpmsolver++", "unipc"])
def test_close_last_steps_take_away_what_a_denoiser_leaves_of_the_noise(solver):
    """Steps even in t end at t = 249 of 1000; a denoiser that leaves a tenth of its input then leaves it in the picture."""
    config = diffusion()
    abar = alphas_cumprod(config.schedule, config.num_train_timesteps).float()

    def leaky(x_t, t):
        return (abar[t].sqrt() - 0.1) * x_t / (1 - abar[t]).sqrt()  # v of x_0 = x_t / 10, where 0 were right

    left = {}
    for spacing in SPACINGS:
        sampling = SamplingConfig(solver=solver, num_inference_steps=4, spacing=spacing)
        noise = SamplingNoise([0], 1, SHAPE, is_shared=True)
        left[spacing] = sample_frames(leaky, noise, config, sampling, device="cpu").abs().mean()
    assert left["power"] < 0.2 * left["trailing"]


@pytest.mark.parametrize(("solver", "eta"), [("ddpm", 0.0), ("ddim", 1.0)])
@pytest.mark.parametrize("is_shared", [True, False])
def test_ancestral_noise_is_shared_by_the_frames_of_a_clip_or_not(solver, eta, is_shared):
    noise = SamplingNoise([0, 1], 3, SHAPE, is_shared=is_shared)
    sampling = SamplingConfig(solver=solver, num_inference_steps=5, eta=eta)
    sample = sample_frames(lambda x_t, t: torch.zeros_like(x_t), noise, diffusion(), sampling, device="cpu").unflatten(0, (2, 3))
    assert torch.allclose(sample[:, 0], sample[:, 1]) is is_shared
    assert not torch.allclose(sample[0], sample[1])


def test_the_callback_hears_every_step():
    heard = []
    noise = SamplingNoise([0], 1, SHAPE, is_shared=True)
    sample_frames(
        lambda x_t, t: torch.zeros_like(x_t),
        noise,
        diffusion(),
        SamplingConfig(num_inference_steps=3),
        device="cpu",
        callback=lambda done, total, x_t: heard.append((done, total, tuple(x_t.shape))),
    )
    assert heard == [(n, 3, (1, *SHAPE)) for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"num_inference_steps": 0}, "between 1 and 1000"), ({"eta": 2.0}, "eta")],
)
def test_wrong_options_are_named(changes, words):
    with pytest.raises(ConfigError, match=words):
        make_scheduler(diffusion(), SamplingConfig(**changes))


@pytest.mark.parametrize("solver", SOLVERS)
def test_no_more_steps_than_the_model_has(solver):
    few = DiffusionConfig(schedule="cosine", prediction_type="epsilon", num_train_timesteps=20)
    assert len(make_scheduler(few, SamplingConfig(solver=solver, num_inference_steps=20)).timesteps) == 20
    with pytest.raises(ConfigError, match="21 solver steps are asked for, but the model has 20"):
        make_scheduler(few, SamplingConfig(solver=solver, num_inference_steps=21))
