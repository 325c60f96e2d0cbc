"""Options of few-step students."""

from __future__ import annotations

from dataclasses import dataclass

from divid.config import ModelConfig
from divid.errors import ConfigError

MAX_INTERVALS = 1000


@dataclass
class ConsistencyConfig(ModelConfig):
    """A student of a DiViD model: the same network and tokens, another objective.

    Args:
        teacher: Model folder, run folder or bundled model that it learns from; training alone needs it.
        num_intervals: N, into which the way from noise to clean frames is cut: the student learns to agree with itself at both
            ends of each. More are nearer to the teacher's own path, and take longer to agree over.
    """

    teacher: str = ""
    num_intervals: int = 32

    def resolve(self) -> ConsistencyConfig:
        """Fill in the preset's values and check every field; errors as for `ModelConfig.resolve`."""
        if not 1 <= self.num_intervals <= MAX_INTERVALS:
            raise ConfigError(f"model.num_intervals is {self.num_intervals}, must lie between 1 and {MAX_INTERVALS}")
        resolved = super().resolve()
        if resolved.diffusion.prediction_type != "v_prediction":
            raise ConfigError(
                "a few-step student needs a teacher that predicts v: at pure noise, where one step begins, predicted noise "
                "(model.diffusion.prediction_type epsilon) says nothing about the frame"
            )
        assert isinstance(resolved, ConsistencyConfig)
        return resolved
