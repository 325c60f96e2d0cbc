"""The baselines by recipe: read, trained by the common trainer, resumed, exported and used by the pipeline."""

import re

import numpy as np
import pytest

from divid.baselines.options import DBSEConfig, SPYLConfig
from divid.config import ModelConfig, from_dict
from divid.errors import ConfigError
from divid.methods import METHODS
from divid.pipeline import DividPipeline
from divid.recipes import MODEL_CONFIGS, dump_recipe, flatten, load_recipe
from divid.training import fit
from divid.training.metrics import read_metrics
from memory_clips import ClipsInMemory

BASELINES = ("dbse", "spyl")
RECIPE = """
seed: 3
model:
  image_size: 16
  channels: 1
  encoder: {base_channels: 8, multipliers: [1, 2], blocks_per_level: 1, feature_channels: 2}
  tokens: {static_dim: 12}
data: {frames_per_sequence: 5, min_frames: 4, min_span: 0.6}
training: {num_steps: 6, batch_size: 4, warmup_steps: 2, precision: fp32, compile: off, validate_every_steps: 3,
  num_validation_clips: 4, log_every_steps: 1, frames_per_clip: 2, learning_rate_schedule: constant}
"""


def random_clips():
    """Nine clips of 6 to 12 frames."""
    rng = np.random.default_rng(0)
    return ClipsInMemory([rng.integers(0, 256, (6 + i % 7, 16, 16, 1), dtype=np.uint8) for i in range(9)])


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def train(recipe_file, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "open_splits", lambda *_: (random_clips(), random_clips()))
    data = tmp_path / "clips"
    data.mkdir()
    (data / "train.parquet").write_bytes(b"clips")

    def run(method, name="run", resume=False, **overrides):
        plain = {"model.perceptual.network": "none", "model.static_dim": 12, "model.hidden": 8}
        overrides = plain | {key.replace("__", "."): value for key, value in overrides.items()}
        recipe = load_recipe(recipe_file, overrides, method=method)
        return fit.train(recipe, [data], tmp_path / name, resume=resume, device="cpu", progress=False)

    return run


@pytest.mark.parametrize("method", ["dbse", "spyl"])
@pytest.mark.parametrize("backbone", ["divid", "dcgan"])
def test_a_run_is_resumed_to_the_same_losses_and_exported(train, method, backbone):
    options = {"model__backbone": backbone} | ({"model__contrast_starts_at": 0.0} if method == "spyl" else {})
    whole = train(method, "whole", **options)
    train(method, "parts", training__num_steps=3, **options)
    parts = train(method, "parts", resume=True, **options)
    losses = [[row["train/total"] for row in read_metrics(run / "metrics.csv") if "train/total" in row] for run in (whole, parts)]
    assert len(losses[0]) == 6
    assert losses[0] == losses[1]
    saved = load_recipe(whole / "recipe.yaml").model
    assert isinstance(saved, MODEL_CONFIGS[method])
    assert (saved.num_train_steps, saved.max_frame_spacing, saved.frames_per_sequence) == (6, 3, 5)
    if method == "spyl":
        assert saved.num_train_clips == 9
    pipeline = DividPipeline.from_pretrained(whole)
    assert type(pipeline.model) is METHODS[method]
    look, motion = (random_clips().frames(index) for index in (0, 5))
    swap = pipeline(look, motion)
    assert swap.shape == motion.shape
    assert swap.dtype == np.uint8


def test_what_a_run_costs_is_told(recipe_file, monkeypatch):
    monkeypatch.setattr(fit, "open_splits", lambda *_: (random_clips(), random_clips()))
    recipe = load_recipe(recipe_file, {"model.perceptual.network": "none"}, method="dbse")
    assert "GFLOP a frame decoded" in fit.plan(recipe, ["clips"], device="cpu")


def test_another_method_keeps_what_both_have(recipe_file):
    divid, dbse = load_recipe(recipe_file), load_recipe(recipe_file, method="dbse")
    assert isinstance(divid.model, ModelConfig) and isinstance(dbse.model, DBSEConfig)
    assert dbse.model.encoder == divid.model.encoder
    assert (dbse.model.image_size, dbse.model.channels, dbse.model.static_dim) == (16, 1, 256)
    assert (dbse.training, dbse.data, dbse.method) == (divid.training, divid.data, "dbse")
    assert load_recipe(recipe_file, method="divid") == divid
    assert load_recipe("puppets-cpu", method="spyl").resolve().model.encoder.patch_size == 2


def test_every_method_has_its_own_keys(tmp_path):
    for name, cls in {"dbse": DBSEConfig, "spyl": SPYLConfig}.items():
        recipe = load_recipe(name).resolve()
        assert recipe.method == name and isinstance(recipe.model, cls)
        path = tmp_path / f"{name}.yaml"
        path.write_text(dump_recipe(recipe))
        assert load_recipe(path) == recipe
    with pytest.raises(ConfigError, match=r"unknown key 'model.backbon' \(did you mean 'backbone'"):
        load_recipe("dbse", {"model.backbon": "divid"})
    with pytest.raises(ConfigError, match=r"model\.backbone must be one of divid, dcgan"):
        load_recipe("dbse", {"model.backbone": "vit"})
    with pytest.raises(ConfigError, match=r"unknown key 'model\.tokens'"):
        load_recipe("dbse", {"model.tokens": {}})


def test_keys_that_another_method_drops_are_checked_first(recipe_file):
    recipe_file.write_text(RECIPE.replace("tokens:", "token:"))
    with pytest.raises(ConfigError, match=r"unknown key 'model\.token'"):
        load_recipe(recipe_file, method="dbse")


def test_options_belong_to_known_methods():
    assert set(MODEL_CONFIGS) < set(METHODS)


@pytest.mark.parametrize("method", BASELINES)
def test_the_page_explains_every_key(repository, method):
    page = (repository / "docs" / "baselines.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `([\w.]+)` \|", page, flags=re.MULTILINE))
    shared = {key for key in flatten(load_recipe("puppets")) if key.startswith("model.")}
    own = {key.removeprefix("model.") for key in flatten(load_recipe(method)) if key.startswith("model.") and key not in shared}
    assert own - told == set()


def test_the_page_explains_no_other_key(repository):
    page = (repository / "docs" / "baselines.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `([\w.]+)` \|", page, flags=re.MULTILINE))
    keys = {key.removeprefix("model.") for method in BASELINES for key in flatten(load_recipe(method))}
    assert told - keys == set()


def test_options_are_read_as_stored():
    for method in BASELINES:
        assert from_dict(MODEL_CONFIGS[method], {"weights": {"static_kl": 2.0}}).weights.static_kl == 2.0
