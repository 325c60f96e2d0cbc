"""`divid info`: versions, device and models; or what a video, data set, run or model holds."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from divid.cli import common
from divid.errors import InputError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

PACKAGES = ("torch", "diffusers", "pytorch-lightning", "datasets", "av")
EXTRAS = {"eval": ("sklearn", "torchmetrics"), "faces": ("cv2",), "studio": ("gradio",)}
"""Extra -> the modules that it brings."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("path", nargs="?", default=None, help="video, prepared data set, run or model; default: this machine")


def run(args: Namespace) -> None:
    """Show."""
    rows = describe_machine() if args.path is None else describe_path(Path(args.path))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        common.say(f"{name:<{width}}  {value}")


def describe_machine() -> list[tuple[str, Any]]:
    """Give versions, device, cores, bundled models, recipes and extras."""
    import torch

    from divid._version import __version__
    from divid.recipes import list_recipes

    common.quiet_libraries()
    from divid.export import bundled_models

    has_gpu = torch.cuda.is_available()
    missing = {
        extra: [module for module in modules if importlib.util.find_spec(module) is None] for extra, modules in EXTRAS.items()
    }
    return [
        ("divid", __version__),
        ("python", platform.python_version()),
        *((name, importlib.metadata.version(name)) for name in PACKAGES),
        ("device", torch.cuda.get_device_name() if has_gpu else "cpu"),
        ("cores", len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        ("bf16", _has_bf16()),
        ("bundled models", ", ".join(bundled_models()) or "none"),
        ("recipes", ", ".join(list_recipes()) or "none"),
        *((f"extra {name}", f"missing {', '.join(modules)}" if modules else "installed") for name, modules in missing.items()),
    ]


def describe_path(path: Path) -> list[tuple[str, Any]]:
    """Tell what a path holds.

    Raises:
        InputError: It does not exist, or is nothing that divid knows.
    """
    from divid.export import bundled_models
    from divid.video import is_video_like

    bundled = bundled_models()
    if not path.exists() and str(path) in bundled:
        return describe_model(bundled[str(path)])
    if not path.exists():
        raise InputError(f"no file or folder {path}, and no bundled model of that name: check the path")
    if path.is_dir() and any((path / name).exists() for name in ("model_index.json", "recipe.yaml")):
        return describe_model(path)
    if path.is_dir() and ((path / "dataset.json").exists() or not is_video_like(path)):
        return describe_dataset(path)  # asked before videos, since the contact sheet makes it look like a folder of images
    return describe_video(path)


def describe_video(path: Path) -> list[tuple[str, Any]]:
    """Give a video's size, length and rate."""
    from divid.video import open_video

    with open_video(path) as reader:
        info = reader.info
        return [
            ("video", path),
            ("kind", info.kind),
            ("size", f"{info.width}x{info.height}"),
            ("frames", "unknown" if info.num_frames is None else info.num_frames),
            ("frames a second", f"{reader.fps:g}"),
        ]


def describe_dataset(path: Path) -> list[tuple[str, Any]]:
    """Give a prepared data set's size and labels."""
    from divid.data.clips import ClipDataset

    info = ClipDataset.open(path).info
    return [
        ("data set", ", ".join(info.names)),
        ("clips", info.num_clips),
        ("frames", info.num_frames),
        ("size", f"{info.image_size}x{info.image_size}, {'grey' if info.channels == 1 else 'RGB'}"),
        *((f"{kind} factors", ", ".join(factors) or "none") for kind, factors in info.factors.items()),
    ]


def describe_model(path: Path) -> list[tuple[str, Any]]:
    """Give a model's method, size and default sampling, and where it comes from if it is a run."""
    common.quiet_libraries()
    from divid.export import load_model
    from divid.json_files import read_json

    rows: list[tuple[str, Any]] = []
    if (path / "run.json").is_file():
        record = read_json(path / "run.json", InputError, "look at the model in its folder model/ instead")
        rows = [("run", path)] + [(key, value) for key, value in record.items() if isinstance(value, (str, int, float))]
    model, sampling = load_model(path)
    options = model.options  # type: ignore[attr-defined]  # every method has them
    return [
        *rows,
        ("model", type(model).__name__),
        ("parameters", f"{sum(p.numel() for p in model.parameters()):,}"),  # type: ignore[attr-defined]  # a torch module
        ("frame size", f"{options.image_size}x{options.image_size}, {'grey' if options.channels == 1 else 'RGB'}"),
        ("trained on", f"{options.frames_per_sequence} frames a sequence"),
        ("widest spacing", f"{options.max_frame_spacing} frames" if options.max_frame_spacing else "unknown, any"),
        ("sampling", f"{sampling.solver}, {sampling.num_inference_steps} steps"),
    ]


def _has_bf16() -> str:
    import torch

    if torch.cuda.is_available():
        return "yes" if torch.cuda.is_bf16_supported() else "no"
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    return "in hardware" if "avx512_bf16" in flags or "amx_bf16" in flags else "emulated"
