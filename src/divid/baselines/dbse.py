"""DBSE: a sequential VAE whose static code sees the first frame only, and whose dynamic codes see what differs from it.

Source: Berman et al., "Sequential Disentanglement by Extracting Static Information From A Single Sequence Element", ICML 2024.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from divid.baselines.options import DBSEConfig
from divid.baselines.vae import Gaussian, Posteriors, SequentialVAE, divergence, standard_divergence, weighted_total
from divid.config import from_dict
from divid.models.sequence_model import pick_frames
from divid.precision import run_recurrent
from divid.randomness import Randomness, make_generator
from divid.types import FrameFeatures, Video

RISING_SHARE = 0.5
"""Share of a cycle in which the dynamic KL's weight rises; it is 1 in the rest of it."""


def cyclic_weight(progress: float, num_cycles: int) -> float:
    """Give a weight that rises from 0 to 1 along half a cosine in the first half of each cycle, and then stays.

    Args:
        progress: Share of the run that is over.
        num_cycles: Cycles in the run; 0: the weight is 1.
    """
    if num_cycles == 0 or progress >= 1:
        return 1.0
    place = progress * num_cycles % 1.0
    return 0.5 * (1 - math.cos(math.pi * min(1.0, place / RISING_SHARE)))


class DBSEModel(SequentialVAE):
    """DBSE; meets `divid.types.Disentangler`.

    Args:
        options: The model's config, or the same as nested dicts (as `config.json` stores it).

    Raises:
        ConfigError: An option is unknown, outside its range, or does not fit another.

    Source:
        Berman et al., ICML 2024. Differs: noise is seeded; the static KL has its weight throughout; frames in [-1, 1] outside.
    """

    options: DBSEConfig

    def __init__(self, options: DBSEConfig | dict[str, Any]) -> None:
        config = options if isinstance(options, DBSEConfig) else from_dict(DBSEConfig, options)
        super().__init__(config.resolve())
        config = self.options
        self.static_hidden = nn.Linear(self.num_features, config.hidden)
        self.static_mean = nn.Linear(config.hidden, config.static_dim)
        self.static_logvar = nn.Linear(config.hidden, config.static_dim)
        self.lstm = nn.LSTM(self.num_features, config.dynamic_dim, num_layers=2, batch_first=True, bidirectional=True)
        self.dynamic_mean = nn.Linear(2 * config.dynamic_dim, config.dynamic_dim)
        self.dynamic_logvar = nn.Linear(2 * config.dynamic_dim, config.dynamic_dim)
        self.finish()

    def posteriors(self, features: FrameFeatures, randomness: Randomness | None = None) -> Posteriors:
        """Give q(s | x_1) and q(z_t | x_1..F); see `SequentialVAE.posteriors`."""
        hidden = self.static_hidden(features[:, 0]).tanh()
        static = Gaussian(self.static_mean(hidden), self.static_logvar(hidden))
        residual = features[:, 1:] - features[:, :1]
        outputs, _ = run_recurrent(self.lstm, torch.cat([self._first_position(features, randomness), residual], dim=1))
        return Posteriors(static, Gaussian(self.dynamic_mean(outputs), self.dynamic_logvar(outputs)))

    def losses(self, video: Video, randomness: Randomness, num_decoded_frames: int = 0) -> dict[str, Tensor]:
        """Give the terms of the objective, without their weights, and `total`.

        `sequence` and `first_frame` are the reconstructions of all frames from (z_t, s) and of the first from (z_1, s). Since
        z_1's own place in the LSTM holds noise, the second makes s explain the first frame.

        Args:
            video: The batch's clips.
            randomness: The step's.
            num_decoded_frames: Frames of each clip that are decoded: the first and, at random, others (one at least); the
                encoder sees all. 0: all. The sum over the others is scaled up, so the expected gradient is the same and a step
                costs less.
        """
        posteriors = self.posteriors(self.frame_features(video), randomness)
        drawn = self.draw_posteriors(posteriors, randomness)
        later = 1 + pick_frames(video[:, 1:], randomness, max(1, num_decoded_frames - 1) if num_decoded_frames else 0)
        errors = self.frame_errors(drawn, video, torch.cat([torch.zeros_like(later[:, :1]), later], dim=1))
        sums = {name: _over_frames(values, video.shape[1], self.options.sequence_starts_at) for name, values in errors.items()}
        terms = {
            "sequence": sums.pop("both"),
            "first_frame": errors["both"][:, 0].mean(),
            "static_kl": standard_divergence(posteriors.static),
            "dynamic_kl": divergence(posteriors.dynamic, self.prior(drawn.dynamic)),
        }
        weights = self.options.weights
        assert weights.dynamic_kl is not None
        rising = cyclic_weight(self.progress(randomness), self.options.dynamic_kl_cycles)
        total = weighted_total(terms, replace(weights, dynamic_kl=weights.dynamic_kl * rising))
        return {"total": total, **terms, **sums}

    def _first_position(self, features: Tensor, randomness: Randomness | None) -> Tensor:
        """Give what stands in the place of the first frame's residual, of shape (B, 1, g)."""
        first = self.options.first_position
        width = features.shape[-1]
        if first == "zeros" or (first == "noise_in_training" and randomness is None):
            return features.new_zeros(len(features), 1, width)
        if randomness is not None:
            return randomness.normal("first position", (1, width), features.device).to(features)
        noise = torch.randn((1, 1, width), generator=make_generator("DBSE's first position", width))
        return noise.to(features).expand(len(features), -1, -1)


def _over_frames(errors: Tensor, num_frames: int, starts_at: int) -> Tensor:
    """Estimate the errors' sum over a clip's frames, a mean of clips.

    Args:
        errors: Of the first frame and of some of the others.
        num_frames: F.
        starts_at: First frame of the sum: 1 or 2.
    """
    later = errors[:, 1:].sum(1) * (num_frames - 1) / max(1, errors.shape[1] - 1)
    return (later + errors[:, 0] if starts_at == 1 else later).mean()
