from __future__ import annotations

import json
import logging
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import TinyClips, TinyMethod, divid_recipe, tiny_recipe
from torch import distributed

from divid import precision
from divid.config import Recipe
from divid.errors import ConfigError, DatasetError, OutputError, TrainingError
from divid.export import load_model
from divid.recipes import load_recipe
from divid.training import fit as fit_module
from divid.training import planning
from divid.training.checkpoints import LAST, PREVIOUS, Checkpoints, read_checkpoint
from divid.training.fit import choose_device, open_splits, plan, train
from divid.training.metrics import read_metrics


def test_a_run_folder_holds_all_that_is_promised(fit, data):
    run = fit()
    recipe = load_recipe(run / "recipe.yaml")
    assert recipe == recipe.resolve()
    assert recipe.model.max_frame_spacing == 3
    info = json.loads((run / "run.json").read_text())
    assert {"git_commit", "seed", "device", "versions", "data"} <= info.keys()
    assert info["data"][0]["path"] == str(data)
    assert {path.name for path in (run / "samples").iterdir()} == {
        "step_000005.png", "step_000010.png", "step_000012.png", "loss.png",
    }  # fmt: skip
    assert any((run / "tensorboard").iterdir())
    assert {path.name for path in (run / "checkpoints").iterdir()} == {LAST}
    rows = read_metrics(run / "metrics.csv")
    assert [row["step"] for row in rows if "train/total" in row] == list(range(1, 13))
    assert [row["step"] for row in rows if "validation/psnr" in row] == [5, 10, 12]
    assert {"train/simple", "train/orthogonality", "train/gradient_norm", "train/learning_rate"} <= rows[0].keys()
    assert {"speed/clips_per_second", "speed/frames_per_second", "speed/memory_mib"} <= rows[0].keys()


def test_memory_stays_flat_over_a_run(data, tmp_path):
    levers = {"motion_augmentation": 1.0, "back_translation": 0.5}
    recipe = divid_recipe(levers, num_steps=160, validate_every_steps=0, log_every_steps=20, batch_size=4)
    train(recipe, [data], tmp_path / "run", device="cpu", progress=False)
    memory = {
        row["step"]: row["speed/memory_mib"] for row in read_metrics(tmp_path / "run" / "metrics.csv") if "train/total" in row
    }
    assert abs(memory[160] - memory[40]) < 12, memory  # a graph kept from each step would be 0.3 MiB a step and more


