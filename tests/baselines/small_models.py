"""Baselines so small that a training step takes milliseconds, and clips for them."""

from __future__ import annotations

from dataclasses import replace

import torch

from divid.baselines.dbse import DBSEModel
from divid.baselines.options import DBSEConfig, PerceptualConfig, SPYLConfig
from divid.baselines.spyl import SPYLModel
from divid.model_parts import EncoderConfig
from divid.randomness import Randomness

SIZE = 16
SMALL = {
    "image_size": SIZE,
    "channels": 1,
    "encoder": EncoderConfig(base_channels=8, multipliers=(1, 2), blocks_per_level=1, feature_channels=2),
    "perceptual": PerceptualConfig("none"),
    "feature_dim": 10,
    "static_dim": 6,
    "dynamic_dim": 4,
    "hidden": 8,
}
MODELS = {"dbse": (DBSEModel, DBSEConfig(**SMALL)), "spyl": (SPYLModel, SPYLConfig(**SMALL, bank_size=2))}
VARIANTS = [(name, backbone) for name in MODELS for backbone in ("divid", "dcgan")]


def make_model(name, backbone="divid", **changes):
    cls, options = MODELS[name]
    torch.manual_seed(0)
    return cls(replace(options, backbone=backbone, **changes))


def video(clips=3, frames=5, seed=1):
    return torch.rand(clips, frames, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def step(clips=3, number=0):
    return Randomness(seed=0, step=number, slots=tuple(range(clips)), num_slots=clips)


def directional_derivatives(model, clips, randomness, h=1e-8):
    """The total's derivative along a random direction: automatic, and by central differences within the kinks of ReLUs."""
    parameters = list(model.parameters())
    generator = torch.Generator().manual_seed(0)
    directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    model.losses(clips, randomness)["total"].backward()
    analytic = sum((p.grad * d).sum().item() for p, d in zip(parameters, directions, strict=True))
    values = []
    with torch.no_grad():
        for sign in (h, -2 * h):
            for p, d in zip(parameters, directions, strict=True):
                p += sign * d
            values.append(model.losses(clips, randomness)["total"].item())
    return analytic, (values[0] - values[1]) / (2 * h)
