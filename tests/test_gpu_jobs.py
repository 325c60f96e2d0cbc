"""The jobs for a machine with a GPU, each at toy size on the CPU."""

import importlib.util
import io
import json
import os
import runpy
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
import yaml

from divid.cli.main import main
from divid.export import load_model
from divid.recipes import dump_recipe, load_recipe
from divid.training.metrics import read_metrics
from labelled_clips import prepare_clips

JOBS = Path(__file__).resolve().parents[1] / "gpu"
RECIPE = {
    "method": "divid",
    "model": {
        "preset": "tiny", "image_size": 16, "channels": 1,
        "encoder": {"base_channels": 8, "multipliers": [1, 2], "static_hidden": 16, "lstm_hidden": 16, "attention_heads": 2},
        "tokens": {"static_dim": 16, "dynamic_dim": 8},
        "denoiser": {"channels": [8, 16], "attention_levels": [1], "attention_heads": 2, "attention_width": 16, "norm_groups": 8},
    },
    "training": {
        "num_steps": 2, "batch_size": 4, "frames_per_clip": 2, "optimizer": "muon", "learning_rate": 2e-3, "warmup_steps": 1,
        "precision": "fp32", "compile": "off", "validate_every_steps": 2, "num_validation_clips": 4, "log_every_steps": 1,
    },
    "sampling": {"num_inference_steps": 1},
}  # fmt: skip


