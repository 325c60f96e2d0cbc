"""A DiViD model that is small enough to be trained in a test, clips for it, and the randomness of a step."""

import dataclasses

import torch

from divid.config import ModelConfig
from divid.model_parts import DenoiserConfig, EncoderConfig, TokenConfig
from divid.models.divid import DividModel
from divid.randomness import Randomness

SMALL = ModelConfig(
    preset="tiny",
    image_size=16,
    channels=1,
    encoder=EncoderConfig(base_channels=8, patch_size=1, feature_channels=8, static_hidden=16, lstm_hidden=16),
    tokens=TokenConfig(static_dim=12, dynamic_dim=6),
    denoiser=DenoiserConfig(
        channels=(16, 32), patch_size=1, attention_levels=(1,), attention_head_width=0, attention_width=16, norm_groups=8
    ),
)


def make_model(**groups):
    torch.manual_seed(0)
    changes = {name: dataclasses.replace(getattr(SMALL, name), **values) for name, values in groups.items()}
    return DividModel(dataclasses.replace(SMALL, **changes))


def video(clips=3, frames=5):
    return torch.rand(clips, frames, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def step(clips=3, number=0):
    return Randomness(seed=0, step=number, slots=tuple(range(clips)), num_slots=clips)
