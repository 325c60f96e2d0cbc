"""`divid judge` from end to end, and what it refuses."""

import json

import pytest
from PIL import Image

from divid.cli.main import main
from divid.evaluation.judge import Judge
from labelled_clips import prepare_clips
from made_data import make_set


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("judged")
    return prepare_clips(root / "recordings", root / "set")


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    root = tmp_path_factory.mktemp("unlabelled")
    prepare_clips(root / "recordings", root / "labelled", num_trials=2)
    make_set(root / "recordings", root / "set", "folder")
    return root / "set"


def judge(data, out, *more):
    return main(["judge", "--data", str(data), "--out", str(out), "--device", "cpu", "--frames", "5", *more])


@pytest.mark.parametrize("architecture", ["gru", "conv3d", "two_stream"])
def test_a_judge_its_numbers_and_its_pictures_are_written(architecture, prepared, tmp_path, capsys):
    assert judge(prepared, tmp_path / "judge", "--architecture", architecture, "--steps", "60") == 0
    made = Judge.load(tmp_path / "judge")
    assert (made.config.architecture, made.config.data, made.config.image_size) == (architecture, "set", 16)
    assert made.is_trusted
    printed = capsys.readouterr().out
    assert "joint        100.00 %" in printed
    assert "not to be trusted" not in printed
    for name in ("subject", "action"):
        with Image.open(tmp_path / "judge" / f"confusion_{name}.png") as picture:
            assert min(picture.size) > 200


def test_size_channels_and_doubt_are_kept(prepared, tmp_path, capsys):
    assert judge(prepared, tmp_path / "judge", "--steps", "1", "--size", "8", "--channels", "3") == 0
    made = Judge.load(tmp_path / "judge")
    assert made.config.video_shape == (5, 3, 8, 8)
    assert not made.is_trusted
    assert "under 95 % joint" in capsys.readouterr().out
    assert json.loads((tmp_path / "judge" / "judge.json").read_text())["training"]["num_steps"] == 1


def test_what_cannot_be_judged_is_one_line(prepared, unlabelled, tmp_path, refused):
    words = ["judge", "--device", "cpu", "--out", tmp_path / "out", "--data"]
    refused([*words, unlabelled], "has no static factor")
    refused([*words, tmp_path / "none"], "does not exist")
    refused([*words, prepared, "--minutes", "0"], "max_minutes")
    refused([*words, prepared, "--steps", "0"], "num_steps")
    refused([*words, prepared, "--frames", "1"], "num_frames")
    refused([*words, prepared, "--architecture", "lstm"], "architecture")
    (tmp_path / "file").write_text("x")
    refused(["judge", "--data", prepared, "--out", tmp_path / "file"], "cannot make the folder")
