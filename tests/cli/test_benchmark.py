"""`divid benchmark` and `divid ablate` from end to end, and what they refuse."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from divid.cli.main import main
from labelled_clips import prepare_clips

SMALL = {
    "method": "divid",
    "model": {
        "image_size": 16,
        "channels": 1,
        "encoder": {"base_channels": 8, "multipliers": [1, 2], "static_hidden": 16, "lstm_hidden": 16, "attention_heads": 2},
        "tokens": {"static_dim": 16, "dynamic_dim": 8},
        "denoiser": {"channels": [8, 16], "attention_levels": [1], "attention_heads": 2, "attention_width": 16, "norm_groups": 8},
    },
    "data": {"frames_per_sequence": 5, "min_frames": 5},
    "training": {
        "num_steps": 2, "batch_size": 4, "warmup_steps": 1, "precision": "fp32", "compile": "off", "num_validation_clips": 2,
    },
    "sampling": {"num_inference_steps": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("benchmarked")
    return prepare_clips(root / "recordings", root / "set")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipes") / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


@pytest.fixture
def plan(prepared, recipe, tmp_path):
    values = {
        "data": {"made": {"path": str(prepared), "recipe": str(recipe)}},
        "methods": {"divid": {}, "spyl": {"set": {"model.perceptual.network": "none"}}},
        "judge": {"num_steps": 2},
        "evaluation": {"swap_pairs": 6, "leakage": False},
    }
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_plan_becomes_a_table_and_a_second_time_only_the_report(plan, tmp_path, capsys):
    words = ["benchmark", str(plan), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*words, "--list"]) == 0
    assert capsys.readouterr().out.split() == ["made/divid/seed-0", "open", "made/spyl/seed-0", "open"]
    assert not (tmp_path / "out").exists()
    assert main([*words, "--cells", "made/spyl"]) == 0
    assert main([*words, "--list"]) == 0
    assert re.findall(r"\b(?:open|done)\b", capsys.readouterr().out) == ["open", "done"]
    assert main(words) == 0
    report = tmp_path / "out" / "benchmark.md"
    assert f"report   {report}" in capsys.readouterr().out
    text = report.read_text()
    assert "2 of 2 cells are done" in text
    command = json.loads((tmp_path / "out" / "benchmark.json").read_text())["made"]["commands"]
    assert command == [f"divid benchmark {plan} --out {tmp_path / 'out'}"]
    report.unlink()
    results = {path: path.read_bytes() for path in (tmp_path / "out").rglob("result.json")}
    assert main([*words, "--report-only"]) == 0
    assert report.read_text() == text
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("result.json")} == results


def test_failed_cells_end_in_one_line_and_exit_code_2(plan, tmp_path, capsys):
    values = yaml.safe_load(plan.read_text())
    values["methods"]["divid"] = {"set": {"training.learning_rate": 1.0, "sampling.static_guidance": 2.0,
                                          "model.tokens.static_dropout": 0.0, "model.tokens.dynamic_dropout": 0.0}}  # fmt: skip
    plan.write_text(yaml.safe_dump(values))
    assert main(["benchmark", str(plan), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("divid: error: 1 of 2 cells failed (made/divid/seed-0)")
    assert "1 of 2 cells are done" in (tmp_path / "out" / "benchmark.md").read_text()


def test_what_cannot_be_planned_is_one_line(plan, prepared, recipe, tmp_path, refused):
    words = ["benchmark", "--out", tmp_path / "out"]
    refused([*words, tmp_path / "none.yaml"], "cannot be read")
    refused([*words, plan, "--shard", "3/2"], "--shard is '3/2'")
    refused([*words, plan, "--cells", "made/dbse"], "--cells 'made/dbse' names none of the cells: made/divid/seed-0")
    refused([*words, plan, "--report-onyl"], "did you mean '--report-only'")
    ablate = ["ablate", "--config", recipe, "--data", prepared, "--out", tmp_path / "out"]
    refused([*ablate, "--only", "residul"], "did you mean 'residual'")
    refused([*ablate, "--seeds", "0"], "--seeds is 0")
    refused([*ablate, "--set", "training.num_stps=1"], "did you mean 'num_steps'")


def test_an_ablation_says_what_each_bias_is_worth(prepared, recipe, tmp_path, capsys):
    words = ["ablate", "--config", str(recipe), "--data", str(prepared), "--out", str(tmp_path / "out"), "--device", "cpu"]
    words += ["--only", "residual", "shared-sampling-noise", "bottleneck", "--judge-steps", "2", "--swap-pairs", "6"]
    assert main(words) == 0
    assert f"report   {tmp_path / 'out' / 'benchmark.md'}" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    data = report["data"]["set"]
    assert report["kind"] == "ablation"
    assert list(data["worth"]) == ["residual", "shared-sampling-noise", "bottleneck"]
    full, without = (data["methods"][name]["measures"] for name in ("full", "residual"))
    for name in ("static", "joint", "leakage", "psnr_db"):
        assert data["worth"]["residual"]["measures"][name]["mean"] == pytest.approx(full[name]["mean"] - without[name]["mean"])
    other = data["methods"]["bottleneck"]["measures"]["psnr_db"]["mean"]
    assert data["worth"]["bottleneck"]["measures"]["psnr_db"]["mean"] == pytest.approx(other - full["psnr_db"]["mean"])
    cells = tmp_path / "out" / "cells" / "set"
    assert not (cells / "shared-sampling-noise" / "seed-0" / "run").exists()
    assert (cells / "residual" / "seed-0" / "run" / "model").is_dir()
    text = (tmp_path / "out" / "benchmark.md").read_text()
    assert "| residual encoding † | on | off | 1 |" in text  # its judge had 2 steps
    assert "| explicit bottleneck † | none | channel | 1 |" in text


def test_noise_of_each_frame_its_own_gives_other_swaps_from_the_same_model(prepared, recipe, tmp_path):
    words = ["ablate", "--config", str(recipe), "--data", str(prepared), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*words, "--only", "shared-sampling-noise", "--judge-steps", "2", "--swap-pairs", "6"]) == 0
    cells = tmp_path / "out" / "cells" / "set"
    shared, own = (
        json.loads((cells / name / "seed-0" / "result.json").read_text()) for name in ("full", "shared-sampling-noise")
    )
    assert shared["leakage"] == own["leakage"]
    assert shared["psnr_db"]["model"] != own["psnr_db"]["model"]
    assert shared["training"] == own["training"]
