"""Model folders: a trained method as safetensors and JSON, which `DividPipeline` and the Hub understand.

    model_index.json                             the pipeline: class of the model, default sampling
    model/config.json                            the method's options, fully resolved
    model/diffusion_pytorch_model.safetensors    the weights
    README.md                                    the card: data, recipe, commit, numbers, limits
    samples.png                                  bundled models only: a sheet of swaps, which the card shows

Nothing is ever unpickled.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import yaml
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from divid.config import SamplingConfig, from_dict, to_dict
from divid.errors import ConfigError, InputError, ModelError, OutputError, nearest
from divid.json_files import read_json, write_json
from divid.methods import METHODS
from divid.models.layout import channels_last
from divid.presets import fill_in_younger
from divid.types import Disentangler

PIPELINE_CLASS = "DividPipeline"
INDEX_NAME = "model_index.json"
CARD_NAME = "README.md"
CHECKSUMS_NAME = "SHA256SUMS"
SHEET_NAME = "samples.png"
REMEDY = "save the model again, or give another"
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
ZOO_FOLDER = Path(__file__).parent / "zoo"
PICKLE_ENDINGS = (".bin", ".ckpt", ".pt", ".pth", ".pkl")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_logger = logging.getLogger("divid")


def save_model(
    model: Disentangler,
    sampling: SamplingConfig,
    folder: Path,
    card: Mapping[str, Any] | str,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model folder: all of it or nothing; a model folder that is already there is replaced.

    Args:
        model: A method of `METHODS`.
        sampling: How it samples unless told otherwise.
        folder: Where to; made if missing.
        card: The README: its text, or `title` and further keys, each a section (text, a list, or a mapping shown as YAML).
        dtype: Type in which the weights are written; None: as they are. They are loaded as float32.

    Raises:
        OutputError: The folder holds something else, or cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and ((folder / INDEX_NAME).is_file() or not any(folder.iterdir()))):
        raise OutputError(f"{folder} exists and is not a model folder: give another name, or remove it first")
    module: Any = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    if dtype is not None:
        module = copy.deepcopy(module).to(dtype)
    index = {
        "_class_name": PIPELINE_CLASS,
        "_diffusers_version": diffusers.__version__,
        "model": [type(module).__module__, type(module).__name__],
        "sampling": to_dict(sampling),
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
            new, old = Path(name) / "new", Path(name) / "old"
            module.save_pretrained(new / "model")
            write_json(new / INDEX_NAME, index)
            (new / CARD_NAME).write_text(card if isinstance(card, str) else render_card(card), encoding="utf-8")
            for path in (new / "model").iterdir():  # safetensors gives its files to their owner only
                path.chmod((new / CARD_NAME).stat().st_mode)
            _swap_folders(new, folder, old)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write the model folder {folder}: {_one_line(error)}") from error


def load_model(folder: Path | str) -> tuple[Disentangler, SamplingConfig]:
    """Load a method and its default sampling from a model folder, or from a run folder (its `model/`).

    Every weight of the method must be in the file with the right shape and finite, and nothing else may be there.

    Args:
        folder: A model folder or a run folder.

    Returns:
        The method on the CPU, in evaluation mode and with channels last, and its sampling.

    Raises:
        ModelError: The folder is no such folder, is damaged, or holds another architecture; the parameter that differs is named.
    """
    folder = find_model_folder(Path(folder))
    index = read_json(folder / INDEX_NAME, ModelError, REMEDY)
    if index.get("_class_name") != PIPELINE_CLASS:
        got = index.get("_class_name")
        raise ModelError(f"{folder} holds a {got}, not a {PIPELINE_CLASS}: give a model that divid has saved")
    try:
        sampling = from_dict(SamplingConfig, index.get("sampling") or {}, "sampling").validate()
    except (ConfigError, TypeError) as error:
        raise ModelError(f"{folder / INDEX_NAME}: {_one_line(error)}") from error
    model = _build(folder, index)
    weights = _read_weights(folder / "model")
    _check_weights(folder, model.state_dict(), weights)
    model.load_state_dict(weights)
    return channels_last(model.eval()), sampling  # type: ignore[return-value]  # classes of METHODS are Disentanglers


def find_model_folder(folder: Path) -> Path:
    """Give the model folder that a path means: itself, or the `model/` of a run folder.

    Raises:
        ModelError: There is none; the message says what is there instead.
    """
    if folder.suffix in PICKLE_ENDINGS or folder.is_file():
        raise ModelError(f"{folder} is a file: give a model folder or a run folder (checkpoints serve only divid train --resume)")
    if not folder.is_dir():
        raise ModelError(f"no model folder {folder}: check the path")
    for candidate in (folder, folder / "model"):
        if (candidate / INDEX_NAME).is_file():
            return candidate
    if (folder / "checkpoints").is_dir() or (folder / "recipe.yaml").is_file():
        raise ModelError(f"the run {folder} has no model yet: let it finish, or go on with divid train --resume")
    raise ModelError(f"{folder} is not a model folder: it has no {INDEX_NAME}")


def bundled_models() -> dict[str, Path]:
    """Give the models that come with the package: name -> folder."""
    if not ZOO_FOLDER.is_dir():
        return {}
    return {path.name: path for path in sorted(ZOO_FOLDER.iterdir()) if (path / INDEX_NAME).is_file()}


def resolve_model(name: str | Path, **hub_options: Any) -> Path:
    """Find the folder of a model by path, by the name of a bundled one, or by its Hub id (which downloads it once).

    Args:
        name: A path, a bundled model's name, or `owner/name`.
        hub_options: Passed on to `huggingface_hub.snapshot_download` (revision, token, cache_dir, local_files_only).

    Raises:
        ModelError: Nothing of that name can be found, or a bundled model is not as it was shipped.
    """
    text, path = str(name), Path(name).expanduser()
    if path.exists():
        return find_model_folder(path)
    bundled = bundled_models()
    if text in bundled:
        _check_sums(text, bundled[text])
        return bundled[text]
    if isinstance(name, Path) or path.suffix in PICKLE_ENDINGS or not _HUB_ID.fullmatch(text):
        hint = nearest(text, bundled) if bundled else ""
        raise ModelError(f"no model {text!r}: give a model or run folder, a bundled model's name, or a Hub id owner/name{hint}")
    return _download(text, hub_options)


def bundle_model(source: Path, name: str, card: Mapping[str, Any], sheet: Path | None = None) -> Path:
    """Make a trained model part of the package: weights in bfloat16, a card with a sample sheet, and the checksum of every file.

    Args:
        source: Model or run folder.
        name: Name under which `resolve_model` will find it.
        card: As for `save_model`.
        sheet: Picture of swaps that the card shows, as `divid evaluate` writes it.

    Returns:
        Its folder.

    Raises:
        InputError: The sheet is not there or is no picture.
        ModelError: `source` holds no model.
        OutputError: The folder cannot be written.
    """
    model, sampling = load_model(source)
    folder = ZOO_FOLDER / name
    picture = None if sheet is None else _small_picture(sheet)
    (folder / CHECKSUMS_NAME).unlink(missing_ok=True)
    save_model(model, sampling, folder, card, dtype=torch.bfloat16)
    if picture is not None:
        picture.save(folder / SHEET_NAME, optimize=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    try:
        (folder / CHECKSUMS_NAME).write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {folder / CHECKSUMS_NAME}: {_one_line(error)}") from error
    return folder


def _small_picture(path: Path) -> Image.Image:
    """Read a picture and keep 256 of its colours, which makes its file three times smaller."""
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no picture ({_one_line(error)}): name the swaps.png of an evaluation") from error


def render_card(card: Mapping[str, Any]) -> str:
    """Write a model card as Markdown with the Hub's header.

    Args:
        card: `title` and further keys, each a section in the given order.
    """
    header = yaml.safe_dump({"library_name": "divid", "tags": ["video", "disentanglement", "diffusion"]}, sort_keys=False)
    parts = [f"---\n{header}---\n", f"# {card.get('title', 'DiViD model')}\n"]
    parts.append(
        "Splits a video into one appearance token and one motion token a frame. Load it with "
        "`divid.DividPipeline.from_pretrained(FOLDER)` or use `divid swap --model FOLDER`.\n"
    )
    for key, value in card.items():
        if key == "title" or value in (None, "", [], {}):
            continue
        parts.append(f"## {key.replace('_', ' ').capitalize()}\n")
        if isinstance(value, Mapping):
            parts.append(f"```yaml\n{yaml.safe_dump(_plain(value), sort_keys=False, allow_unicode=True)}```\n")
        elif isinstance(value, (list, tuple)):
            parts.append("".join(f"- {item}\n" for item in value))
        else:
            parts.append(f"{value}\n")
    return "\n".join(parts)


def _plain(value: Any) -> Any:
    """Make a value that YAML's safe dumper takes."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _check_sums(name: str, folder: Path) -> None:
    """Compare a bundled model with the checksums that were shipped with it."""
    sums = folder / CHECKSUMS_NAME
    try:
        lines = [line.split("  ", 1) for line in sums.read_text(encoding="utf-8").splitlines()]
        wrong = [path for digest, path in lines if _sha256(folder / path) != digest]
    except (OSError, ValueError) as error:
        raise ModelError(f"the bundled model {name} is incomplete ({_one_line(error)}): install divid again") from error
    if wrong:
        raise ModelError(f"the bundled model {name} is damaged: {wrong[0]} is not as it was shipped; install divid again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _swap_folders(new: Path, folder: Path, old: Path) -> None:
    if not folder.exists():
        os.replace(new, folder)
        return
    os.replace(folder, old)
    try:
        os.replace(new, folder)
    except OSError:
        os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _build(folder: Path, index: Mapping[str, Any]) -> torch.nn.Module:
    """Make the untrained method that the folder's JSON describes."""
    entry = index.get("model")
    class_name = entry[-1] if isinstance(entry, list) and entry else None
    classes = {cls.__name__: cls for cls in METHODS.values()}
    if class_name not in classes:
        raise ModelError(f"{folder} holds a {class_name}, which is no method of this divid (it has: {', '.join(classes)})")
    config = read_json(folder / "model" / "config.json", ModelError, REMEDY)
    if config.get("_class_name") != class_name:
        raise ModelError(f"{folder}: {INDEX_NAME} names {class_name}, but model/config.json is of {config.get('_class_name')}")
    options = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        if "options" in options:
            options["options"] = fill_in_younger(options["options"])
        return classes[class_name](**options)
    except (ConfigError, TypeError, ValueError, KeyError) as error:
        raise ModelError(f"{folder / 'model' / 'config.json'} does not describe a {class_name}: {_one_line(error)}") from error


def _read_weights(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        pickles = [p.name for p in sorted(folder.iterdir()) if p.suffix in PICKLE_ENDINGS]
        why = f" ({pickles[0]} is a pickle, which divid never loads)" if pickles else ""
        raise ModelError(f"{folder} has no {WEIGHTS_NAME}{why}: save the model again")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path} is damaged ({_one_line(error)}): copy or save the model again") from error


def _check_weights(folder: Path, expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> None:
    missing, unexpected = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    if missing or unexpected:
        kind, names = ("lacks", missing) if missing else ("has an unknown", unexpected)
        more = f" and {len(missing) + len(unexpected) - 1} other differences" if len(missing) + len(unexpected) > 1 else ""
        raise ModelError(f"{folder} is of another architecture: its weights file {kind} parameter {names[0]!r}{more}")
    for name, tensor in expected.items():
        if got[name].shape != tensor.shape:
            raise ModelError(
                f"{folder} is of another architecture: parameter {name!r} has shape {tuple(got[name].shape)}, "
                f"expected {tuple(tensor.shape)}"
            )
        if not torch.isfinite(got[name]).all():
            raise ModelError(f"{folder} is broken: parameter {name!r} holds NaN or infinite values; use an earlier model")


def _download(hub_id: str, hub_options: Mapping[str, Any]) -> Path:
    """Fetch only what `load_model` reads: no code, no pickles."""
    from huggingface_hub import snapshot_download

    wanted = [INDEX_NAME, CARD_NAME, "model/config.json", f"model/{WEIGHTS_NAME}"]
    _logger.info("looking for %s on the Hugging Face Hub", hub_id)
    try:
        return find_model_folder(Path(snapshot_download(hub_id, allow_patterns=wanted, **hub_options)))
    except ModelError:
        raise
    except Exception as error:  # the Hub client raises errors of several HTTP libraries
        raise ModelError(
            f"no folder and no bundled model {hub_id!r}, and the Hugging Face Hub did not give it ({type(error).__name__}): "
            "check the name and the connection"
        ) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