def test_a_process_group_that_was_there_before_stays(fit, tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        fit()
        assert distributed.is_initialized()
    finally:
        distributed.destroy_process_group()


def test_signals_are_what_they_were_before_a_training(fit):
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    fit()
    assert {number: signal.getsignal(number) for number in before} == before


def test_training_lowers_the_loss(fit):
    rows = read_metrics(fit(num_steps=60, validate_every_steps=0) / "metrics.csv")
    losses = [row["train/simple"] for row in rows if "train/simple" in row]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_the_exported_model_has_the_averaged_weights(fit):
    run = fit()
    checkpoint = read_checkpoint(run / "checkpoints" / LAST)
    exported = TinyMethod.from_pretrained(run / "model" / "model").state_dict()
    for name, value in exported.items():
        assert torch.equal(value, checkpoint["state_dict"][f"model.{name}"])
        assert not torch.equal(value, checkpoint["current_model_state"][f"model.{name}"])


def test_the_average_follows_its_formula(fit):
    """With one more step at a time the average can be made again from the raw weights."""
    average = None
    for step in range(1, 5):
        run = fit(resume=step > 1, num_steps=step, learning_rate_schedule="constant")
        checkpoint = read_checkpoint(run / "checkpoints" / LAST)
        raw = checkpoint["current_model_state"]["model.encoder.weight"]
        decay = min(0.9, (1 + step) / (10 + step))
        average = raw if average is None else decay * average + (1 - decay) * raw
        assert torch.allclose(checkpoint["state_dict"]["model.encoder.weight"], average, atol=1e-6)


def test_training_begins_with_another_models_weights(fit):
    first = fit("first")
    again = fit("again", initial_model=str(first), learning_rate=1e-9, weight_decay=0.0)
    plain = fit("plain", learning_rate=1e-9, weight_decay=0.0)
    weights = [TinyMethod.from_pretrained(run / "model" / "model").state_dict() for run in (first, again, plain)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, msg=name)
    assert not torch.allclose(weights[2]["encoder.weight"], weights[0]["encoder.weight"])


def test_whoever_asks_for_bf16_without_units_is_told(fit, monkeypatch, caplog):
    monkeypatch.setattr(precision, "has_bf16_units", lambda device: False)
    monkeypatch.setattr(precision, "_told", set())
    with caplog.at_level(logging.WARNING, logger="divid"):
        fit(num_steps=1, precision="bf16")
    assert "no units for bf16" in caplog.text


def test_resumed_equals_unbroken(fit):
    whole = fit("whole", learning_rate_schedule="constant", num_steps=11, validate_every_steps=4)
    for steps in (4, 7, 11):
        parts = fit("parts", resume=steps > 4, learning_rate_schedule="constant", num_steps=steps, validate_every_steps=4)
    assert_same_run(parts, whole)


def test_what_a_method_remembers_of_earlier_steps_is_resumed_too(data, tmp_path):
    def run(name, steps, resume):
        recipe = divid_recipe({"static_dim": 48, "orthogonality_memory": 12}, num_steps=steps, learning_rate_schedule="constant")
        recipe.data.augmentation = 0.5
        return train(recipe, [data], tmp_path / name, resume=resume, device="cpu", progress=False)

    whole = run("whole", 5, resume=False)
    run("parts", 2, resume=False)
    assert_same_run(run("parts", 5, resume=True), whole)
    remembered = read_checkpoint(whole / "checkpoints" / LAST)["token_memory"]
    assert remembered["static"].shape == (12, 48)
    assert any(row["train/orthogonality"] > 0 for row in read_metrics(whole / "metrics.csv") if "train/orthogonality" in row)


def test_training_clips_are_augmented_and_held_out_ones_are_not(data, tmp_path):
    def losses(strength):
        recipe = tiny_recipe(num_steps=2, learning_rate=1e-9)  # so low that the weights stay as they are
        recipe.data.augmentation = strength
        run = train(recipe, [data], tmp_path / str(strength), device="cpu", progress=False)
        rows = read_metrics(run / "metrics.csv")
        return [[row[key] for row in rows if key in row] for key in ("train/total", "validation/total")]

    (plain, held_out), (changed, held_out_too) = losses(0.0), losses(1.0)
    assert len(plain) == len(changed) == 2
    assert all(abs(one - other) > 1e-3 for one, other in zip(plain, changed, strict=True))
    assert held_out_too == pytest.approx(held_out, rel=1e-5)


def assert_same_run(one, other):
    def losses(run):
        rows = [
            {key: value for key, value in row.items() if not key.startswith("speed/")}
            for row in read_metrics(run / "metrics.csv")
        ]
        return [row for row in rows if "train/total" in row]

    assert losses(one) == losses(other)
    first, second = (read_checkpoint(run / "checkpoints" / LAST) for run in (one, other))
    for key in ("state_dict", "current_model_state"):
        assert all(torch.equal(value, second[key][name]) for name, value in first[key].items())


def test_resuming_a_finished_run_only_exports_again(fit):
    run = fit()
    before = (run / "checkpoints" / LAST).read_bytes()
    weights = {name: value.clone() for name, value in TinyMethod.from_pretrained(run / "model" / "model").state_dict().items()}
    fit(resume=True)
    assert (run / "checkpoints" / LAST).read_bytes() == before
    after = TinyMethod.from_pretrained(run / "model" / "model").state_dict()
    assert all(torch.equal(value, after[name]) for name, value in weights.items())


def test_a_run_broken_off_before_its_first_checkpoint_begins_again(fit, monkeypatch, caplog, tmp_path):
    whole = fit("whole")
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(checkpoint_minutes=0.0)
    (tmp_path / "run" / "checkpoints" / ".last.ckpt.1.tmp").write_bytes(b"half a checkpoint")
    with caplog.at_level(logging.WARNING, logger="divid"):
        run = fit(resume=True)
    assert "beginning again from the first step" in caplog.text
    assert_same_run(run, whole)
    assert [path.name for path in (run / "checkpoints").iterdir()] == [LAST]


def interrupt(*args):
    """A second Ctrl-C, which Lightning turns into an exit with code 1."""
    raise KeyboardInterrupt


def test_time_limit_stops_validates_and_exports(fit):
    run = fit(max_minutes=1e-6)
    rows = read_metrics(run / "metrics.csv")
    assert [row["step"] for row in rows if "validation/total" in row] == [1]
    assert (run / "model").is_dir()
    fit(resume=True, max_minutes=0.0)
    assert read_checkpoint(run / "checkpoints" / LAST)["global_step"] == 12


def test_levers_that_the_time_limit_kept_from_beginning_are_named(data, tmp_path, caplog):
    levers = {
        "motion_augmentation": 0.5,
        "motion_augmentation_start": 0.45,
        "motion_augmentation_proportions": 1.0,
        "motion_augmentation_proportions_start": 0.9,
        "back_translation": 0.5,
        "back_translation_start": 0.0,
    }
    for minutes in (1e-6, 0.0):
        recipe = tiny_recipe(max_minutes=minutes)
        tokens, bottleneck = recipe.model.tokens, recipe.model.bottleneck
        parts = {"tokens": replace(tokens, **levers), "bottleneck": replace(bottleneck, kind="rate", start=0.7)}
        recipe = replace(recipe, model=replace(recipe.model, **parts))
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="divid"):
            train(recipe, [data], tmp_path / str(minutes), device="cpu", progress=False)
        late = ("tokens.motion_augmentation begins at step 6", "tokens.motion_augmentation_proportions begins at step 11")
        for what in (*late, "bottleneck begins at step 9"):
            assert (f"time was up after 1 steps and model.{what}" in caplog.text) == (minutes > 0)
        assert "model.tokens.back_translation begins" not in caplog.text


