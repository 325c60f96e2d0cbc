"""Solvers against a case whose answer is known, and what they share."""

import pytest
import torch

from divid.config import DiffusionConfig, SamplingConfig
from divid.diffusion.noise import SamplingNoise
from divid.diffusion.sampling import make_scheduler, sample_frames
from divid.diffusion.schedule import alphas_cumprod
from divid.errors import ConfigError

SOLVERS = ["ddpm", "ddim", "dpmsolver++", "unipc"]
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
