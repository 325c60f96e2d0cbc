"""The sizes a DiViD model comes in: values for the fields that a config leaves open."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal

PresetName = Literal["tiny", "small", "base", "paper"]

_COMMON: dict[str, Any] = {
    "tokens": {"static_dim": 256, "dynamic_dim": 32, "static_dropout": 0.1, "dynamic_dropout": 0.1},
    "feature_loss": {"network": "none"},
    "diffusion": {"prediction_type": "v_prediction", "schedule": "cosine", "shared_training": False},
}

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        **_COMMON,
        "image_size": 32,
        "encoder": {"base_channels": 16, "blocks_per_level": 1, "patch_size": 2, "feature_channels": 4, "static_hidden": 256},
        "tokens": {**_COMMON["tokens"], "static_dim": 128},
        "denoiser": {
            "channels": (32, 48, 64),
            "blocks_per_level": 1,
            "patch_size": 2,
            "attention_levels": (1, 2),
            "conditioning": "cross_attention",
            "attention_head_width": 16,
            "attention_width": 128,
            "norm_groups": 8,
        },
    },
    "small": {
        **_COMMON,
        "image_size": 64,
        "encoder": {"base_channels": 32, "blocks_per_level": 2, "patch_size": 1, "feature_channels": 3, "static_hidden": 1024},
        "denoiser": {
            "channels": (32, 64, 96, 128),
            "blocks_per_level": 2,
            "patch_size": 1,
            "attention_levels": (2, 3),
            "conditioning": "both",
            "attention_head_width": 32,
            "attention_width": 256,
            "norm_groups": 8,
        },
    },
    "base": {
        **_COMMON,
        "image_size": 64,
        "encoder": {"base_channels": 64, "blocks_per_level": 2, "patch_size": 1, "feature_channels": 3, "static_hidden": 1024},
        "denoiser": {
            "channels": (64, 128, 192, 256),
            "blocks_per_level": 2,
            "patch_size": 1,
            "attention_levels": (1, 2, 3),
            "conditioning": "cross_attention",
            "attention_head_width": 32,
            "attention_width": 256,
            "norm_groups": 8,
        },
    },
    "paper": {
        "image_size": 64,
        "encoder": {"base_channels": 128, "blocks_per_level": 2, "patch_size": 1, "feature_channels": 3, "static_hidden": 1024},
        "tokens": {"static_dim": 256, "dynamic_dim": 256, "static_dropout": 0.0, "dynamic_dropout": 0.0},
        "denoiser": {
            "channels": (128, 256, 384, 512),
            "blocks_per_level": 2,
            "patch_size": 1,
            "attention_levels": (1, 2, 3),
            "conditioning": "cross_attention",
            "attention_head_width": 0,
            "attention_width": 256,
            "norm_groups": 32,
        },
        "feature_loss": {"network": "none"},
        "diffusion": {"prediction_type": "epsilon", "schedule": "linear", "shared_training": True},
    },
}
"""Values that a preset gives to the fields left at `None`; sizes as in the README's table."""

_YOUNGER_FIELDS: dict[str, dict[str, Any]] = {"denoiser": {"attention_head_width": 0}}
"""Fields that presets fill in, and that models saved before there were such do not have: what was done then."""


def fill_in(config: Any, preset: dict[str, Any]) -> Any:
    """Fill in the fields left at `None`, in a config and in those that it holds.

    Args:
        config: A dataclass.
        preset: Values by field; for a field that is a dataclass, a dict of its own.
    """
    changes = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            changes[f.name] = fill_in(value, preset.get(f.name, {}))
        elif value is None and f.name == "scale_input":
            changes[f.name] = (config.prediction_type or preset["prediction_type"]) == "v_prediction"
        elif value is None:
            changes[f.name] = preset[f.name]
    return replace(config, **changes)


def fill_in_younger(model: Any) -> Any:
    """Give the saved options of a model with what was done before there were the fields that they lack.

    A saved model or recipe says everything, so that no preset that has changed since makes another network of it.

    Args:
        model: All options of the model as JSON or YAML holds them. What is no mapping is left for the check of the config.
    """
    if not isinstance(model, dict):
        return model
    parts = {part: model[part] for part in _YOUNGER_FIELDS if isinstance(model.get(part), dict)}
    return {**model, **{part: {**_YOUNGER_FIELDS[part], **values} for part, values in parts.items()}}
