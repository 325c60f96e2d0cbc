"""Training in processes of their own: killed at random moments, stopped by signals, and shared by two."""

from __future__ import annotations

import random
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import SIZE, divid_recipe, tiny_recipe

from divid.baselines.options import DBSEConfig
from divid.config import to_dict
from divid.model_parts import EncoderConfig
from divid.recipes import flatten, recipe_from_values
from divid.training.checkpoints import LAST, PREVIOUS, find_checkpoint, read_checkpoint
from divid.training.metrics import read_metrics
from divid.training.students import student_recipe

SLOW_STEP = 0.02
NUM_STEPS = 80


def finish(process):
    _, errors = process.communicate(timeout=240)
    return process.returncode, errors


def wait_for_row(run, step, process):
    """Wait until metrics.csv holds a step."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        rows = read_metrics(run / "metrics.csv")
        if rows and rows[-1]["step"] >= step:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    raise AssertionError(f"step {step} was never reached")


def logged(run):
    return [
        {key: value for key, value in row.items() if not key.startswith("speed/")} for row in read_metrics(run / "metrics.csv")
    ]


def test_killed_at_random_moments_and_resumed_equals_unbroken(start, tmp_path):
    recipe = tiny_recipe(num_steps=NUM_STEPS, checkpoint_minutes=0.001, validate_every_steps=20)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    unbroken = start(recipe, whole)
    moments = random.Random(time.time_ns())
    reached = 0
    for attempt in range(3):
        process = start(recipe, broken, *(["--resume"] if attempt else []), delay=SLOW_STEP)
        wait_for_row(broken, reached + moments.randint(6, 20), process)
        time.sleep(moments.random() * 3 * SLOW_STEP)
        process.send_signal(signal.SIGKILL)
        assert finish(process)[0] == -signal.SIGKILL
        reached = find_checkpoint(broken / "checkpoints")[1]["global_step"]  # a kill between two renames leaves the one before
        assert 0 < reached < NUM_STEPS
    assert finish(start(recipe, broken, "--resume"))[0] == 0
    assert finish(unbroken)[0] == 0
    assert logged(broken) == logged(whole)
    assert [row["step"] for row in logged(broken) if "train/total" in row] == list(range(1, NUM_STEPS + 1))
    one, other = (read_checkpoint(run / "checkpoints" / LAST) for run in (broken, whole))
    for key in ("state_dict", "current_model_state"):
        assert all(torch.equal(value, other[key][name]) for name, value in one[key].items())
    weights = "model/model/diffusion_pytorch_model.safetensors"
    assert (broken / weights).read_bytes() == (whole / weights).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_a_checkpoint_and_say_how_to_go_on(start, tmp_path, number):
    run = tmp_path / "run"
    process = start(tiny_recipe(num_steps=500), run, delay=SLOW_STEP)
    wait_for_row(run, 5, process)
    process.send_signal(number)
    code, errors = finish(process)
    assert code == 128 + number
    assert "--resume" in errors
    assert "Traceback" not in errors
    steps = [row["step"] for row in logged(run) if "train/total" in row]
    assert read_checkpoint(run / "checkpoints" / LAST)["global_step"] == steps[-1] < 500
    assert not (run / "model").exists()


def without_dropout(method, static_dim, memory=0):
    training = {"num_steps": 2, "checkpoint_minutes": 0.0, "learning_rate": 1e-3}
    if method == "divid":
        return divid_recipe({"static_dim": static_dim, "orthogonality_memory": memory}, **training)
    recipe = tiny_recipe(**training)
    if method == "dbse":
        encoder = EncoderConfig(base_channels=8, multipliers=(1, 2))
        recipe.method, recipe.model = method, DBSEConfig(image_size=SIZE, channels=1, encoder=encoder, objective="original")
        return recipe
    recipe.model.tokens.static_dropout = 0.0
    return recipe


INVARIANCE = {"model.tokens.motion_augmentation": 1.0, "model.tokens.dynamic_invariance": 0.1}


@pytest.mark.parametrize(
    ("method", "static_dim", "memory", "changes"),
    [
        ("tiny", 0, 0, {}),
        ("divid", 32, 0, {}),
        ("divid", 48, 0, {}),
        ("divid", 48, 6, {}),
        ("divid", 48, 0, {"training.shard_optimizer": True, "data.num_shards": 2}),
        ("divid", 48, 0, {"training.shard_optimizer": True, "training.optimizer": "muon"}),
        ("divid", 32, 0, {"model.tokens.back_translation": 0.5}),
        ("divid", 32, 0, {**INVARIANCE, "model.bottleneck.kind": "rate"}),
        ("tiny", 0, 0, {"training.shard_weights": True}),
        ("dbse", 0, 0, {"training.shard_weights": True}),
        ("divid", 48, 6, {"training.shard_weights": True, "training.gradient_clip": 0.01, "training.validate_every_steps": 1}),
        ("divid", 48, 0, {"training.shard_weights": True, "training.optimizer": "muon"}),
        ("divid", 32, 0, {"training.shard_weights": True, "model.tokens.back_translation": 0.5}),
    ],
)
def test_two_processes_train_as_one(start, tmp_path, method, static_dim, memory, changes):
    """At unequal widths of the tokens the orthogonality is a correlation over the clips of both processes."""
    recipe = without_dropout(method, static_dim, memory)
    recipe = recipe_from_values(to_dict(recipe), changes)
    assert flatten(recipe)["training.batch_size"] % 2 == 0
    pair = start(recipe, tmp_path / "two", "--devices", "2")
    single = start(recipe, tmp_path / "one")
    for process in (pair, single):
        code, errors = finish(process)
        assert code == 0, errors
    one, two = (read_metrics(tmp_path / name / "metrics.csv") for name in ("one", "two"))
    for first, second in zip(one, two, strict=True):
        for key in first:
            if not key.startswith("speed/"):
                assert second[key] == pytest.approx(first[key], rel=2e-4), key
    assert_same_gradients(*(read_checkpoint(tmp_path / name / "checkpoints" / PREVIOUS) for name in ("one", "two")))


@pytest.mark.parametrize("key", ["shard_optimizer", "shard_weights"])
def test_what_is_sharded_goes_on_with_any_number_of_processes(start, tmp_path, key):
    """Its checkpoint holds the whole state, so that one process or two may go on from it to what an unbroken run gives."""
    recipe = tiny_recipe(num_steps=4, learning_rate_schedule="constant", **{key: True})
    recipe.model.tokens.static_dropout = 0.0
    unsharded = recipe_from_values(to_dict(recipe), {f"training.{key}": False})
    first = recipe_from_values(to_dict(recipe), {"training.num_steps": 2})
    code, errors = finish(start(first, tmp_path / "parts", "--devices", "2"))
    assert code == 0, errors
    for name in ("alone", "unsharded"):
        shutil.copytree(tmp_path / "parts", tmp_path / name)
    runs = [
        start(recipe, tmp_path / "parts", "--devices", "2", "--resume"),
        start(recipe, tmp_path / "alone", "--resume"),
        start(unsharded, tmp_path / "unsharded", "--devices", "2", "--resume"),
        start(recipe, tmp_path / "whole"),
    ]
    for process in runs:
        code, errors = finish(process)
        assert code == 0, errors
    whole = read_checkpoint(tmp_path / "whole" / "checkpoints" / LAST)
    for name in ("parts", "alone", "unsharded"):
        ended = read_checkpoint(tmp_path / name / "checkpoints" / LAST)
        for part in ("state_dict", "current_model_state", "optimizer_states"):
            torch.testing.assert_close(ended[part], whole[part], rtol=1e-4, atol=1e-6)
        exported = load_file(tmp_path / name / "model" / "model" / "diffusion_pytorch_model.safetensors")
        assert all(torch.equal(ended["state_dict"][f"model.{key}"], weight) for key, weight in exported.items())


def test_two_processes_teach_a_student_as_one(start, tmp_path):
    teacher = divid_recipe({"static_dim": 48}, num_steps=2, checkpoint_minutes=0.0)
    code, errors = finish(start(teacher, tmp_path / "teacher"))
    assert code == 0, errors
    short = {"training.num_steps": 2, "training.warmup_steps": 1, "training.compile": "off"}
    recipe = student_recipe(tmp_path / "teacher", short)
    runs = {name: start(recipe, tmp_path / name, "--devices", number) for name, number in (("two", "2"), ("one", "1"))}
    for process in runs.values():
        code, errors = finish(process)
        assert code == 0, errors
    one, two = (read_checkpoint(tmp_path / name / "checkpoints" / LAST)["state_dict"] for name in ("one", "two"))
    for key, weight in one.items():
        torch.testing.assert_close(two[key], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("is_sharded", [False, True])
def test_two_processes_stop_together_when_time_is_up(start, tmp_path, is_sharded):
    recipe = tiny_recipe(num_steps=10**6, max_minutes=0.01, shard_weights=is_sharded)
    code, errors = finish(start(recipe, tmp_path / "run", "--devices", "2", COLD_RANKS="1"))
    assert code == 0, errors
    last = read_metrics(tmp_path / "run" / "metrics.csv")[-1]
    assert last["step"] == read_checkpoint(tmp_path / "run" / "checkpoints" / LAST)["global_step"]
    assert "validation/psnr" in last
    assert (tmp_path / "run" / "model").is_dir()


def assert_same_gradients(one, two):
    """After the first step the optimiser's momentum is a share of the gradient; some gradients are 0 but for rounding."""
    first, second = (
        {
            name: state["exp_avg"] if "exp_avg" in state else state["momentum_buffer"]
            for name, state in checkpoint["optimizer_states"][0]["state"].items()
        }
        for checkpoint in (one, two)
    )
    assert first.keys() == second.keys()
    largest = max(float(gradient.abs().max()) for gradient in first.values())
    for name, gradient in first.items():
        tolerance = 2e-5 * float(gradient.abs().max()) + 1e-6 * largest
        np.testing.assert_allclose(second[name], gradient, rtol=0, atol=tolerance, err_msg=str(name))
