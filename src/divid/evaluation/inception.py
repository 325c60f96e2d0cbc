"""The classic numbers of sequence generation from a judge's probabilities: inception score, H(y|x) and H(y)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class ClassScores:
    """How sure a judge is of one factor's class, clip by clip, and how varied the classes are.

    Args:
        conditional_entropy: H(y|x) in nats, mean over the clips: 0 where every clip is surely of some class.
        marginal_entropy: H(y) in nats, of the mean probabilities: ln K where all K classes are made equally often.
        num_classes: K.
        num_clips: Clips it was taken over.
    """

    conditional_entropy: float
    marginal_entropy: float
    num_classes: int
    num_clips: int

    @property
    def inception_score(self) -> float:
        """exp(mean KL(p(y|x) || p(y))) = exp(H(y) - H(y|x)): 1 where all clips look alike or unsure, at most K."""
        return math.exp(self.marginal_entropy - self.conditional_entropy)

    @classmethod
    def of(cls, probabilities: Float[Tensor, "clips classes"]) -> ClassScores:
        """Compute them, in float64.

        Args:
            probabilities: p(y|x), one row a clip.

        Source:
            Salimans et al., 2016, for the score; S3VAE (Zhu et al., 2020) for the three numbers side by side.
        """
        p = probabilities.double()
        conditional, marginal = torch.special.entr(p).sum(1).mean(), torch.special.entr(p.mean(0)).sum()
        return cls(float(conditional), float(marginal), p.shape[1], p.shape[0])

    def to_dict(self) -> dict[str, float | int]:
        """Give all numbers as JSON stores them."""
        return {"inception_score": self.inception_score, **vars(self)}
