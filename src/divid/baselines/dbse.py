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
        outputs, _ = self.lstm(torch.cat([self._first_position(features, randomness), residual], dim=1))
        return Posteriors(static, Gaussian(self.dynamic_mean(outputs), self.dynamic_logvar(outputs)))

    def losses(self, video: Video, randomness: Randomness) -> dict[str, Tensor]:
        """Give the terms of the objective, without their weights, and `total`.

        `sequence` and `first_frame` are the reconstructions of all frames from (z_t, s) and of the first from (z_1, s). Since
        z_1's own place in the LSTM holds noise, the second makes s explain the first frame.

        Args:
            video: The batch's clips.
            randomness: The step's.
        """
        posteriors = self.posteriors(self.frame_features(video), randomness)
        drawn = self.draw_posteriors(posteriors, randomness)
        errors = self.reconstruction_errors(self.render(drawn.static, drawn.dynamic), video)
        start = self.options.sequence_starts_at - 1
        terms = {
            "sequence": errors["both"][:, start:].sum(1).mean(),
            "first_frame": errors["both"][:, 0].mean(),
            "static_kl": standard_divergence(posteriors.static),
            "dynamic_kl": divergence(posteriors.dynamic, self.prior(drawn.dynamic)),
        }
        weights = self.options.weights
        assert weights.dynamic_kl is not None
        rising = cyclic_weight(self.progress(randomness), self.options.dynamic_kl_cycles)
        total = weighted_total(terms, replace(weights, dynamic_kl=weights.dynamic_kl * rising))
        shown = {name: value.sum(1).mean() for name, value in errors.items() if name != "both"}
        return {"total": total, **terms, **shown}

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