def slow_late_levers(monkeypatch, seconds):
    """Let steps take as long as is given for each step number from which on it is so; the optimiser nothing."""

    def take(model, batch, recipe, precision):
        return seconds[max(first for first in seconds if first <= batch.step)]

    monkeypatch.setattr(planning, "quickest_step", take)
    monkeypatch.setattr(planning, "optimizer_step", lambda model, recipe: 0.0)


def late_recipe(**training):
    levers = {
        "motion_augmentation": 0.5,
        "motion_augmentation_start": 0.5,
        "back_translation": 0.5,
        "back_translation_start": 0.75,
    }
    return divid_recipe(levers, num_steps=100, **training)


@pytest.mark.parametrize(("minutes", "steps"), [(1.0, 100), (0.1, 45), (1e-6, 1)])
def test_as_many_steps_are_made_as_fit(minutes, steps, monkeypatch, data):
    """Of 100 steps 50 would take 0.08, 25 0.12 and 25 0.2 s, 0.12 on average; a tenth of the time is left for the rest."""
    slow_late_levers(monkeypatch, {0: 0.08, 50: 0.12, 75: 0.2})
    text = plan(late_recipe(fit_minutes=minutes), [data], device="cpu")
    assert f"num_steps: {steps}," in text
    assert f"num_train_steps: {steps}" in text


def test_a_few_clips_of_a_batch_swap_among_themselves_where_a_dry_run_times_them(monkeypatch, data):
    monkeypatch.setattr(planning, "PROBE_CLIPS", 2)
    recipe = divid_recipe({"back_translation": 1.0, "back_translation_start": 0.5}, num_steps=10, batch_size=4)
    assert "for 10 steps of" in plan(recipe, [data], device="cpu")


