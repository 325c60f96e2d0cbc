"""Training on from the weights of another model."""

from __future__ import annotations

import json
from typing import Any

from torch import nn

from divid.config import to_dict
from divid.errors import ConfigError
from divid.export import load_model, resolve_model

TOLD_BY_TRAINING = ("max_frame_spacing", "frames_per_sequence", "num_train_steps", "num_train_clips")
"""Options that the data or the recipe set; they have no part in the shapes of the weights."""

GRIDS = ("static_grid.", "dynamic_grid.")
"""Weights of the bottleneck `rate`, which may begin in a model that was trained without it."""


def take_weights(model: nn.Module, name: str) -> None:
    """Give an untrained model the weights of a trained one; the grids of the bottleneck `rate` may be new to it.

    Args:
        model: As the recipe has it, on the CPU; its weights are replaced.
        name: A model or run folder, a bundled model's name, or a Hub id.

    Raises:
        ConfigError: The trained model is of another method or has other shapes; the options that differ are named.
        ModelError: There is no such model, or it is damaged.
    """
    trained: Any = load_model(resolve_model(name))[0]
    if type(trained) is not type(model):
        raise ConfigError(
            f"training.initial_model {name!r} is a {type(trained).__name__}, but the recipe trains a {type(model).__name__}: "
            "give another model, or --method"
        )
    weights, wanted = trained.state_dict(), model.state_dict()
    if not any(key.startswith(GRIDS) for key in weights):
        weights |= {key: value for key, value in wanted.items() if key.startswith(GRIDS)}
    if {key: value.shape for key, value in weights.items()} != {key: value.shape for key, value in wanted.items()}:
        raise ConfigError(f"training.initial_model {name!r} has another architecture: {_differences(model, trained)}")
    model.load_state_dict({key: value.to(wanted[key].dtype) for key, value in weights.items()})


def _differences(model: Any, trained: Any) -> str:
    ours, its = _flat(to_dict(model.options)), _flat(to_dict(trained.options))
    changes = [
        f"model.{key}={json.dumps(its.get(key), separators=(',', ':'))}"
        for key in ours
        if ours[key] != its.get(key) and key not in TOLD_BY_TRAINING
    ]
    return f"to train on from it, --set {' '.join(changes)}"


def _flat(values: dict[str, Any], place: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{place}{key}.") if isinstance(value, dict) else {f"{place}{key}": value}
    return flat
