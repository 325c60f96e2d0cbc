"""`divid distill` from a model folder to a student that swaps, and what it refuses."""

import json

import pytest
import torch

from divid.cli.main import main
from divid.export import load_model
from divid.recipes import load_recipe
from divid.training.students import student_recipe
from made_data import make_set, write_depth

FEW = ["training.num_steps=4", "training.batch_size=2", "training.validate_every_steps=0", "training.num_validation_clips=2"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for place, name in enumerate(("a1_s1", "a1_s2", "a2_s1", "a2_s2")):
        for trial in (1, 2):
            write_depth(folder, f"{name}_t{trial}", num_frames=6 + 2 * place)
    out = tmp_path_factory.mktemp("sets") / "set"
    make_set(folder, out, channels=3)
    return out


def distill(model_folder, prepared, out, *words):
    options = ["--set", *FEW, "training.precision=fp32", "training.checkpoint_minutes=0"]
    return main(
        ["distill", "--model", str(model_folder), "--data", str(prepared), "--out", str(out), "--device", "cpu", *options, *words]
    )


def test_a_student_is_trained_exported_and_swaps(model_folder, prepared, tmp_path, clips, capsys):
    out = tmp_path / "student"
    assert distill(model_folder, prepared, out) == 0
    (student, sampling), (teacher, _) = load_model(out), load_model(model_folder)
    assert (sampling.solver, sampling.num_inference_steps) == ("consistency", 1)
    weights, before = student.state_dict(), teacher.state_dict()
    same = {name for name in weights if torch.equal(weights[name], before[name])}
    assert {name for name in weights if not name.startswith("denoiser.")} <= same
    assert same != set(weights)
    recipe = load_recipe(out / "recipe.yaml")
    assert (recipe.method, recipe.model.teacher) == ("consistency", str(model_folder))
    words = ["--appearance", str(clips / "a.mp4"), "--motion", str(clips / "b.mp4"), "--out", str(tmp_path / "c.mp4")]
    assert main(["swap", "--model", str(out), *words]) == 0
    assert (tmp_path / "c.mp4").stat().st_size > 0
    capsys.readouterr()
    for model, solver, why in ((out, "ddim", "is a student"), (model_folder, "consistency", "is for students of divid distill")):
        assert main(["swap", "--model", str(model), *words, "--solver", solver]) == 2
        assert f"--solver {solver}: " in (said := capsys.readouterr().err)
        assert why in " ".join(said.split())


def test_going_on_gives_what_an_unbroken_run_gives(model_folder, prepared, tmp_path):
    assert distill(model_folder, prepared, tmp_path / "whole") == 0
    assert distill(model_folder, prepared, tmp_path / "parts", "--set", "training.max_minutes=1e-9") == 0
    assert distill(model_folder, prepared, tmp_path / "parts", "--resume") == 0
    whole, parts = (load_model(tmp_path / name)[0].state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_run_tells_how_its_clips_were_drawn(model_folder, prepared, tmp_path):
    assert distill(model_folder, prepared, tmp_path / "run", "--set", "data.min_span=0.7", "data.min_frames=3") == 0
    assert load_recipe(tmp_path / "run" / "recipe.yaml").data.min_span == 0.7
    again = student_recipe(tmp_path / "run")
    assert (again.data.min_span, again.data.min_frames, again.training.batch_size) == (0.7, 3, 2)


def test_the_dry_run_writes_nothing(model_folder, prepared, tmp_path, capfd):
    words = ["distill", "--model", str(model_folder), "--data", str(prepared), "--dry-run", "--device", "cpu"]
    assert main([*words, "--set", *FEW]) == 0
    assert "method: consistency" in capfd.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--model", "nowhere/at/all"], "no model 'nowhere/at/all'"),
        (["--devices", "0"], "--devices is 0"),
        (["--set", "model.num_interval=3"], "num_interval"),
        (["--set", "model.tokens.dynamic_dim=5"], "built otherwise"),
        (["--set", "model.teacher="], "model.teacher"),
    ],
)
def test_bad_calls(wrong, message, model_folder, prepared, tmp_path, refused):
    words = ["distill", "--model", model_folder, "--data", prepared, "--out", tmp_path / "out", "--device", "cpu", *wrong]
    refused(words, message)


def test_another_method_has_no_student(tmp_path, prepared, model_folder, refused):
    broken = tmp_path / "other"
    broken.mkdir()
    index = json.loads((model_folder / "model_index.json").read_text())
    (broken / "model_index.json").write_text(json.dumps(index | {"model": ["divid", "Nothing"]}))
    refused(["distill", "--model", broken, "--data", prepared, "--out", tmp_path / "out"], "Nothing")