def test_a_shortened_training_reaches_its_end_and_is_resumed_as_it_began(monkeypatch, data, tmp_path):
    slow_late_levers(monkeypatch, {0: 1.0})
    recipe = late_recipe(fit_minutes=8 / 60 / planning.SHARE_FOR_STEPS, checkpoint_minutes=0.0)
    run = train(recipe, [data], tmp_path / "run", device="cpu", progress=False)
    assert load_recipe(run / "recipe.yaml").training.num_steps == 8
    rates = [row["train/learning_rate"] for row in read_metrics(run / "metrics.csv") if "train/learning_rate" in row]
    assert len(rates) == 8 and rates[-1] < 0.1 * max(rates)
    assert load_model(run / "model")[0].options.num_train_steps == 8
    monkeypatch.setattr(planning, "quickest_step", lambda *_: pytest.fail("timed again"))
    (run / "checkpoints" / LAST).unlink()
    shutil.rmtree(run / "model")
    train(recipe, [data], run, resume=True, device="cpu", progress=False)
    assert load_model(run / "model")[0].options.num_train_steps == 8


def test_steps_that_fit_a_time_are_for_one_process(data):
    with pytest.raises(ConfigError, match=r"works in one process, here are 2: set it to 0, and training\.num_steps"):
        plan(tiny_recipe(fit_minutes=1.0), [data], device="cpu", devices=2)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(fit, caplog):
    whole = fit("whole", checkpoint_minutes=0.0)
    run = fit(checkpoint_minutes=0.0)
    assert read_checkpoint(run / "checkpoints" / PREVIOUS)["global_step"] == 11
    last = run / "checkpoints" / LAST
    last.write_bytes(last.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING, logger="divid"):
        fit(resume=True, checkpoint_minutes=0.0)
    assert "going on from previous.ckpt" in caplog.text
    assert_same_run(run, whole)


def test_nan_loss_stops_at_once_and_keeps_the_last_good_checkpoint(fit, monkeypatch, tmp_path):
    poison_from_step(monkeypatch, 6, lambda total, weight: total * float("nan"))
    assert_stops_in_step_7(fit, tmp_path)


def test_nan_gradient_stops_at_once_though_the_loss_is_fine(fit, monkeypatch, tmp_path):
    poison_from_step(monkeypatch, 6, lambda total, weight: total + (weight - weight.detach()).abs().sqrt().sum())
    assert_stops_in_step_7(fit, tmp_path)


def poison_from_step(monkeypatch, step, poison):
    good = TinyMethod.losses

    def bad(self, video, randomness, num_decoded_frames=0):
        terms = good(self, video, randomness)
        return terms | {"total": poison(terms["total"], self.encoder.weight)} if randomness.step >= step else terms

    monkeypatch.setattr(TinyMethod, "losses", bad)


def assert_stops_in_step_7(fit, tmp_path):
    with pytest.raises(TrainingError, match="in step 7: the last good checkpoint is kept") as caught:
        fit(checkpoint_minutes=0.0)
    assert caught.value.exit_code == 2
    checkpoint = read_checkpoint(tmp_path / "run" / "checkpoints" / LAST)
    assert checkpoint["global_step"] == 6
    assert all(value.isfinite().all() for value in checkpoint["current_model_state"].values())
    assert not (tmp_path / "run" / "model").exists()


def test_bf16_and_varied_options_train(fit):
    assert (fit(precision="bf16", gradient_clip=0.0, num_validation_clips=1) / "model").is_dir()


def test_auto_precision_takes_the_quicker_and_says_so(fit, caplog):
    with caplog.at_level(logging.INFO, logger="divid"):
        run = fit(precision="auto", num_steps=2)
    assert "precision: " in caplog.text
    chosen = load_recipe(run / "recipe.yaml").training.precision
    assert chosen in ("fp32", "bf16")
    fit(resume=True, precision="auto", num_steps=3)
    assert load_recipe(run / "recipe.yaml").training.precision == chosen


def test_a_resumed_run_must_have_the_same_recipe_and_data(fit, data):
    fit(num_steps=2)
    with pytest.raises(ConfigError, match=r"training.learning_rate \(0.01 then, 0.5 now\)") as caught:
        fit(resume=True, learning_rate=0.5, num_steps=4)
    assert "num_steps" not in str(caught.value)
    (data / "train.parquet").write_bytes(b"other")
    with pytest.raises(ConfigError, match="the data are not those"):
        fit(resume=True, num_steps=4)


