"""The reverse process: solvers by name, and the loop."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from diffusers.utils import logging as diffusers_logging
from torch import Tensor

from divid.config import DiffusionConfig, SamplingConfig, SolverName
from divid.diffusion.noise import SamplingNoise
from divid.diffusion.schedule import alphas_cumprod
from divid.types import SamplingCallback

diffusers_logging.set_verbosity_error()

Denoise = Callable[[Tensor, int], Tensor]
"""Gives the prediction for all noisy frames at one step t."""

_SCHEDULERS: dict[SolverName, type] = {
    "ddpm": DDPMScheduler,
    "ddim": DDIMScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}


def make_scheduler(diffusion: DiffusionConfig, sampling: SamplingConfig):
    """Build the diffusers scheduler of a solver, on the schedule the model was trained with.

    Steps are spaced from the last one down (`trailing`), so that even few steps begin at pure noise.

    Args:
        diffusion: The model's forward process.
        sampling: Solver and number of steps.

    Returns:
        The scheduler with its time steps set.

    Raises:
        ConfigError: A value is outside its range.
    """
    sampling.validate()
    abar = alphas_cumprod(diffusion.schedule, diffusion.num_train_timesteps)  # type: ignore[arg-type]
    alphas = torch.cat([abar[:1], abar[1:] / abar[:-1]])
    options = {
        "num_train_timesteps": diffusion.num_train_timesteps,
        "trained_betas": (1 - alphas).tolist(),
        "prediction_type": diffusion.prediction_type,
        "timestep_spacing": "trailing",
    }
    if sampling.solver in ("ddpm", "ddim"):
        options["clip_sample"] = True
    if sampling.solver == "dpmsolver++":
        options |= {"algorithm_type": "dpmsolver++", "solver_order": 2, "lower_order_final": True, "euler_at_final": True}
    if sampling.solver == "unipc":
        options |= {"solver_order": 2, "lower_order_final": True, "final_sigmas_type": "zero"}
    scheduler = _SCHEDULERS[sampling.solver](**options)
    scheduler.set_timesteps(sampling.num_inference_steps)
    return scheduler


def sample_frames(
    denoise: Denoise,
    noise: SamplingNoise,
    diffusion: DiffusionConfig,
    sampling: SamplingConfig,
    *,
    device: torch.device | str,
    callback: SamplingCallback | None = None,
) -> Tensor:
    """Draw frames from p(x_0 | tokens) by walking x_T to x_0.

    Args:
        denoise: The network with its tokens.
        noise: Start noise, and the noise of each step for ancestral solvers; it decides what the frames of a clip share.
        diffusion: The model's forward process.
        sampling: Solver, steps.
        device: Where the network lives.
        callback: Told after each step.

    Returns:
        Frames (images, C, H, W) in [-1, 1].

    Source:
        Paper eq. (2). The fast solvers are not in the paper.
    """
    scheduler = make_scheduler(diffusion, sampling)
    x_t = noise.draw(device) * scheduler.init_noise_sigma
    for done, t in enumerate(scheduler.timesteps.tolist(), start=1):
        prediction = denoise(x_t, t).float()
        x_t = _step(scheduler, prediction, t, x_t, noise, sampling)
        if callback is not None:
            callback(done, len(scheduler.timesteps), x_t)
    return x_t.clamp(-1, 1)


def _step(scheduler, prediction: Tensor, t: int, x_t: Tensor, noise: SamplingNoise, sampling: SamplingConfig) -> Tensor:
    if sampling.solver == "ddim":
        variance_noise = noise.draw(x_t.device) if sampling.eta > 0 else None
        return scheduler.step(prediction, t, x_t, eta=sampling.eta, variance_noise=variance_noise).prev_sample
    if sampling.solver == "ddpm":
        return _ancestral_step(scheduler, prediction, t, x_t, noise)
    return scheduler.step(prediction, t, x_t).prev_sample


def _ancestral_step(scheduler: DDPMScheduler, prediction: Tensor, t: int, x_t: Tensor, noise: SamplingNoise) -> Tensor:
    """Take one DDPM step whose noise comes from `noise`, so that the frames of a clip can share it.

    With x_0 the clean frames that the prediction implies, x_{t-1} = c_0 x_0 + c_t x_t + sigma_t z (Ho et al., 2020, eq. 7).
    """
    previous = int(scheduler.previous_timestep(t))
    abar_t = scheduler.alphas_cumprod[t]
    abar_previous = scheduler.alphas_cumprod[previous] if previous >= 0 else torch.tensor(1.0)
    alpha = abar_t / abar_previous
    if scheduler.config.prediction_type == "epsilon":
        x_0 = (x_t - (1 - abar_t).sqrt() * prediction) / abar_t.sqrt()
    else:
        x_0 = abar_t.sqrt() * x_t - (1 - abar_t).sqrt() * prediction
    x_0 = x_0.clamp(-1, 1)
    mean = (abar_previous.sqrt() * (1 - alpha) * x_0 + alpha.sqrt() * (1 - abar_previous) * x_t) / (1 - abar_t)
    if previous < 0:
        return mean
    sigma = ((1 - abar_previous) / (1 - abar_t) * (1 - alpha)).sqrt()
    return mean + sigma * noise.draw(x_t.device)
