"""The forward process: noise levels, noising, and the conversions between x_0, epsilon and v."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divid.errors import ConfigError, nearest
from divid.model_parts import PredictionType, ScheduleName

LINEAR_BETAS = (1e-4, 0.02)
"""First and last beta of the linear schedule over 1000 steps (Ho et al., 2020, section 4)."""
PIXEL_VARIANCE = 0.25
"""Variance assumed of pixels in [-1, 1]."""
MAX_BETA = 0.999
"""Largest beta of the cosine schedule (Nichol and Dhariwal, 2021, section 3.2)."""


def alphas_cumprod(schedule: ScheduleName, num_train_timesteps: int) -> Float[Tensor, " timesteps"]:
    """Compute abar_t, the share of the clean signal's variance left at each step, in float64.

    Args:
        schedule: `linear` (betas scaled so that any number of steps ends at the same noise) or `cosine`.
        num_train_timesteps: Steps of the forward process.

    Returns:
        abar for t = 0 ... T - 1, falling from nearly 1 to nearly 0.

    Raises:
        ConfigError: The schedule is unknown.

    Source:
        Paper eq. (1); the text fixes neither the schedule nor the number of steps.
    """
    if schedule == "linear":
        scale = 1000 / num_train_timesteps
        low, high = LINEAR_BETAS
        betas = torch.linspace(low * scale, high * scale, num_train_timesteps, dtype=torch.float64).clamp(max=MAX_BETA)
    elif schedule == "cosine":
        grid = torch.arange(num_train_timesteps + 1, dtype=torch.float64) / num_train_timesteps
        signal = torch.cos((grid + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = (1 - signal[1:] / signal[:-1]).clamp(max=MAX_BETA)
    else:
        raise ConfigError(f"unknown noise schedule {schedule!r}{nearest(schedule, ('linear', 'cosine'))}")
    return torch.cumprod(1 - betas, dim=0)


def add_noise(x_0: Tensor, noise: Tensor, abar_t: Tensor) -> Tensor:
    """Noise clean frames: x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps.

    Args:
        x_0: Clean frames, any shape.
        noise: eps, same shape.
        abar_t: One value a leading entry, broadcastable to `x_0`.

    Source:
        Paper eq. (1).
    """
    return abar_t.sqrt() * x_0 + (1 - abar_t).sqrt() * noise


def prediction_target(x_0: Tensor, noise: Tensor, abar_t: Tensor, prediction_type: PredictionType) -> Tensor:
    """Give what the network shall predict: eps, or v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0.

    Args:
        x_0: Clean frames.
        noise: eps.
        abar_t: Broadcastable to `x_0`.
        prediction_type: `epsilon` or `v_prediction`.
    """
    if prediction_type == "epsilon":
        return noise
    return abar_t.sqrt() * noise - (1 - abar_t).sqrt() * x_0


def prediction_to_x_0(prediction: Tensor, x_t: Tensor, abar_t: Tensor, prediction_type: PredictionType) -> Tensor:
    """Give the clean frames that a prediction implies.

    Args:
        prediction: The network's output.
        x_t: The noisy frames it saw.
        abar_t: Broadcastable to `x_t`.
        prediction_type: What the network predicts.
    """
    if prediction_type == "epsilon":
        return (x_t - (1 - abar_t).sqrt() * prediction) / abar_t.sqrt()
    return abar_t.sqrt() * x_t - (1 - abar_t).sqrt() * prediction


def input_scale(abar: Float[Tensor, " timesteps"]) -> Float[Tensor, " timesteps"]:
    """Give the factor on x_t before the network: that of the best linear estimate of x_0, for pixels of `PIXEL_VARIANCE`.

    It falls to 0 with the signal. At full scale the network has to learn, at every level of noise, to ignore what is nothing but
    noise, and until it has, the noise shows in its predictions and drowns what the tokens say.

    Args:
        abar: From `alphas_cumprod`.
    """
    return abar.sqrt() * PIXEL_VARIANCE / (abar * PIXEL_VARIANCE + 1 - abar)


def signal_to_noise(abar: Float[Tensor, " timesteps"]) -> Float[Tensor, " timesteps"]:
    """Give SNR(t) = abar_t / (1 - abar_t).

    Args:
        abar: From `alphas_cumprod`.
    """
    return abar / (1 - abar)


def prior_divergence(x_0: Tensor, abar: Float[Tensor, " timesteps"]) -> Float[Tensor, " timesteps"]:
    """Compute KL(q(x_t | x_0) || N(0, I)) in nats, averaged over clean frames: what x_t can still tell of x_0 at each step.

    Args:
        x_0: Clean frames, the first axis counts them.
        abar: From `alphas_cumprod`.

    Returns:
        One value a step, summed over pixels.
    """
    energy = x_0.double().flatten(1).square().sum(1).mean()
    pixels = x_0[0].numel()
    return 0.5 * (abar * energy + pixels * ((1 - abar) - 1 - torch.log1p(-abar)))


def timesteps_from_uniform(uniform: Float[Tensor, "*any"], num_train_timesteps: int) -> Int[Tensor, "*any"]:
    """Turn numbers in [0, 1) into time steps 0 ... T - 1.

    Args:
        uniform: Random numbers.
        num_train_timesteps: T.
    """
    return (uniform * num_train_timesteps).long().clamp(max=num_train_timesteps - 1)
