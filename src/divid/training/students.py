"""The recipe of a few-step student, made from its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from divid.config import Recipe, to_dict
from divid.errors import ModelError
from divid.export import load_model, resolve_model
from divid.models.divid import DividModel
from divid.recipes import load_recipe, recipe_from_values

TRAINING: dict[str, Any] = {
    "num_steps": 2000, "batch_size": 8, "frames_per_clip": 4, "learning_rate": 3e-4, "warmup_steps": 100, "ema_decay": 0.995,
    "validate_every_steps": 500,
}  # fmt: skip
"""How a student is trained, beside the defaults of `TrainingConfig`."""

SAMPLING: dict[str, Any] = {"solver": "consistency", "num_inference_steps": 1}
"""How a student is sampled, unless asked otherwise."""


def student_recipe(teacher: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Make the recipe that distils a model: its sizes and, where its run folder tells them, its way of drawing clips.

    Args:
        teacher: Model folder, run folder, bundled model or Hub id.
        overrides: Values by dotted key, as in `{"training.num_steps": 10}`.

    Raises:
        ModelError: There is no such model, or it is not a DiViD model.
        ConfigError: A key is unknown, or a value has the wrong type or range.
    """
    folder = resolve_model(teacher)
    model, sampling = load_model(folder)
    if not isinstance(model, DividModel):
        raise ModelError(f"{teacher} is a {type(model).__name__}: only a DiViD model has a few-step student")
    options = to_dict(model.options)
    switched_off = ("static_dropout", "dynamic_dropout", "motion_augmentation", "static_flip", "orthogonality_memory")
    options["tokens"] |= {name: type(options["tokens"][name])() for name in switched_off}
    options["diffusion"]["timestep_shift"] = 1.0
    values: dict[str, Any] = {
        "method": "consistency",
        "model": {**options, "teacher": str(teacher)},
        "data": {"frames_per_sequence": model.options.frames_per_sequence, "min_frames": model.options.frames_per_sequence},
        "training": dict(TRAINING),
        "sampling": {"chunk_frames": sampling.chunk_frames, **SAMPLING},
    }
    run = folder.parent / "recipe.yaml"
    if run.is_file():
        before = to_dict(load_recipe(run))
        values["data"] = before["data"] | {"augmentation": 0.0}
        values["training"] |= {key: before["training"][key] for key in ("batch_size", "frames_per_clip", "precision")}
    return recipe_from_values(values, overrides)