def job(name, *words, out, **environment):
    """Run a job as a person would, with small folders of its own."""
    settings = {"PYTHON": sys.executable, "DEVICE": "cpu", "OMP_NUM_THREADS": "1", "WHEELS": "none", "OUT": out, **environment}
    everything = os.environ | {key: str(value) for key, value in settings.items()}
    result = subprocess.run([JOBS / name, *map(str, words)], env=everything, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def load(name):
    """Give a script of the jobs as a module."""
    spec = importlib.util.spec_from_file_location(f"gpu_{name}", JOBS / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("job-data")
    return prepare_clips(root / "recordings", root / "set", num_trials=3)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("job-recipe") / "toy.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


@pytest.fixture(scope="module")
def trained(data, recipe, tmp_path_factory):
    """A run of 2 steps that a second call took to 4: (run, $OUT of the second call, what it said)."""
    root = tmp_path_factory.mktemp("job-train")
    for steps in (2, 4):
        out = root / f"out-{steps}"
        said = job("train.sh", recipe, out=out, DATA=data, RUN=root / "run", STEPS=steps)
    return root / "run", out, said


@pytest.fixture
def trial(tmp_path):
    """A run that logged 40 clips a second once it was warm, at 8 clips a step."""
    (tmp_path / "recipe.yaml").write_text(dump_recipe(load_recipe("puppets-cpu").resolve()))

    def write(speeds):
        rows = [f"{step},{speed}" for step, speed in enumerate(speeds, start=1)]
        (tmp_path / "metrics.csv").write_text("\n".join(["step,speed/clips_per_second", *rows]) + "\n")
        return tmp_path

    return write


@pytest.fixture
def script(monkeypatch, capsys):
    """Run a script of the jobs in this process, which spares the seconds of a start; gives what it prints."""

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(JOBS / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_steps_are_those_that_the_warm_speed_leaves_time_for(trial, script):
    assert int(script("steps_in_time.py", trial([2, 30, 39, 40, 41, 40]), 10)) == int(0.93 * 10 * 60 * 40 / 8)


def test_too_short_a_trial_says_so(trial, script):
    with pytest.raises(ValueError, match="give the trial more time"):
        script("steps_in_time.py", trial([40]), 10)


@pytest.mark.parametrize("job", ["train.sh", "table.sh", "bench.sh", "check.sh", "solvers.sh", "curves.sh"])
def test_jobs_are_shell_scripts_that_can_be_started(job):
    assert os.access(JOBS / job, os.X_OK)
    assert subprocess.run(["bash", "-n", JOBS / job], check=False).returncode == 0


def test_training_without_data_says_where_they_come_from(tmp_path):
    environment = {
        **os.environ,
        "WHEELS": "none",
        "DATA": str(tmp_path / "none"),
        "OUT": str(tmp_path / "out"),
        "PYTHON": sys.executable,
    }
    result = subprocess.run([JOBS / "train.sh", "puppets"], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "see gpu/QUEUE.md" in result.stderr


@pytest.mark.slow
def test_a_second_call_of_training_goes_on(trained):
    _, out, said = trained
    assert "going on from step 2" in " ".join(said.stderr.split())
    assert [row["step"] for row in read_metrics(out / "metrics.csv") if "train/total" in row] == [1, 2, 3, 4]
    assert said.stdout.splitlines()[-1].split()[0] == "4"
    assert {path.name for path in out.iterdir()} == {
        "metrics.csv", "recipe.yaml", "run.json", "loss.png", "step_000004.png", "model.tar.00",
    }  # fmt: skip


def joined(parts, folder):
    """Put a packed model together again."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(path.read_bytes() for path in sorted(parts)))) as tar:
        tar.extractall(folder, filter="data")
    return load_model(folder / "model")[0].state_dict()


@pytest.mark.slow
def test_packed_parts_are_the_model_in_bf16(trained, tmp_path, monkeypatch):
    run, out, _ = trained
    whole = {name: weight.bfloat16().float() for name, weight in load_model(run)[0].state_dict().items()}
    pack_run = load("pack_run")
    monkeypatch.setattr(pack_run, "PART_BYTES", 30_000)
    (tmp_path / "parts").mkdir()
    small = pack_run.pack_model(run / "model", tmp_path / "parts")
    assert len(small) > 3
    for parts in (small, list(out.glob("model.tar.*"))):
        again = joined(parts, tmp_path / str(len(parts)))
        assert again.keys() == whole.keys()
        assert all(torch.equal(again[name], whole[name]) for name in whole)


@pytest.mark.slow
def test_solvers_distils_judges_and_measures(trained, data, tmp_path):
    run = trained[0]
    settings = {"SETTINGS": "ddpm:3 ddim:1", "STUDENT_SETTINGS": "consistency:1", "PAIRS": 4, "BATCH": 4, "REALISM": 0}
    settings["STUDENT"] = "training.num_steps=2 training.batch_size=2 training.validate_every_steps=0"
    judge = tmp_path / "judge"
    assert main(["judge", "--data", str(data), "--out", str(judge), "--device", "cpu", "--steps", "2"]) == 0
    settings |= {"MODEL": run, "DATA": data, "JUDGE": judge, "RUN": tmp_path / "run"}
    said = job("solvers.sh", "--clips", "2", out=tmp_path / "out", **settings)
    assert [line.split(" | ")[1:3] for line in said.stdout.splitlines()[-3:]] == [
        ["ddpm", "3"],
        ["ddim", "1"],
        ["consistency", "1"],
    ]
    found = json.loads((tmp_path / "out" / "solvers.json").read_text())
    assert found["measured"] == "3 of 3 settings"
    assert found["settings"][0]["accuracies"]
    with tarfile.open(tmp_path / "out" / "settings.tar.gz") as tar:
        assert sum(name.endswith(".json") for name in tar.getnames()) == 3


@pytest.mark.slow
def test_curves_compares_plain_training_with_the_recipe(data, recipe, tmp_path):
    said = job("curves.sh", "tiny", out=tmp_path / "out", RECIPE=recipe, DATA=data, RUN=tmp_path / "run", STEPS=3)
    assert [line.split(" | ")[0] for line in said.stdout.splitlines()[-2:]] == ["| plain", "| recipe"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"curves.md", "curves.json", "curves.png", "runs.tar.gz"}
    plain, fast = (load_recipe(tmp_path / "run" / name / "recipe.yaml").training for name in ("plain", "recipe"))
    assert (plain.optimizer, plain.learning_rate, plain.frames_per_clip, plain.precision) == ("adamw", 1e-3, 0, "fp32")
    assert (fast.optimizer, fast.learning_rate, fast.frames_per_clip) == ("muon", 2e-3, 2)
    assert plain.num_steps == fast.num_steps == 3


@pytest.mark.slow
def test_table_runs_a_plan(data, recipe, tmp_path):
    plan = {
        "seeds": [0],
        "data": {"made": {"path": str(data), "recipe": str(recipe)}},
        "methods": {"divid": {}, "other": {"method": "divid"}},
        "judge": {"num_steps": 2},
        "evaluation": {"swap_pairs": 6, "leakage": False},
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    places = {"PLAN": tmp_path / "plan.yaml", "RUN": tmp_path / "run"}
    said = job("table.sh", out=tmp_path / "out", TOGETHER="made/divid made/other", MODELS="div*", **places)
    assert "# " in said.stdout
    assert [line.split()[1] for line in said.stdout.splitlines()[-2:]] == ["done", "done"]
    with tarfile.open(tmp_path / "out" / "table.tar.gz") as tar:
        names = tar.getnames()
    assert {"./benchmark.json", "./data/made/judge/judge.safetensors", "./cells/made/other/seed-0/result.json"} <= set(names)
    assert not any("/model" in name or "/checkpoints" in name for name in names)
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "out" / "models.tar.00").read_bytes())) as tar:
        tar.extractall(tmp_path / "home", filter="data")
    (folder,) = (tmp_path / "home" / "cells").glob("*/*/*/run/model")
    assert folder.relative_to(tmp_path / "home" / "cells").parts[:2] == ("made", "divid")
    there, here = load_model(tmp_path / "run" / "cells/made/divid/seed-0/run/model")[0], load_model(folder)[0]
    for name, weight in there.state_dict().items():
        torch.testing.assert_close(here.state_dict()[name], weight.bfloat16().float(), rtol=0, atol=0)


def test_bench_goes_on_with_the_parts_that_are_missing(tmp_path):
    settings = {"PRESETS": "tiny", "PARTS": "encode data", "RUN": tmp_path / "run"}
    (tmp_path / "run" / "tiny-data").mkdir(parents=True)
    (tmp_path / "run" / "tiny-data" / "done").touch()
    said = job("bench.sh", "--quick", "--device", "cpu", "--threads", "1", out=tmp_path / "out", **settings)
    assert said.stdout.splitlines()[-1] == "bench.sh: 0 parts are missing"
    assert "tiny-encode/speed.md" in (tmp_path / "out" / "bench.md").read_text()
    assert (tmp_path / "run" / "tiny-encode" / "done").exists()


def test_check_finds_no_difference_between_a_cpu_and_itself(tmp_path, monkeypatch, capsys):
    words = ["--device", "cpu", "--preset", "tiny"]
    assert job("check.sh", *words, out=tmp_path, PYTHON="echo").stdout.split() == ["gpu/check.py", *words]
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
    assert load("check").main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:20].strip(): line[20:].split() for line in lines[2:-1]}
    samples = [f"sample, {solver}" for solver in ("ddpm", "ddim", "dpmsolver++", "unipc")]
    assert list(rows) == ["static tokens", "dynamic tokens", "denoiser", *samples]
    assert {row[0] for row in rows.values()} == {"0.00e+00"}
    assert all(0 < float(row[1]) < 0.1 for row in rows.values())
    assert lines[-1].startswith("check: good, largest fp32 difference 0.00e+00")


def test_check_says_when_there_is_no_gpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load("check").main([]) == 2
    assert capsys.readouterr().out == "check: no CUDA device here\n"
