"""Split a video into what stays and what moves, and put one video's appearance together with another's motion."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from divid._version import __version__

if TYPE_CHECKING:
    from divid.config import DataConfig, ModelConfig, Recipe, SamplingConfig, TrainingConfig
    from divid.data.clips import ClipDataset
    from divid.errors import DividError
    from divid.export import load_model, save_model
    from divid.methods import METHODS
    from divid.model_parts import BottleneckConfig, DenoiserConfig, DiffusionConfig, EncoderConfig, TokenConfig
    from divid.models.divid import DividModel
    from divid.pipeline import DividPipeline
    from divid.types import Codes, Disentangler
    from divid.video import open_video, read_video, write_video

_PLACES = {
    "DividPipeline": "divid.pipeline",
    "DividModel": "divid.models.divid",
    "METHODS": "divid.methods",
    "Codes": "divid.types",
    "Disentangler": "divid.types",
    "Recipe": "divid.config",
    "ModelConfig": "divid.config",
    "EncoderConfig": "divid.model_parts",
    "TokenConfig": "divid.model_parts",
    "BottleneckConfig": "divid.model_parts",
    "DenoiserConfig": "divid.model_parts",
    "DiffusionConfig": "divid.model_parts",
    "DataConfig": "divid.config",
    "TrainingConfig": "divid.config",
    "SamplingConfig": "divid.config",
    "ClipDataset": "divid.data.clips",
    "load_model": "divid.export",
    "save_model": "divid.export",
    "open_video": "divid.video",
    "read_video": "divid.video",
    "write_video": "divid.video",
    "DividError": "divid.errors",
}
"""Where each public name lives. Modules load on first use: torch and diffusers cost seconds, `import divid` should not."""

__all__ = [
    "DividPipeline",
    "DividModel",
    "METHODS",
    "Codes",
    "Disentangler",
    "Recipe",
    "ModelConfig",
    "EncoderConfig",
    "TokenConfig",
    "BottleneckConfig",
    "DenoiserConfig",
    "DiffusionConfig",
    "DataConfig",
    "TrainingConfig",
    "SamplingConfig",
    "ClipDataset",
    "load_model",
    "save_model",
    "open_video",
    "read_video",
    "write_video",
    "DividError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'divid' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
