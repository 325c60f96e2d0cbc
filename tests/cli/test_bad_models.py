"""Bad models, checkpoints and data sets at the command line: exit code 2, one line that says what to do, every file as it was."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file, save_file

from divid.cli.main import main
from divid.export import WEIGHTS_NAME
from divid.recipes import load_recipe
from divid.training.checkpoints import LAST, read_checkpoint
from divid.training.fit import train
from made_data import make_set, write_images

RECIPE = """
model: {image_size: 16, encoder: {base_channels: 8, multipliers: [1, 2], static_hidden: 16, lstm_hidden: 16, attention_heads: 2},
  tokens: {static_dim: 16, dynamic_dim: 8},
  denoiser: {channels: [8, 16], attention_levels: [1], attention_heads: 2, attention_width: 16, norm_groups: 8}}
data: {frames_per_sequence: 4, min_frames: 4}
training: {num_steps: 2, batch_size: 2, frames_per_clip: 2, precision: fp32, compile: "off", num_validation_clips: 1}
sampling: {num_inference_steps: 1}
"""


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "model" / WEIGHTS_NAME
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


def change_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


BAD_MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "another architecture": (
        lambda folder: change_weights(folder, lambda weights: weights.update(empty_static=torch.zeros(9))),
        r"another architecture: parameter 'empty_static' has shape \(9,\), expected \(16,\)",
    ),
    "lacks a weight": (lambda folder: change_weights(folder, lambda weights: weights.pop("empty_static")), "lacks parameter"),
    "NaN weights": (
        lambda folder: change_weights(folder, lambda weights: weights["empty_static"].fill_(float("nan"))),
        "holds NaN or infinite values; use an earlier model",
    ),
    "another pipeline": (
        lambda folder: change_json(folder / "model_index.json", _class_name="StableDiffusionPipeline"),
        "holds a StableDiffusionPipeline.*give a model that divid has saved",
    ),
    "cut weights": (lambda folder: os.truncate(folder / "model" / WEIGHTS_NAME, 500), "is damaged.*copy or save the model again"),
    "no model": (lambda folder: shutil.rmtree(folder), "give a model or run folder"),
}


@pytest.mark.parametrize("kind", BAD_MODELS)
def test_bad_models(kind, clips, model_folder, tmp_path, refused):
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    spoil, message = BAD_MODELS[kind]
    spoil(folder)
    (tmp_path / "c.mp4").write_bytes(b"keep me")
    words = ["swap", "--appearance", clips / "a.mp4", "--motion", clips / "b.mp4", "--out", tmp_path / "c.mp4"]
    refused([*words, "--model", folder, "--device", "cpu"], message)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recipe.yaml, a prepared set and a finished run of two steps."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "recipe.yaml").write_text(RECIPE)
    for name in ("anna", "ben", "carl"):
        write_images(folder / "clips" / name, 6)
    make_set(folder / "clips", folder / "set", "folder", channels=3)
    train(load_recipe(folder / "recipe.yaml"), [folder / "set"], folder / "run", device="cpu", progress=False)
    return folder


def train_words(folder: Path, run: Path, *more: object) -> list[str]:
    words = ["train", "--config", folder / "recipe.yaml", "--data", folder / "set", "--out", run, "--device", "cpu", *more]
    return [str(word) for word in words]


def change_checkpoint(run: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = run / "checkpoints" / LAST
    checkpoint = read_checkpoint(path)
    change(checkpoint["current_model_state"])
    torch.save(checkpoint, path)


BAD_RUNS: dict[str, tuple[Callable[[Path], object], str]] = {
    "another architecture": (
        lambda run: change_checkpoint(run, lambda weights: weights.update({"model.empty_static": torch.zeros(9)})),
        r"another architecture: model.empty_static has shape \(9,\).*resume with the recipe that the run began with",
    ),
    "NaN weights": (
        lambda run: change_checkpoint(run, lambda weights: weights["model.empty_static"].fill_(float("nan"))),
        "not numbers in model.empty_static: delete it to go on from an older one",
    ),
    "another program": (lambda run: torch.save({"a": 1}, run / "checkpoints" / LAST), "is not a checkpoint of a divid"),
    "cut": (lambda run: os.truncate(run / "checkpoints" / LAST, 500), "cannot be read.*delete it to go on"),
    "no run": (lambda run: shutil.rmtree(run), "train without --resume"),
    "another recipe": (
        lambda run: (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace("batch_size: 2", "batch_size: 4")),
        r"training.batch_size \(4 then, 2 now\); resume with the old values",
    ),
}


@pytest.mark.parametrize("kind", BAD_RUNS)
def test_bad_checkpoints(kind, trained, tmp_path, refused):
    run = Path(shutil.copytree(trained / "run", tmp_path / "run"))
    spoil, message = BAD_RUNS[kind]
    spoil(run)
    refused(train_words(trained, run, "--resume"), message)


def test_a_run_goes_on_by_its_folder_alone(trained, tmp_path, refused):
    run = Path(shutil.copytree(trained / "run", tmp_path / "run"))
    go_on = ["train", "--out", str(run), "--resume", "--device", "cpu"]
    assert main([*go_on, "--set", "training.num_steps=3"]) == 0
    assert [row.split(",")[0] for row in (run / "metrics.csv").read_text().splitlines()[1:]][-1] == "3"
    assert load_recipe(run / "recipe.yaml").training.num_steps == 3
    refused([*go_on, "--set", "training.batch_size=4"], r"training.batch_size \(2 then, 4 now\); resume with the old values")
    refused([*go_on, "--seed", "5"], r"seed \(0 then, 5 now\)")
    refused([*go_on, "--method", "dbse"], "trains divid, not dbse: leave --method out")
    nowhere = ["train", "--out", str(tmp_path / "none"), "--resume"]
    for words in (nowhere, [*nowhere, "--config", str(trained / "recipe.yaml")], [*nowhere, "--data", str(trained / "set")]):
        refused(words, "no checkpoint in .* to resume from: train without --resume")


@pytest.mark.parametrize(("left_out", "message"), [("--config", "--config is missing: give a recipe"), ("--data", "is missing")])
def test_a_new_run_needs_recipe_and_data(left_out, message, trained, tmp_path, refused):
    words = train_words(trained, tmp_path / "run")
    del words[words.index(left_out) : words.index(left_out) + 2]
    refused(words, message)


def test_widths_that_do_not_fit_together(trained, tmp_path, refused):
    words = train_words(trained, tmp_path / "run", "--set", "model.encoder.attention_heads=5")
    refused(words, "the recipe's model cannot be built .*divisible.*: change the keys under 'model'")


@pytest.mark.parametrize("command", ["train", "evaluate", "info"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("foreign", "is no prepared data set .*make one with divid prepare"),
        ("foreign columns", "lacks the column .* prepare the data set again"),
        ("empty", "holds no clip: prepare it again"),
        ("missing", "does not exist|no file or folder"),
    ],
)
def test_bad_data_sets(command, kind, message, trained, tmp_path, refused):
    data = tmp_path / "set"
    if kind != "missing":
        shutil.copytree(trained / "set", data, ignore=shutil.ignore_patterns(".cache"))
    if kind.startswith("foreign"):
        for path in (data / "data").iterdir():
            pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), path)
    if kind == "foreign":
        (data / "dataset.json").unlink()
        (data / "contact_sheet.png").unlink()
    if kind == "empty":
        change_json(data / "dataset.json", shards=[])
    words = {
        "train": ["train", "--config", trained / "recipe.yaml", "--data", data, "--out", tmp_path / "run", "--device", "cpu"],
        "evaluate": ["evaluate", "--model", trained / "run", "--data", data, "--out", tmp_path / "out", "--device", "cpu"],
        "info": ["info", data],
    }[command]
    refused(words, message)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("missing/run", "does not exist: make it first"),
        ("set", "is the data set itself: give the run a folder of its own"),
        ("run", "is not empty: give another folder, or go on with that run by --resume"),
        ("recipe.yaml", "is a file: give a folder"),
    ],
)
def test_bad_outputs_of_train(wrong, message, trained, tmp_path, refused):
    folder = Path(shutil.copytree(trained, tmp_path / "trained"))
    refused(train_words(folder, folder / wrong), message)


@pytest.mark.usefixtures("full_disk")
def test_full_disk_in_train_and_prepare(trained, tmp_path, refused):
    refused(train_words(trained, tmp_path / "run"), "No space left on device.*free some space", is_logged=True)
    words = ["prepare", "folder", "--source", trained / "clips", "--out", tmp_path / "set", "--processes", "1"]
    refused(words, "No space left on device.*free some space", is_logged=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
