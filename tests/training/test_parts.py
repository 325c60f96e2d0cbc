"""The smaller parts: rate, parameter groups, choices by a timed step, statistics."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import pytest
import pytorch_lightning as pl
import torch
from tiny import TinyClips, TinyMethod, tiny_recipe
from torch import nn

from divid.config import TrainingConfig
from divid.data.module import ClipDataModule
from divid.errors import ConfigError
from divid.training import planning
from divid.training.callbacks import AveragedWeights
from divid.training.module import TrainingModule, learning_rate, parameter_groups
from divid.training.planning import choose_precision, compile_if_wanted, estimate_cost, optimizer_step
from divid.training.run_folder import fingerprint
from divid.training.validation import held_out_loss, token_statistics, warn_of_collapse
from divid.types import Codes


@pytest.fixture
def case():
    recipe = tiny_recipe().resolve()
    data = ClipDataModule(TinyClips(), recipe.seed, recipe.training.batch_size, recipe.data)
    return TinyMethod(recipe.model), data.first_batch("cpu"), recipe


def with_training(recipe, **changes):
    return replace(recipe, training=replace(recipe.training, **changes))


def test_rate_warms_up_and_falls_to_0():
    options = TrainingConfig(num_steps=100, warmup_steps=10, learning_rate=1.0)
    assert learning_rate(0, options) == pytest.approx(0.1)
    assert learning_rate(50, options) == pytest.approx(0.5)
    assert learning_rate(100, options) == pytest.approx(0.0)
    assert learning_rate(99, replace(options, learning_rate_schedule="constant")) == 1.0
    assert learning_rate(0, replace(options, warmup_steps=0)) == 1.0
    rates = [learning_rate(step, options) for step in range(10, 101)]
    assert rates == sorted(rates, reverse=True)


def test_rate_falls_late_if_it_is_told_to():
    options = TrainingConfig(num_steps=100, warmup_steps=10, learning_rate=1.0, learning_rate_decay_start=0.6)
    assert learning_rate(0, options) == pytest.approx(0.1)
    assert [learning_rate(step, options) for step in (9, 30, 60)] == [1.0, 1.0, 1.0]
    assert learning_rate(80, options) == pytest.approx(0.5)
    assert 0 < learning_rate(99, options) < 0.01
    assert learning_rate(100, options) == pytest.approx(0.0)


def test_norms_and_biases_do_not_decay():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4, 4))
    decaying, still = parameter_groups(model, 0.3)
    assert [p.ndim for p in decaying["params"]] == [4, 2]
    assert decaying["weight_decay"] == 0.3
    assert {p.ndim for p in still["params"]} == {1}
    assert still["weight_decay"] == 0.0
    assert len(parameter_groups(nn.LayerNorm(3), 0.3)) == 1


def test_the_average_goes_where_the_weights_are():
    module = TrainingModule(TinyMethod(tiny_recipe().resolve().model), tiny_recipe())
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    average = AveragedWeights(0.9)
    average.setup(trainer, module, "fit")
    module.to("meta")
    average.on_fit_start(trainer, module)
    assert average._average_model is not None
    assert all(weight.is_meta for weight in average._average_model.module.parameters())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_timing_the_optimizer_changes_no_weight_and_leaves_no_gradient(case, optimizer):
    model, _, recipe = case
    before = [p.detach().clone() for p in model.parameters()]
    assert optimizer_step(model, with_training(recipe, optimizer=optimizer)) > 0
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_the_estimate_of_a_step_holds_the_optimizers_part(case, monkeypatch):
    model, batch, recipe = case
    monkeypatch.setattr(planning, "quickest_step", lambda *args: 2.0)
    monkeypatch.setattr(planning, "optimizer_step", lambda *args: 0.5)
    assert estimate_cost(model, batch, recipe, times=3.0).seconds_per_step == 6.5


def test_precision_is_the_quicker_one(case, monkeypatch, caplog):
    model, batch, recipe = case
    recipe = with_training(recipe, precision="auto")
    monkeypatch.setattr(planning, "has_bf16_units", lambda device: True)
    for quick, slow in (("bf16", "fp32"), ("fp32", "bf16")):
        monkeypatch.setattr(planning, "timed_step", lambda m, b, r, precision, slow=slow: 2.0 if precision == slow else 1.0)
        with caplog.at_level(logging.INFO, logger="divid"):
            assert choose_precision(model, batch, recipe) == quick
        assert f"precision: {quick}, as a step takes" in caplog.text
    assert choose_precision(model, batch, recipe, world_size=2) == "fp32"
    assert choose_precision(model, batch, with_training(recipe, precision="bf16")) == "bf16"


def test_no_step_is_timed_in_bf16_without_units_for_it(case, monkeypatch, caplog):
    model, batch, recipe = case
    monkeypatch.setattr(planning, "has_bf16_units", lambda device: False)
    monkeypatch.setattr(planning, "timed_step", lambda *args: pytest.fail("a step was timed"))
    with caplog.at_level(logging.INFO, logger="divid"):
        assert choose_precision(model, batch, with_training(recipe, precision="auto")) == "fp32"
    assert "precision: fp32, as this processor has no units for bf16" in caplog.text


def test_a_timed_step_changes_nothing(case):
    model, batch, recipe = case
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert planning.timed_step(model, batch, recipe, "bf16") > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_cost_counts_what_one_can_count_by_hand(case):
    model, batch, recipe = case
    cost = estimate_cost(model, batch, recipe)
    assert cost.parameters["encoder"] == 64 * 6 + 6
    assert sum(cost.parameters.values()) == sum(p.numel() for p in model.parameters())
    assert cost.encoder_flops == 2 * 64 * 6
    frames = batch.video.shape[1]
    assert cost.decoder_flops == pytest.approx(frames / 2 * 2 * ((12 + 64) * 24 + 24 * 64))
    assert cost.memory_bytes > 20 * sum(cost.parameters.values())


def test_a_dry_run_on_a_cpu_takes_a_few_clips_and_multiplies(case, monkeypatch):
    model, batch, recipe = case
    monkeypatch.setattr(planning, "PROBE_CLIPS", 2)
    few, times = planning.take_probe(batch)
    assert len(few.video) == 2
    assert times == len(batch.video) / 2 > 1
    weights = 20 * sum(p.numel() for p in model.parameters())
    once = estimate_cost(model, few, recipe).memory_bytes - weights
    assert estimate_cost(model, few, recipe, 3.0).memory_bytes - weights == 3 * once
    monkeypatch.setattr(planning, "PROBE_CLIPS", len(batch.video))
    assert planning.take_probe(batch) == (batch, 1.0)


def test_a_run_that_does_not_fit_into_memory_is_said_to_be_too_large(case, monkeypatch):
    model, batch, recipe = case
    assert "TOO LARGE" not in planning.describe_plan(model, batch, recipe)
    monkeypatch.setattr(planning, "_total_memory", lambda device: 1000)
    assert "lower training.batch_size" in planning.describe_plan(model, batch, recipe)


class Compiled(TinyMethod):
    works = True

    def compile_networks(self):
        self.is_compiled = True
        if not self.works:
            raise RuntimeError("no such backend\nand a long trace")


def test_compile_follows_the_wish(case, monkeypatch, caplog):
    _, batch, recipe = case
    monkeypatch.setattr(planning.shutil, "which", lambda name: "/usr/bin/g++")
    for wish, num_steps, expected in (("on", 5, True), ("off", 5000, False), ("auto", 5, False), ("auto", 5000, True)):
        model = Compiled(recipe.model)
        compile_if_wanted(model, batch, with_training(recipe, compile=wish, num_steps=num_steps))
        assert getattr(model, "is_compiled", False) is expected
    compile_if_wanted(TinyMethod(recipe.model), batch, with_training(recipe, compile="on"))
    monkeypatch.setattr(Compiled, "works", False)
    with caplog.at_level(logging.INFO, logger="divid"):
        compile_if_wanted(Compiled(recipe.model), batch, with_training(recipe, compile="auto", num_steps=5000))
    assert "not compiled: no such backend" in caplog.text
    with pytest.raises(ConfigError, match="no such backend"):
        compile_if_wanted(Compiled(recipe.model), batch, with_training(recipe, compile="on"))


def test_graphs_are_what_auto_means_on_a_gpu_and_refused_elsewhere(case, monkeypatch, caplog):
    class Graphed(Compiled):
        def graph_networks(self):
            self.is_graphed = True
            self._graphed = print
            raise RuntimeError("no graphs here")

    _, batch, recipe = case
    monkeypatch.setattr(planning.shutil, "which", lambda name: "/usr/bin/g++")
    with pytest.raises(ConfigError, match=r"training\.compile=graphs does not work here, CUDA graphs need a GPU"):
        compile_if_wanted(Graphed(recipe.model), batch, with_training(recipe, compile="graphs"))
    compile_if_wanted(Compiled(recipe.model), batch, with_training(recipe, compile="graphs"))  # a method without is plain

    class OnGpu:
        device = torch.device("cuda")

    there = batch._replace(video=OnGpu())
    model = Graphed(recipe.model)
    with caplog.at_level(logging.INFO, logger="divid"):
        compile_if_wanted(model, there, with_training(recipe, compile="auto", num_steps=5))
        compile_if_wanted(model, there, with_training(recipe, compile="auto", num_steps=5), world_size=2)
    with pytest.raises(ConfigError, match="CUDA graphs are recorded in trainings of one process only"):
        compile_if_wanted(model, there, with_training(recipe, compile="graphs"), world_size=2)
    assert model.is_graphed
    assert not hasattr(model, "_graphed")
    assert not hasattr(model, "is_compiled")
    assert "not compiled: no graphs here" in caplog.text
    assert "not compiled: under" in caplog.text


def test_a_compiled_copy_among_the_weights_is_refused(case, monkeypatch, caplog):
    _, batch, recipe = case
    monkeypatch.setattr(planning.shutil, "which", lambda name: "/usr/bin/g++")
    monkeypatch.setattr(Compiled, "compile_networks", lambda self: setattr(self, "again", nn.Sequential(self.encoder)))
    model = Compiled(recipe.model)
    names = set(model.state_dict())
    with caplog.at_level(logging.INFO, logger="divid"):
        compile_if_wanted(model, batch, with_training(recipe, compile="auto", num_steps=5000))
    assert "renames its weights" in caplog.text
    assert set(model.state_dict()) == names


def test_without_a_compiler_training_goes_on(case, monkeypatch, caplog):
    _, batch, recipe = case
    monkeypatch.setattr(planning.shutil, "which", lambda name: None)
    with caplog.at_level(logging.INFO, logger="divid"):
        compile_if_wanted(Compiled(recipe.model), batch, with_training(recipe, compile="auto", num_steps=5000))
    assert "no C++ compiler" in caplog.text
    with pytest.raises(ConfigError, match=r"training\.compile=on"):
        compile_if_wanted(Compiled(recipe.model), batch, with_training(recipe, compile="on"))


def test_statistics_of_known_tokens():
    static = torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    dynamic = torch.stack([static, static.flip(-1) * torch.tensor([1.0, -1.0])], dim=1)
    values = token_statistics(Codes(static, dynamic))
    assert values["static_norm"] == pytest.approx(5.0)
    assert values["static_std"] == 0.0
    assert values["squared_cosine"] == pytest.approx(0.5)
    assert values["squared_cosine_of_random_pairs"] == 0.5
    assert "squared_cosine" not in token_statistics(Codes(static, dynamic[..., :1]))


def test_a_collapsed_token_is_named(caplog):
    generator = torch.Generator().manual_seed(0)
    static, dynamic = torch.randn(4, 6, generator=generator), torch.randn(4, 3, 5, generator=generator)
    with caplog.at_level(logging.WARNING, logger="divid"):
        warn_of_collapse(Codes(static, dynamic))
        assert caplog.text == ""
        warn_of_collapse(Codes(static[:1].expand(4, -1) + 1e-4 * static, dynamic))
    assert "the static token has collapsed" in caplog.text
    assert "dynamic" not in caplog.text


def test_held_out_loss_has_the_same_noise_every_time(case):
    model, batch, recipe = case
    model.eval()
    video = torch.cat([batch.video, batch.video[:1]])
    first, second = (held_out_loss(model, video, recipe) for _ in range(2))
    assert first == second
    assert math.isfinite(first["total"])
    parts = [held_out_loss(model, video[:4], recipe)["simple"], first["simple"]]
    assert parts[0] != parts[1]


def test_fingerprint_follows_content(tmp_path):
    file = tmp_path / "train-0.parquet"
    file.write_bytes(b"a" * 200_000)
    one = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == one
    file.write_bytes(b"a" * 199_999 + b"b")
    assert fingerprint(tmp_path) != one
