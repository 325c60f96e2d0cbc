"""The reverse process: solvers by name, and the loop."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from diffusers.utils import logging as diffusers_logging
from torch import Tensor

from divid.config import SamplingConfig, SolverName, SpacingName
from divid.diffusion.noise import SamplingNoise
from divid.diffusion.schedule import add_noise, alphas_cumprod, prediction_to_x_0
from divid.errors import ConfigError
from divid.model_parts import DiffusionConfig
from divid.types import SamplingCallback

diffusers_logging.set_verbosity_error()

Denoise = Callable[[Tensor, int], Tensor]
"""Gives the prediction for all noisy frames at one step t."""

_SCHEDULERS: dict[SolverName, type] = {
    "ddpm": DDPMScheduler,
    "ddim": DDIMScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
    "consistency": DDIMScheduler,
}


SPACING_POWER = 7.0
LAST_STEP = 0.004
"""Where `power` spacing ends, as a share of all steps of noise."""


def make_scheduler(diffusion: DiffusionConfig, sampling: SamplingConfig):
    """Build the diffusers scheduler of a solver, on the schedule the model was trained with.

    Steps begin at pure noise and are spaced by `spaced_timesteps`.

    Args:
        diffusion: The model's forward process.
        sampling: Solver and number of steps.

    Returns:
        The scheduler with its time steps set.

    Raises:
        ConfigError: A value is outside its range.
    """
    sampling.validate()
    if sampling.num_inference_steps > diffusion.num_train_timesteps:
        raise ConfigError(
            f"{sampling.num_inference_steps} solver steps are asked for, but the model has {diffusion.num_train_timesteps} steps "
            "of noise: take fewer"
        )
    abar = alphas_cumprod(diffusion.schedule, diffusion.num_train_timesteps)  # type: ignore[arg-type]
    alphas = torch.cat([abar[:1], abar[1:] / abar[:-1]])
    options = {
        "num_train_timesteps": diffusion.num_train_timesteps,
        "trained_betas": (1 - alphas).tolist(),
        "prediction_type": diffusion.prediction_type,
    }
    if sampling.solver == "dpmsolver++":
        options |= {"algorithm_type": "dpmsolver++", "solver_order": 2, "lower_order_final": True, "euler_at_final": True}
    if sampling.solver == "unipc":
        options |= {"solver_order": 2, "lower_order_final": True, "final_sigmas_type": "zero"}
    scheduler = _SCHEDULERS[sampling.solver](**options)
    scheduler.set_timesteps(sampling.num_inference_steps)
    _place(scheduler, spaced_timesteps(sampling.num_inference_steps, diffusion.num_train_timesteps, sampling.resolved_spacing))
    return scheduler


def spaced_timesteps(num_steps: int, num_train_timesteps: int, spacing: SpacingName) -> list[int]:
    """Give the time steps of a sampling.

    `trailing` steps are even: step i of n is at T (1 - i / n) - 1 (Lin et al., "Common Diffusion Noise Schedules and Sample Steps
    Are Flawed", 2024). The last one begins at T / n, and what the network leaves of so much noise in its answer stays in the
    picture as speckles. `power` steps lie closer the less noise there is, and the last one is at 0.004 T whatever their number:
    their seventh roots are even, which is the spacing that Karras et al. ("Elucidating the Design Space of Diffusion-Based
    Generative Models", 2022, eq. 5) give to noise levels.

    Args:
        num_steps: n, at most T.
        num_train_timesteps: T.
        spacing: `trailing` or `power`.

    Returns:
        n different steps, falling from T - 1.
    """
    total, left = num_train_timesteps, [1 - done / num_steps for done in range(num_steps)]
    if spacing == "power":
        last = (LAST_STEP * total) ** (1 / SPACING_POWER)
        first = total ** (1 / SPACING_POWER)
        left = [(first + (last - first) * done / max(num_steps - 1, 1)) ** SPACING_POWER / total for done in range(num_steps)]
    steps = [max(round(total * share) - 1, 0) for share in left]
    for place in range(num_steps - 2, -1, -1):
        steps[place] = max(steps[place], steps[place + 1] + 1)
    return [min(step, total - 1 - place) for place, step in enumerate(steps)]


def _place(scheduler, steps: list[int]) -> None:
    scheduler.timesteps = torch.tensor(steps)
    if hasattr(scheduler, "sigmas"):
        abar = scheduler.alphas_cumprod[scheduler.timesteps]
        scheduler.sigmas = torch.cat([((1 - abar) / abar).sqrt(), torch.zeros(1)])


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
        Paper eq. (2). The fast solvers are not in the paper; `consistency` is algorithm 1 of Song et al., "Consistency Models"
        (2023).
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
    if sampling.solver == "consistency":
        return _consistency_step(scheduler, prediction, t, x_t, noise)
    if sampling.solver in ("ddpm", "ddim"):
        eta = 1.0 if sampling.solver == "ddpm" else sampling.eta
        return _ancestral_step(scheduler, prediction, t, x_t, noise, eta)
    return scheduler.step(prediction, t, x_t).prev_sample


def _ancestral_step(
    scheduler: DDPMScheduler | DDIMScheduler, prediction: Tensor, t: int, x_t: Tensor, noise: SamplingNoise, eta: float
) -> Tensor:
    """Take one step whose fresh noise comes from `noise`, so that the frames of a clip can share it.

    x_{t-1} = sqrt(abar_{t-1}) x_0 + sqrt(1 - abar_{t-1} - sigma^2) eps + sigma z, with x_0 the clean frames that the prediction
    implies, clamped to the range of frames, and sigma = eta times DDPM's (Song et al., 2021, eq. 12 and 16): eta 1 is DDPM,
    0 is DDIM.
    """
    abar_t, abar_previous = _levels(scheduler, t, x_t.device)
    x_0 = prediction_to_x_0(prediction, x_t, abar_t, scheduler.config.prediction_type).clamp(-1, 1)
    epsilon = (x_t - abar_t.sqrt() * x_0) / (1 - abar_t).sqrt()
    variance = eta**2 * (1 - abar_previous) / (1 - abar_t) * (1 - abar_t / abar_previous)
    mean = abar_previous.sqrt() * x_0 + (1 - abar_previous - variance).clamp(min=0).sqrt() * epsilon
    if eta == 0 or abar_previous == 1:
        return mean
    return mean + variance.sqrt() * noise.draw(x_t.device)


def _consistency_step(scheduler: DDIMScheduler, prediction: Tensor, t: int, x_t: Tensor, noise: SamplingNoise) -> Tensor:
    """Jump to the clean frames and, but for the last step, noise them anew to the next level."""
    abar_t, abar_previous = _levels(scheduler, t, x_t.device)
    x_0 = prediction_to_x_0(prediction, x_t, abar_t, scheduler.config.prediction_type).clamp(-1, 1)
    return x_0 if abar_previous == 1 else add_noise(x_0, noise.draw(x_t.device), abar_previous)


def _levels(scheduler: DDPMScheduler | DDIMScheduler, t: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Give abar of a step and of the one after it, which is 1 after the last."""
    steps = scheduler.timesteps.tolist()
    place = steps.index(t) + 1
    abar_t = scheduler.alphas_cumprod[t].to(device)
    return abar_t, scheduler.alphas_cumprod[steps[place]].to(device) if place < len(steps) else torch.ones_like(abar_t)
