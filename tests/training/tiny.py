"""A tiny method, tiny clips, and `divid train` on them as a script, with the command's own options."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from torch import nn

from divid.config import ModelConfig, Recipe, from_dict, to_dict
from divid.types import Codes

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script this is run without pytest's paths

from memory_clips import ClipsInMemory

CLIPS_FOLDER = "clips"
SIZE = 8


class TinyMethod(ModelMixin, ConfigMixin):
    """Linear codes, linear decoder, a denoising loss; meets `Disentangler`."""

    config_name = "config.json"

    def __init__(self, options):
        super().__init__()
        self.options = options if isinstance(options, ModelConfig) else from_dict(ModelConfig, options)
        self.register_to_config(options=to_dict(self.options))
        size, dropout = SIZE * SIZE * self.options.channels, self.options.tokens.static_dropout
        self.encoder = nn.Linear(size, 6)
        self.decoder = nn.Sequential(
            nn.Linear(12 + size, 24), nn.LayerNorm(24), nn.Tanh(), nn.Dropout(dropout), nn.Linear(24, size)
        )

    def frame_features(self, video):
        return self.encoder(video.flatten(2))

    def codes_from_features(self, features, reference=None):
        first = features[:, :1] if reference is None else reference
        return Codes(first[:, 0], features - first)

    def encode(self, video):
        return self.codes_from_features(self.frame_features(video))

    def _predict(self, codes, noisy):
        static = codes.static[:, None].expand_as(codes.dynamic)
        return self.decoder(torch.cat([static, codes.dynamic, noisy.flatten(2)], dim=-1)).view_as(noisy)

    def decode(self, codes, *, seeds, sampling=None, first_frame=0, callback=None):
        shape = (*codes.dynamic.shape[:2], self.options.channels, SIZE, SIZE)
        return self._predict(codes, torch.zeros(shape, device=codes.static.device))

    def losses(self, video, randomness, num_decoded_frames=0):
        time.sleep(float(os.environ.get("TINY_DELAY", 0)))
        codes = self.encode(video)
        noise = randomness.normal("noise", video.shape[1:], video.device)
        simple = (self._predict(codes, video + noise).float() - video).square().mean()
        overlap = nn.functional.cosine_similarity(codes.static[:, None], codes.dynamic, dim=-1).square().mean()
        return {"total": simple + 0.1 * overlap, "simple": simple, "orthogonality": overlap}


class TinyClips(ClipsInMemory):
    """Random clips of 6 to 12 frames."""

    def __init__(self, count=12, channels=1):
        rng = np.random.default_rng(0)
        base = rng.integers(0, 256, (count, 1, SIZE, SIZE, channels))
        steps = [9 * np.arange(6 + i % 7)[:, None, None, None] for i in range(count)]
        super().__init__([((start + step) % 256).astype(np.uint8) for start, step in zip(base, steps, strict=True)])


def tiny_recipe(**training) -> Recipe:
    options = {
        "num_steps": 12,
        "batch_size": 4,
        "frames_per_clip": 2,
        "learning_rate": 1e-2,
        "warmup_steps": 3,
        "ema_decay": 0.9,
        "precision": "fp32",
        "compile": "off",
        "checkpoint_minutes": 60.0,
        "validate_every_steps": 5,
        "num_validation_clips": 4,
        "log_every_steps": 1,
    }
    return from_dict(
        Recipe,
        {
            "method": "tiny",
            "seed": 3,
            "model": {"preset": "tiny", "image_size": SIZE, "channels": 1},
            "data": {"frames_per_sequence": 5, "min_frames": 4, "min_span": 0.6},
            "training": options | training,
            "sampling": {"num_inference_steps": 2},
        },
    )


def divid_recipe(tokens: dict[str, float], **training) -> Recipe:
    """Give a recipe of the smallest DiViD for the tiny clips, with some options of its tokens."""
    model = {
        "preset": "tiny", "image_size": SIZE, "channels": 1, "tokens": tokens,
        "encoder": {"base_channels": 16, "multipliers": [1, 2]},
        "denoiser": {"channels": [32, 32], "attention_levels": [1], "attention_width": 32},
    }  # fmt: skip
    recipe = tiny_recipe(**training)
    recipe.method, recipe.model = "divid", from_dict(ModelConfig, model)
    return recipe


def install(set_attribute) -> None:
    """Register the method and replace the opening of data sets; `set_attribute` is `setattr` or a monkeypatch's."""
    from divid.methods import METHODS
    from divid.training import fit

    METHODS["tiny"] = TinyMethod
    set_attribute(fit, "open_splits", lambda paths, image_size, channels: (TinyClips(channels=channels), TinyClips(6, channels)))


def main() -> None:
    from divid.cli.main import main as divid

    install(setattr)
    code = divid(["train", *sys.argv[1:]])
    assert code or not torch.distributed.is_initialized(), "the processes did not part"
    sys.exit(code)


if __name__ == "__main__":
    main()
