"""Tensor aliases, `Codes`, and the one protocol that every method meets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from divid.config import SamplingConfig
from divid.randomness import Randomness

Video = Float[Tensor, "batch frames channels height width"]
"""Clips in [-1, 1]."""
Frames = Float[Tensor, "frames channels height width"]
StaticToken = Float[Tensor, "batch static_dim"]
DynamicTokens = Float[Tensor, "batch frames dynamic_dim"]
FrameFeatures = Float[Tensor, "batch frames features"]
ReferenceFeatures = Float[Tensor, "batch 1 features"]

SamplingCallback = Callable[[int, int, Tensor], None]
"""Called after each solver step with (steps done, steps in all, the current x_t)."""


@dataclass(frozen=True)
class Codes:
    """What a clip is split into: one static token, and one dynamic token a frame.

    Args:
        static: s, who and where.
        dynamic: d_1..F, what happens.
    """

    static: Float[Tensor, "batch static_dim"]
    dynamic: Float[Tensor, "batch frames dynamic_dim"]

    @property
    def num_frames(self) -> int:
        """Number of frames that the dynamic tokens describe."""
        return self.dynamic.shape[1]

    def to(self, *args, **kwargs) -> Codes:
        """Move or cast both tensors, as `Tensor.to` does."""
        return Codes(self.static.to(*args, **kwargs), self.dynamic.to(*args, **kwargs))

    def with_motion_of(self, other: Codes) -> Codes:
        """Keep this appearance and take another clip's motion: the swap of the paper's section 4.2.1."""
        return Codes(self.static, other.dynamic)


@runtime_checkable
class Disentangler(Protocol):
    """A method that splits video into static and dynamic codes and puts them together again.

    Training, pipeline and evaluation know nothing else of a method. `encode` is `codes_from_features` of
    `frame_features`: the first works frame by frame, so a recording of any length passes in constant memory.
    """

    def frame_features(self, video: Video) -> FrameFeatures:
        """Encode every frame by itself."""
        ...

    def codes_from_features(self, features: FrameFeatures, reference: ReferenceFeatures | None = None) -> Codes:
        """Turn the frames' features into codes.

        Args:
            features: What `frame_features` gave for the F frames of each clip.
            reference: The features of one frame a clip (F = 1) that takes the first frame's part (static token, and the frame
                that is subtracted). It comes before the F frames and gets no dynamic token in the result. Default: the first
                frame.
        """
        ...

    def encode(self, video: Video) -> Codes:
        """Split clips into codes."""
        ...

    def decode(
        self,
        codes: Codes,
        *,
        seeds: Sequence[int],
        sampling: SamplingConfig | None = None,
        first_frame: int = 0,
        callback: SamplingCallback | None = None,
    ) -> Video:
        """Make video from codes.

        Args:
            codes: Any static tokens with any dynamic tokens.
            seeds: One a clip: seed i gives the same sample in any batch and any chunk.
            sampling: Solver, steps, guidance. Default: the method's own.
            first_frame: Position of the first of these frames in its clip, where a clip is decoded in chunks.
            callback: Told after each step.
        """
        ...

    def losses(self, video: Video, randomness: Randomness) -> dict[str, Tensor]:
        """Give the named scalar terms of the objective; the key `total` is what is minimised.

        Args:
            video: The batch's clips.
            randomness: All that is random in this step.
        """
        ...
