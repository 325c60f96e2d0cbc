"""`divid solvers` from end to end, broken off and gone on with, and what it refuses."""

import itertools
import json
import shutil
from types import SimpleNamespace

import pytest
from PIL import Image

from divid.cli.main import main
from divid.evaluation import solvers
from divid.export import load_model, save_model
from divid.models.divid import DividModel
from divid.training import run_folder
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
    for text in (page, printed, " ".join(result["notes"])):
        assert "The judge is not to be trusted" in text
    with Image.open(tmp_path / "out" / "solvers.png") as picture:
        assert picture.width > 800
    with Image.open(tmp_path / "out" / "swaps.png") as picture:
        assert picture.height > 3 * 6 * 64


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def decoded(monkeypatch):
    """The settings that are sampled by, in order; one in `forbidden` ends the command as Ctrl-C does. A clock that counts."""
    seen = SimpleNamespace(settings=[], forbidden=set())
    decode = DividModel.decode

    def watched(model, codes, *, sampling, **options):
        name = f"{sampling.solver}:{sampling.num_inference_steps}"
        if name in seen.forbidden:
            raise KeyboardInterrupt
        if seen.settings[-1:] != [name]:
            seen.settings.append(name)
        return decode(model, codes, sampling=sampling, **options)

    monkeypatch.setattr(DividModel, "decode", watched)
    monkeypatch.setattr(solvers, "time", SimpleNamespace(perf_counter=itertools.count().__next__))
    monkeypatch.setattr(run_folder, "git_commit", lambda: "c0ffee")
    return seen


@pytest.fixture
def command(model_folder, prepared, tmp_path):
    """Words of a command that writes into a folder of this name."""

    def words(name, *more, settings=("ddpm:3", "ddim:1,2")):
        words = ["solvers", "--model", model_folder, "--data", prepared, "--device", "cpu", "--swap-pairs", "8", "--clips", "2"]
        return [str(word) for word in [*words, "--out", tmp_path / name, "--settings", *settings, *more]]

    return words


def test_a_command_that_is_broken_off_goes_on_and_writes_what_an_unbroken_one_does(command, judge_folder, decoded, tmp_path):
    judged = ["--judge", str(judge_folder)]
    assert main(command("whole", *judged)) == 0
    decoded.forbidden.add("ddim:1")
    assert main(command("parts", *judged)) == 130
    assert [path.name for path in sorted((tmp_path / "parts" / "settings").iterdir())] == [
        "model-ddpm-3-trailing.json",
        "model-ddpm-3-trailing.png",
    ]
    assert json.loads((tmp_path / "parts" / "solvers.json").read_text())["measured"] == "1 of 3 settings"
    decoded.forbidden.clear()
    decoded.settings.clear()
    assert main(command("parts", *judged)) == 0
    assert decoded.settings == ["ddim:1", "ddim:2"]
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_longer_list_measures_what_is_new(command, decoded, tmp_path):
    assert main(command("out", settings=["ddim:2"])) == 0
    assert main(command("out", settings=["ddim:1,2", "ddim:2@trailing"])) == 0
    assert decoded.settings == ["ddim:2", "ddim:1", "ddim:2"]
    rows = json.loads((tmp_path / "out" / "solvers.json").read_text())["settings"]
    assert [(row["steps"], row["spacing"]) for row in rows] == [(1, "power"), (2, "power"), (2, "trailing")]


def test_clips_decoded_in_other_batches_are_the_same(command, tmp_path):
    for name, more in (("usual", []), ("small", ["--batch-clips", "2"])):
        assert main(command(name, *more, settings=["ddim:2"])) == 0
    rows = [json.loads((tmp_path / name / "solvers.json").read_text())["settings"][0] for name in ("usual", "small")]
    assert rows[0]["psnr_db"] == pytest.approx(rows[1]["psnr_db"], abs=1e-4)
    sizes = []
    for name in ("usual", "small"):
        with Image.open(tmp_path / name / "settings" / "model-ddim-2-power.png") as picture:
            sizes.append(picture.size)
    assert sizes == [(5 * 16, 3 * 16)] * 2


@pytest.fixture(scope="module")
def finished(model_folder, prepared, tmp_path_factory):
    """A folder with one setting, by seed 0 and 8 pairs."""
    out = tmp_path_factory.mktemp("finished") / "out"
    words = ["--data", str(prepared), "--device", "cpu", "--swap-pairs", "8", "--clips", "2", "--settings", "ddim:1"]
    assert main(["solvers", "--model", str(model_folder), "--out", str(out), *words]) == 0
    return out


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (["--seed", "1"], r"seed \(0 then, 1 now\); give another --out, or remove that folder"),
        (["--clips", "3"], r"clips \(2 then, 3 now\)"),
        (["--swap-pairs", "7"], r"pairs \(8 then, 7 now\)"),
        (["--batch-clips", "2"], r"batch_clips \(16 then, 2 now\), sampling.chunk_frames"),
        (["--judge", "JUDGE"], r"judge \(None then, [0-9a-f]+ now\)"),
        (["--model", "OTHER"], r"weights \([0-9a-f]+ then, [0-9a-f]+ now\);"),
        (["--model", "GUIDED"], r"sampling.static_guidance \(1.0 then, 2.0 now\)"),
    ],
)
def test_settings_of_other_options_are_refused(other, message, command, finished, judge_folder, model_folder, tmp_path, refused):
    shutil.copytree(finished, tmp_path / "out")
    model, sampling = load_model(model_folder)
    if "GUIDED" in other:
        sampling.static_guidance = 2.0
    if "OTHER" in other:
        next(model.parameters()).data += 1
    save_model(model, sampling, tmp_path / "model", {})
    named = {"JUDGE": judge_folder, "OTHER": tmp_path / "model", "GUIDED": tmp_path / "model"}
    refused([*command("out", settings=["ddim:1"]), *(named.get(word, word) for word in other)], message, is_logged=True)


@pytest.mark.parametrize("ending", ["json", "png"])
def test_a_damaged_setting_is_named(ending, command, finished, tmp_path, refused):
    shutil.copytree(finished, tmp_path / "out")
    path = tmp_path / "out" / "settings" / f"model-ddim-1-power.{ending}"
    path.write_bytes(path.read_bytes()[:-40])
    refused(
        command("out", settings=["ddim:1"]), "remove model-ddim-1-power.json, and the setting is measured again", is_logged=True
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--settings", "ddpm"], "write SOLVER:STEPS"),
        (["--settings", "ddpm:1001"], "num_inference_steps is 1001"),
        (["--swap-pairs", "0"], "--swap-pairs is 0"),
        (["--clips", "0"], "--clips is 0"),
        (["--batch-clips", "0"], "--batch-clips is 0"),
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