def test_a_run_begun_before_presets_chose_its_heads_is_gone_on_with_by_as_many(fit):
    recipe = fit(num_steps=2) / "recipe.yaml"
    lines = recipe.read_text().splitlines()
    recipe.write_text("\n".join(line for line in lines if "attention_head_width" not in line))
    assert len(recipe.read_text().splitlines()) == len(lines) - 1
    with pytest.raises(ConfigError, match=r"model.denoiser.attention_head_width \(0 then, 16 now\)"):
        fit(resume=True, num_steps=4)


def test_bad_out_folders(fit, data, tmp_path):
    with pytest.raises(TrainingError, match="no checkpoint"):
        fit(resume=True)
    with pytest.raises(OutputError, match="does not exist"):
        fit("missing/run")
    with pytest.raises(OutputError, match="data set itself"):
        fit(data.name)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        fit("file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        fit("full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_bad_recipes_for_this_machine(data, tmp_path):
    recipe = tiny_recipe()
    with pytest.raises(ConfigError, match="did you mean 'tiny'"):
        train(replace(recipe, method="tinny"), [data], tmp_path / "run")
    with pytest.raises(ConfigError, match="multiple of the 3 processes"):
        train(recipe, [data], tmp_path / "run", devices=3)
    with pytest.raises(ConfigError, match="allowed: auto, cpu, cuda"):
        choose_device("xyz")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="finds no GPU"):
            choose_device("cuda")
    assert not (tmp_path / "run").exists()


def test_plan_names_parameters_flops_memory_and_time(data):
    text = plan(tiny_recipe(), [data], device="cpu")
    for word in ("learning_rate: 0.01", "parameters", "encoder", "decoder", "GFLOP a frame", "GiB", "min for 12 steps"):
        assert word in text


def test_a_set_without_held_out_clips_validates_on_training_clips(monkeypatch, caplog):
    monkeypatch.setattr(fit_module, "ClipDataset", FakeDataset({"train": 3, "test": 0}))
    with caplog.at_level(logging.WARNING, logger="divid"):
        clips, held_out = open_splits([Path("data")], 8, 1)
    assert len(clips) == len(held_out) == 3
    assert "too good" in caplog.text


def test_numbers_of_training_clips_are_not_called_held_out(fit, monkeypatch, caplog, tmp_path):
    with caplog.at_level(logging.INFO, logger="divid"):
        fit("apart")
    assert "held-out PSNR" in caplog.text
    assert "held-out PSNR" in (tmp_path / "apart" / "model" / "README.md").read_text()
    caplog.clear()
    clips = TinyClips(channels=1)
    monkeypatch.setattr(fit_module, "open_splits", lambda *_: (clips, clips))
    with caplog.at_level(logging.INFO, logger="divid"):
        fit("same")
    assert "training clips' PSNR" in caplog.text
    card = (tmp_path / "same" / "model" / "README.md").read_text()
    assert "training clips' PSNR" in card
    assert "held-out" not in card + caplog.text


def test_the_two_splits_are_kept_apart(monkeypatch):
    monkeypatch.setattr(fit_module, "ClipDataset", FakeDataset({"train": 3, "test": 2}))
    clips, held_out = open_splits([Path("data")], 8, 1)
    assert (len(clips), len(held_out)) == (3, 2)


def test_a_set_without_training_clips_is_an_error(monkeypatch):
    monkeypatch.setattr(fit_module, "ClipDataset", FakeDataset({"train": 0, "test": 3}))
    with pytest.raises(DatasetError, match="split train"):
        open_splits([Path("data")], 8, 1)


def test_data_that_divid_did_not_make_are_an_error(tmp_path):
    (tmp_path / "other.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError):
        train(Recipe(), [tmp_path], tmp_path / "run", device="cpu", progress=False)
    assert not (tmp_path / "run").exists()


class FakeDataset:
    """Opens splits of given sizes, as `ClipDataset.open` does."""

    def __init__(self, sizes):
        self.sizes = sizes

    def open(self, paths, *, split=None, image_size=None, channels=None):
        if not self.sizes[split]:
            raise DatasetError(f"split {split} is empty")
        return TinyClips(self.sizes[split])


def test_recipe_default_method_is_known():
    assert Recipe().method in fit_module.METHODS
