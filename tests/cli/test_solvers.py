"""`divid solvers` from end to end, and what it refuses."""

import json

import pytest
from PIL import Image

from divid.cli.main import main
from divid.export import load_model, save_model
from labelled_clips import prepare_clips


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    return prepare_clips(root / "recordings", root / "set", num_trials=2)


@pytest.fixture(scope="module")
def judge_folder(prepared, tmp_path_factory):
    out = tmp_path_factory.mktemp("judges") / "judge"
    words = ["--device", "cpu", "--steps", "5", "--frames", "5", "--size", "16", "--channels", "3"]
    assert main(["judge", "--data", str(prepared), "--out", str(out), *words]) == 0
    return out


def test_table_curves_and_numbers_are_written(model_folder, prepared, judge_folder, tmp_path, capsys):
    words = ["solvers", "--model", str(model_folder), "--student", str(model_folder), "--data", str(prepared), "--device", "cpu"]
    words += ["--judge", str(judge_folder), "--settings", "ddpm:5", "ddim:1,2", "--student-settings", "consistency:1"]
    assert main([*words, "--swap-pairs", "8", "--clips", "2", "--out", str(tmp_path / "out")]) == 0
    result = json.loads((tmp_path / "out" / "solvers.json").read_text())
    made = [(row["model"], row["solver"], row["steps"]) for row in result["settings"]]
    assert made == [("model", "ddpm", 5), ("model", "ddim", 1), ("model", "ddim", 2), ("student", "consistency", 1)]
    assert result["pairs"] == 8
    assert all(row["seconds_per_clip"] > 0 for row in result["settings"])
    page, printed = (tmp_path / "out" / "solvers.md").read_text(), capsys.readouterr().out
    assert "| student | consistency | 1 |" in page
    assert "speed-up" in printed
    with Image.open(tmp_path / "out" / "solvers.png") as picture:
        assert picture.width > 800
    with Image.open(tmp_path / "out" / "swaps.png") as picture:
        assert picture.height > 3 * 6 * 64


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--settings", "ddpm"], "write SOLVER:STEPS"),
        (["--settings", "ddpm:1001"], "num_inference_steps is 1001"),
        (["--swap-pairs", "0"], "--swap-pairs is 0"),
        (["--clips", "0"], "--clips is 0"),
        (["--student", "nowhere/at/all"], "no model 'nowhere/at/all'"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_bad_calls(wrong, message, model_folder, prepared, tmp_path, refused):
    words = ["solvers", "--model", model_folder, "--data", prepared, "--out", tmp_path / "out", "--device", "cpu", *wrong]
    refused(words, message)


def test_a_student_of_other_clips_is_refused(model_folder, prepared, tmp_path, refused):
    model, sampling = load_model(model_folder)
    options = model.config["options"] | {"frames_per_sequence": 7}
    save_model(type(model)(options), sampling, tmp_path / "other", {})
    words = ["solvers", "--model", model_folder, "--student", tmp_path / "other", "--data", prepared, "--out", tmp_path / "out"]
    refused([*words, "--device", "cpu"], "give a student of that model", is_logged=True)
