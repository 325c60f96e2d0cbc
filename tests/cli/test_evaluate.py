"""`divid evaluate` from end to end, and what it refuses."""

import json

import pytest
from PIL import Image

from divid.cli.main import main
from made_data import make_set, write_depth


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for name in ("a1_s1", "a1_s2", "a2_s1", "a2_s2"):
        for trial in (1, 2):
            write_depth(folder, f"{name}_t{trial}")
    out = tmp_path_factory.mktemp("sets") / "set"
    make_set(folder, out, channels=3)
    return out


def evaluate(model, data, out, *more):
    return main(["evaluate", "--model", str(model), "--data", str(data), "--out", str(out), "--device", "cpu", *more])


def test_numbers_and_pictures_are_written_and_repeat(model_folder, prepared, tmp_path, capsys):
    for name in ("one", "two"):
        assert evaluate(model_folder, prepared, tmp_path / name, "--pairs", "2", "--steps", "1") == 0
    results = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("one", "two")]
    assert results[0] == results[1]
    assert results[0]["psnr_db"]["model"]["num_clips"] == 4
    assert len(results[0]["pairs"]) == 2
    with Image.open(tmp_path / "one" / "swaps.png") as sheet:
        assert sheet.width > 5 * 64
    assert f"{results[0]['psnr_db']['model']['mean']:.2f} dB" in capsys.readouterr().out


def test_a_judge_and_the_probes_add_their_numbers(model_folder, prepared, tmp_path, capsys):
    judge = ["judge", "--data", str(prepared), "--out", str(tmp_path / "judge"), "--device", "cpu", "--steps", "5"]
    assert main([*judge, "--frames", "5", "--size", "16", "--channels", "3"]) == 0
    more = ("--steps", "1", "--judge", str(tmp_path / "judge"), "--leakage")
    assert evaluate(model_folder, prepared, tmp_path / "out", *more) == 0
    swaps = json.loads((tmp_path / "out" / "swaps.json").read_text())
    leakage = json.loads((tmp_path / "out" / "leakage.json").read_text())
    assert swaps
    assert leakage
    assert len(json.loads((tmp_path / "out" / "pairs.json").read_text())["pairs"]) == 4
    assert "leakage" in capsys.readouterr().out.lower()


def test_a_set_of_another_kind_is_refused_in_one_line(model_folder, tmp_path, capsys):
    assert evaluate(model_folder, tmp_path, tmp_path / "out") == 2
    assert capsys.readouterr().err.count("\n") == 1
