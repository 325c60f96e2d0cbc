"""`divid evaluate` from end to end, and what it refuses."""

import functools
import json
import shutil

import pytest
import torch
from PIL import Image

from divid.cli.main import main
from divid.evaluation import prior
from divid.evaluation.leakage import DIRECTIONS
from divid.evaluation.pairs import PairList
from divid.models.divid import DividModel
from labelled_clips import prepare_clips
from made_data import make_set, write_depth, write_images


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for name in ("a1_s1", "a1_s2", "a2_s1", "a2_s2"):
        for trial in (1, 2):
            write_depth(folder, f"{name}_t{trial}")
    out = tmp_path_factory.mktemp("sets") / "set"
    make_set(folder, out, channels=3)
    return out


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Three subjects and three actions: other classes than those of `prepared`."""
    root = tmp_path_factory.mktemp("labelled")
    return prepare_clips(root / "recordings", root / "set", num_trials=2)


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    root = tmp_path_factory.mktemp("unlabelled")
    for name in ("one", "two", "three"):
        write_images(root / "recordings" / name)
    make_set(root / "recordings", root / "set", "folder", channels=3)
    return root / "set"


@pytest.fixture(scope="module")
def judge_folder(prepared, tmp_path_factory):
    return train_judge(prepared, tmp_path_factory.mktemp("judges") / "judge")


def train_judge(data, out, size=16):
    options = ["--device", "cpu", "--steps", "5", "--frames", "5", "--size", str(size), "--channels", "3"]
    assert main(["judge", "--data", str(data), "--out", str(out), *options]) == 0
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


def test_some_of_the_clips_may_be_reconstructed_the_same_for_every_model(model_folder, prepared, tmp_path):
    numbers = []
    for name, clips in (("one", "2"), ("two", "2"), ("all", "9")):
        assert evaluate(model_folder, prepared, tmp_path / name, "--pairs", "2", "--steps", "1", "--clips", clips) == 0
        numbers.append(json.loads((tmp_path / name / "evaluation.json").read_text())["psnr_db"]["mean_frame"])
    assert numbers[0] == numbers[1]
    assert [row["num_clips"] for row in numbers] == [2, 2, 4]


def test_a_judge_and_the_probes_add_their_numbers(model_folder, prepared, judge_folder, tmp_path, capsys):
    more = (
        "--steps",
        "1",
        "--judge",
        str(judge_folder),
        "--leakage",
        "--overlap",
        "--reverse",
        "--consistency",
        "--consistency-pairs",
        "5",
    )
    assert evaluate(model_folder, prepared, tmp_path / "out", *more) == 0
    swaps = json.loads((tmp_path / "out" / "swaps.json").read_text())
    leakage = json.loads((tmp_path / "out" / "leakage.json").read_text())
    assert json.loads((tmp_path / "out" / "consistency.json").read_text())["joint"]["num"] == 5
    overlap = json.loads((tmp_path / "out" / "overlap.json").read_text())
    assert {"swap", "swap, reversed", "copy A"} <= swaps["rows"].keys()
    assert set(leakage["directions"]) == set(DIRECTIONS)
    assert len(json.loads((tmp_path / "out" / "pairs.json").read_text())["pairs"]) == 4
    assert not swaps["judge"]["is_trusted"]
    printed = capsys.readouterr().out
    assert "leakage" in printed.lower()
    assert "The judge is not to be trusted" in printed
    report = (tmp_path / "out" / "report.md").read_text()
    assert "## Swaps" in report
    assert "## Self-consistency of swaps" in report
    assert "## Leakage" in report
    assert "## Overlap of the tokens" in report
    assert overlap["static_from_dynamic"]["share"] <= 1
    assert "The judge is not to be trusted" in report


def test_another_model_may_read_the_swaps(model_folder, prepared, tmp_path, capsys):
    shutil.copytree(model_folder, tmp_path / "reader")
    reader = str(tmp_path / "reader")
    more = ("--steps", "1", "--pairs", "1", "--consistency", "--consistency-pairs", "5", "--consistency-encoder", reader)
    assert evaluate(model_folder, prepared, tmp_path / "out", *more) == 0
    assert json.loads((tmp_path / "out" / "consistency.json").read_text())["reader"] == reader
    assert f"Swaps encoded again by the encoder of {reader}:" in (tmp_path / "out" / "report.md").read_text()
    assert f"read by {reader}" in capsys.readouterr().out


def test_fewer_pairs_than_asked_for_are_all_taken_and_that_is_said(model_folder, prepared, judge_folder, tmp_path, capsys):
    assert evaluate(model_folder, prepared, tmp_path, "--steps", "1", "--judge", str(judge_folder), "--swap-pairs", "500") == 0
    swaps = json.loads((tmp_path / "swaps.json").read_text())
    assert (swaps["num_pairs"], swaps["num_asked"]) == (4, 500)
    said = "500 pairs were asked for; 4 are all that there are."
    assert said in swaps["notes"]
    assert said in capsys.readouterr().out
    assert said in (tmp_path / "report.md").read_text()


def test_sampled_tokens_add_their_numbers_and_name_the_prior(model_folder, prepared, judge_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(prior, "PriorOptions", functools.partial(prior.PriorOptions, num_steps=3))
    assert evaluate(model_folder, prepared, tmp_path, "--steps", "1", "--judge", str(judge_folder), "--sampled") == 0
    sampled = json.loads((tmp_path / "sampled.json").read_text())
    assert {"static kept", "dynamic kept", "both sampled", "real", "reconstruction"} == sampled["rows"].keys()
    assert sampled["prior"]["num_clips"] == 4
    for text in (capsys.readouterr().out, (tmp_path / "report.md").read_text()):
        assert "fitted afterwards to the codes of 4 training clips and is no part of the method" in text
        assert "The judge is not to be trusted" in text
    with Image.open(tmp_path / "sampled.png") as sheet:
        assert sheet.width > 5 * 64


def test_realism_adds_its_numbers_and_names_the_network(model_folder, prepared, feature_weights, tmp_path, capsys):
    more = ("--steps", "1", "--realism", "--feature-weights", str(feature_weights), "--realism-pairs", "3")
    assert evaluate(model_folder, prepared, tmp_path, *more) == 0
    realism = json.loads((tmp_path / "realism.json").read_text())
    assert realism["network"].startswith("efficientnet_lite0, lite0.safetensors, sha256 ")
    assert realism["frechet"].keys() == {"reconstruction", "swap", "real training clips"}
    assert realism["frechet"]["swap"]["num_made_clips"] == 3
    assert realism["ssim"]["num_clips"] == 4
    for text in (capsys.readouterr().out, (tmp_path / "report.md").read_text()):
        assert realism["network"] in text


def test_no_labels_are_needed_where_nothing_is_judged(model_folder, unlabelled, tmp_path):
    assert evaluate(model_folder, unlabelled, tmp_path, "--steps", "1", "--split", "train") == 0
    assert "## Swaps" not in (tmp_path / "report.md").read_text()


def test_a_set_of_another_kind_is_refused_in_one_line(model_folder, tmp_path, capsys):
    assert evaluate(model_folder, tmp_path, tmp_path / "out") == 2
    assert capsys.readouterr().err.count("\n") == 1


def words_of(model, data, out, *more):
    return ["evaluate", "--model", model, "--data", data, "--out", out, "--device", "cpu", *more]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--sampled",), "--sampled means nothing without --judge"),
        (("--reverse",), "--reverse means nothing without --judge"),
        (("--pair-list", "pairs.json"), "--pair-list means nothing without --judge"),
        (("--feature-network", "vgg16"), "--feature-network means nothing without --realism"),
        (("--feature-weights", "vgg16.pth"), "--feature-weights means nothing without --realism"),
        (("--consistency-encoder", "puppets"), "--consistency-encoder means nothing without --consistency"),
        (("--clips", "-1"), "--clips is -1, must be 1 or more, or 0 for all"),
        (("--consistency", "--consistency-pairs", "0"), "--consistency-pairs is 0, must be 1 or more"),
        (("--realism", "--realism-pairs", "0"), "--realism-pairs is 0, must be 1 or more"),
        (("--realism", "--feature-network", "inception"), "inception"),
        (("--realism", "--feature-network", "vgg16"), "vgg16 comes without weights"),
        (("--realism", "--feature-weights", "none.pth"), "there is no file none.pth"),
    ],
)
def test_options_that_mean_nothing_are_one_line(more, message, model_folder, prepared, tmp_path, refused):
    refused(words_of(model_folder, prepared, tmp_path / "out", *more), message)


def test_weights_of_another_network_are_one_line(model_folder, prepared, feature_weights, tmp_path, refused):
    more = ("--realism", "--feature-network", "vgg16", "--feature-weights", feature_weights)
    refused(words_of(model_folder, prepared, tmp_path / "out", *more), "is not of vgg16")


def test_data_without_labels_are_one_line(model_folder, unlabelled, judge_folder, tmp_path, refused):
    words = words_of(model_folder, unlabelled, tmp_path / "out", "--split", "train")
    refused([*words, "--judge", judge_folder], "the clips have none: prepare the data with labels")
    refused([*words, "--leakage"], "have no static factor")


def test_data_with_one_label_are_one_line(model_folder, prepared, judge_folder, tmp_path, tmp_path_factory, refused):
    root = tmp_path_factory.mktemp("one_label")
    for trial in (1, 2):
        write_depth(root, f"a1_s1_t{trial}")
        write_depth(root, f"a2_s1_t{trial}")
    data = tmp_path_factory.mktemp("one_label_sets") / "set"
    make_set(root, data, channels=3)
    words = words_of(model_folder, data, tmp_path / "out")
    refused([*words, "--leakage"], "1 class of the static factor 'subject'")
    refused([*words, "--judge", judge_folder], "have one class of 'subject' only, so nothing is to be judged")
    assert not (tmp_path / "out").exists()


def test_a_judge_of_other_classes_or_another_size_is_one_line(model_folder, prepared, labelled, judge_folder, tmp_path, refused):
    words = words_of(model_folder, prepared, tmp_path / "out")
    small, other = (train_judge(data, tmp_path / f"judge{size}", size) for data, size in ((prepared, 8), (labelled, 16)))
    refused([*words, "--judge", small], "trained on frames of 8 pixels .* divid judge --size 16")
    refused([*words, "--judge", other], "the judge was trained on other classes of")
    refused([*words, "--judge", tmp_path], "holds no judge")


def test_a_pair_list_that_names_absent_clips_is_one_line(model_folder, prepared, judge_folder, tmp_path, refused):
    PairList((("nobody", "nothing"),), 0, 1, ("other",)).save(tmp_path / "pairs.json")
    more = ("--judge", judge_folder, "--pair-list", tmp_path / "pairs.json")
    refused(words_of(model_folder, prepared, tmp_path / "out", *more), "names the clip 'nobody', which is not among")


def test_a_model_that_gives_no_numbers_is_one_line(model_folder, prepared, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(DividModel, "decode", lambda self, codes, **options: torch.full((4, 5, 3, 16, 16), torch.nan))
    refused(words_of(model_folder, prepared, tmp_path / "out"), "frames that hold NaN or infinite values")
