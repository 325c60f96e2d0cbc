"""Consistency distillation: a student that jumps from any noise level to the clean frames at once."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from divid.config import ModelConfig
from divid.diffusion.noise import training_noise
from divid.diffusion.schedule import add_noise, prediction_to_x_0
from divid.distillation.options import ConsistencyConfig
from divid.errors import ConfigError
from divid.models.divid import DividModel
from divid.models.sequence_model import pick_frames, take_frames
from divid.randomness import Randomness, to_device
from divid.types import Video

LEAST_NOISE = 1e-4
"""Smallest share of noise in the weight of the objective, which would be infinite at none."""


def interval_bounds(num_train_timesteps: int, num_intervals: int) -> Int[Tensor, " bounds"]:
    """Cut the noise levels into N intervals of about equal length.

    Args:
        num_train_timesteps: T.
        num_intervals: N; more than T give T.

    Returns:
        N + 1 levels: 0 is the clean frame, k the noise of time step k - 1.
    """
    count = min(num_train_timesteps, num_intervals)
    return torch.linspace(0, num_train_timesteps, count + 1, dtype=torch.float64).round().long()


def follow_teacher(
    x_0: Float[Tensor, "*frames"], x_t: Float[Tensor, "*frames"], abar_t: Tensor, abar_s: Tensor
) -> Float[Tensor, "*frames"]:
    """Take a DDIM step from noise level t down to s.

    Args:
        x_0: The clean frames that the teacher sees in `x_t`.
        x_t: Noisy frames.
        abar_t: Share of the signal's variance at t, broadcastable.
        abar_s: The same at s; 1 for clean frames.

    Source:
        Song et al., "Denoising Diffusion Implicit Models" (2021), eq. (12) with sigma 0.
    """
    epsilon = (x_t - abar_t.sqrt() * x_0) / (1 - abar_t).sqrt()
    return abar_s.sqrt() * x_0 + (1 - abar_s).sqrt() * epsilon


class ConsistencyModel(DividModel):
    """A DiViD model whose decoder needs one to four steps; meets `divid.types.Disentangler`.

    Encoder and tokens are the teacher's, frozen, so that codes of the two are interchangeable. Sample it with the solver
    `consistency`.

    Args:
        options: The student's config, or the same as nested dicts.

    Raises:
        ConfigError: An option is unknown, outside its range, or does not fit another.

    Source:
        Song et al., "Consistency Models" (2023), algorithm 2, with the student's own weights in place of their average as in
        Song and Dhariwal, "Improved Techniques for Training Consistency Models" (2024). The paper has no such model.
    """

    options_class: ClassVar[type[ModelConfig]] = ConsistencyConfig

    def __init__(self, options: ConsistencyConfig | dict[str, Any]) -> None:
        super().__init__(options)
        self._teacher: list[DividModel] = []  # in a list, so that its weights are neither trained nor saved

    def learn_from(self, teacher: nn.Module) -> None:
        """Begin as a copy of a teacher, and be taught by it.

        Args:
            teacher: A DiViD model of the same sizes.

        Raises:
            ConfigError: It is another method, or has other sizes.
        """
        if not isinstance(teacher, DividModel):
            raise ConfigError(f"the teacher is a {type(teacher).__name__}: only a DiViD model can teach a few-step student")
        own, weights = self.state_dict(), teacher.state_dict()
        wrong = sorted(name for name in own if name not in weights or weights[name].shape != own[name].shape)
        if wrong:
            raise ConfigError(
                f"the teacher is built otherwise ({wrong[0]!r} differs): leave the sizes under 'model' as it has them"
            )
        self.load_state_dict({name: weights[name] for name in own})
        for part in (self.frame_encoder, self.sequence_encoder):
            part.requires_grad_(False)
        self._teacher = [teacher.eval().requires_grad_(False)]

    def losses(self, video: Video, randomness: Randomness, num_decoded_frames: int = 0) -> dict[str, Tensor]:
        """Give the terms `consistency` and `total`, which are the same.

        Noisy frames x_t are taken one interval down the teacher's path, to x_s; the student shall see the same clean frames
        in both:

            E || f(x_t, t) - f(x_s, s) ||^2 / (1 - abar_t),

        where f at no noise is the identity, and the second term has no gradient. The weight makes it the squared error of v.

        Args:
            video: The batch's clips.
            randomness: The step's noise, intervals and frame choice.
            num_decoded_frames: As for `DividModel.losses`.

        Raises:
            ConfigError: There is no teacher, or the video has another size or number of channels than the model.
        """
        if not self._teacher:
            raise ConfigError("a few-step student has no teacher to learn from: name one as model.teacher, or use divid distill")
        teacher = self._teacher[0].to(video.device)
        with torch.no_grad():
            codes = self.encode(video)
        picked = pick_frames(video, randomness, num_decoded_frames)
        x_0, dynamic = take_frames(video, picked), take_frames(codes.dynamic, picked).flatten(0, 1)
        count = picked.shape[1]
        static = codes.static[:, None].expand(-1, count, -1).flatten(0, 1)
        level_t, level_s = self._draw_interval(randomness, count, video.device)
        abar_t, abar_s = self._abar_of(level_t), self._abar_of(level_s)
        noise = training_noise(randomness, count, self.frame_shape, is_shared=False, device=video.device)
        x_t = add_noise(x_0.flatten(0, 1), noise.flatten(0, 1), abar_t)
        with torch.no_grad():
            seen_by_teacher = self._clean(teacher.predict(x_t, level_t - 1, static, dynamic), x_t, abar_t)
            x_s = follow_teacher(seen_by_teacher, x_t, abar_t, abar_s)
            step_s = (level_s - 1).clamp(min=0)
            seen_below = self._clean(self._train_denoiser(x_s, step_s, static, dynamic), x_s, abar_s)
            target = torch.where((level_s == 0)[:, None, None, None], x_s, seen_below)
        seen = self._clean(self._train_denoiser(x_t, level_t - 1, static, dynamic), x_t, abar_t)
        loss = ((seen - target).square() / (1 - abar_t).clamp(min=LEAST_NOISE)).mean()
        return {"total": loss, "consistency": loss}

    def _draw_interval(self, randomness: Randomness, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Give upper and lower bound of an interval for every denoised frame, stratified over the global batch."""
        options = self.options
        assert isinstance(options, ConsistencyConfig)
        bounds = interval_bounds(options.diffusion.num_train_timesteps, options.num_intervals)
        uniform = torch.stack([randomness.stratified(f"interval {frame}") for frame in range(count)], dim=1).flatten()
        number = (uniform * (len(bounds) - 1)).long().clamp(max=len(bounds) - 2)
        return to_device(bounds[number + 1], device), to_device(bounds[number], device)

    def _abar_of(self, level: Tensor) -> Tensor:
        abar = torch.cat([torch.ones_like(self.abar[:1]), self.abar])
        return abar[level][:, None, None, None]

    def _clean(self, prediction: Tensor, x_t: Tensor, abar_t: Tensor) -> Tensor:
        assert self.options.diffusion.prediction_type
        return prediction_to_x_0(prediction.float(), x_t, abar_t, self.options.diffusion.prediction_type)
