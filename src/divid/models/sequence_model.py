"""What every method that encodes frames by themselves first shares: frame features, then codes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from jaxtyping import Int
from torch import Tensor, nn

from divid.config import tell, to_dict
from divid.errors import ConfigError
from divid.model_parts import PerceptualConfig
from divid.models.cuda_graphs import GraphedByShape
from divid.models.perceptual import PerceptualDistance, load_feature_network
from divid.randomness import Randomness, to_device
from divid.types import Codes, FrameFeatures, ReferenceFeatures, Video


class SequenceModel(ModelMixin, ConfigMixin, ABC):
    """The encoding half of a `divid.types.Disentangler`: frames one by one, then the whole sequence.

    A method sets `options` (with `channels` and `image_size`) and `frame_encoder`, and gives `sequence_codes`.
    """

    config_name = "config.json"
    options: Any
    frame_encoder: nn.Module
    _perceptual: PerceptualDistance | None = None
    _graphed_encoder: GraphedByShape | None = None

    def tell_num_train_steps(self, count: int) -> None:
        """Set how many steps the training has, for what changes with its progress.

        Args:
            count: The number.
        """
        self.options = tell(self.options, {"num_train_steps": count})
        self.register_to_config(options=to_dict(self.options))

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the frames."""
        assert self.options.image_size
        return self.options.channels, self.options.image_size, self.options.image_size

    def blocks(self) -> list[nn.Module]:
        """Give the parts that are called whole, one at a time: by these weights are gathered that processes share out."""
        return [self.frame_encoder]

    @abstractmethod
    def sequence_codes(self, features: FrameFeatures) -> Codes:
        """Turn the features of a whole sequence, in order, into codes (means, where the method draws them)."""

    def frame_features(self, video: Video) -> FrameFeatures:
        """Encode every frame by itself.

        Raises:
            ConfigError: The frames have another size or number of channels than the model's.
        """
        self.check_video(video)
        encoder = self._graphed_encoder or self.frame_encoder
        return encoder(video.flatten(0, 1)).unflatten(0, video.shape[:2])

    def codes_from_features(self, features: FrameFeatures, reference: ReferenceFeatures | None = None) -> Codes:
        """Turn frame features into codes; see `Disentangler.codes_from_features`."""
        if reference is None:
            return self.sequence_codes(features)
        codes = self.sequence_codes(torch.cat([reference, features], dim=1))
        return Codes(codes.static, codes.dynamic[:, 1:])

    def encode(self, video: Video) -> Codes:
        """Split clips into codes (means, where the method draws them)."""
        return self.codes_from_features(self.frame_features(video))

    def perceptual_distance(self, options: PerceptualConfig) -> PerceptualDistance:
        """Give the distance that the objective compares frames by; its network is loaded when it is first asked for.

        Args:
            options: Resolved, with a network.

        Raises:
            ConfigError, ModelError, MissingExtraError: The feature network cannot be loaded.
        """
        if self._perceptual is None:
            assert options.network
            self._perceptual = PerceptualDistance(load_feature_network(options.network, options.weights_file))
        return self._perceptual

    def check_video(self, video: Video) -> None:
        """Raise a ConfigError unless the frames have the model's size and channels."""
        if tuple(video.shape[2:]) != self.frame_shape:
            raise ConfigError(
                f"the model takes frames of (C, H, W) = {self.frame_shape}, got {tuple(video.shape[2:])}: "
                "prepare the data at that size, or set model.image_size and model.channels"
            )


def pick_frames(video: Video, randomness: Randomness, count: int) -> Int[Tensor, "batch picked"]:
    """Draw the frames of each clip that are decoded in a training step, all equally likely, without repeats.

    Args:
        video: The clips.
        randomness: The step's.
        count: How many of each clip; 0, or more than there are: all, in order.

    Returns:
        Their places.
    """
    num_frames = video.shape[1]
    if not 0 < count < num_frames:
        return torch.arange(num_frames, device=video.device).expand(len(video), -1)
    order = randomness.uniform("denoised frames", (num_frames,)).argsort(dim=1)
    return to_device(order[:, :count], video.device)


def take_frames(values: Tensor, picked: Tensor) -> Tensor:
    """Take some frames of each clip.

    Args:
        values: Anything of shape (clips, frames, ...).
        picked: Places of the frames, (clips, count).
    """
    clips = torch.arange(len(values), device=values.device)[:, None]
    return values[clips, picked]
