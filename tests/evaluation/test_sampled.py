"""The sampled variants where their outcome is known: codes that hold exactly the label, methods that copy, judges that guess."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from divid.config import SamplingConfig
from divid.data.clips import ClipDataset
from divid.errors import DatasetError, ModelError
from divid.evaluation.codes import encode_clips
from divid.evaluation.judge import HeldOut
from divid.evaluation.prior import PriorOptions, fit_prior
from divid.evaluation.sampled import draw_codes, labelled_clips, measure_sampled, sampled_sheet
from labelled_clips import NUM_FRAMES, Broken, CopyA, CopyB, GuessingJudge, KnowingJudge, LabelCodes, judge_config, prepare_clips

SAMPLING = SamplingConfig()
QUICK = PriorOptions(hidden=32, components=3, num_steps=150, learning_rate=1e-2)


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    root = tmp_path_factory.mktemp("sampled")
    folder = prepare_clips(root / "recordings", root / "set")
    return ClipDataset.open(folder, split="train"), ClipDataset.open(folder, split="test")


@pytest.fixture(scope="module")
def clips(splits):
    return splits[1]


@pytest.fixture(scope="module")
def knowing(clips):
    return KnowingJudge(judge_config(clips))


def prior_of(model, splits, options=QUICK):
    return fit_prior(encode_clips(model, splits[0], num_frames=NUM_FRAMES), options)


@pytest.fixture(scope="module")
def label_prior(splits):
    return prior_of(LabelCodes(), splits)


def measure(model, judge, prior, clips, **options):
    return measure_sampled(model, judge, prior, clips, num_frames=NUM_FRAMES, sampling=SAMPLING, **options)


def test_codes_that_hold_exactly_the_label_keep_what_is_kept(knowing, label_prior, clips):
    result = measure(LabelCodes(), knowing, label_prior, clips)
    rows = result.rows
    assert list(rows) == ["static kept", "dynamic kept", "both sampled", "real", "reconstruction"]
    assert rows["static kept"].static.rate == 1
    assert rows["static kept"].dynamic.rate < 1
    assert rows["dynamic kept"].dynamic.rate == 1
    assert rows["dynamic kept"].static.rate < 1
    assert rows["both sampled"].static is rows["both sampled"].dynamic is None
    for name in ("real", "reconstruction"):
        assert (rows[name].static.rate, rows[name].dynamic.rate, rows[name].static.num) == (1, 1, 9)
    assert result.num_clips == 9
    assert result.factors == {"subject": "static", "action": "dynamic"}


def test_the_classic_numbers_are_those_of_the_labels(knowing, label_prior, clips):
    """A sure judge: H(y|x) = 0. What is kept is there evenly, 3 of each class: H(y) = ln 3 and a score of 3."""
    rows = measure(LabelCodes(), knowing, label_prior, clips).rows
    for name, factor in (("real", "subject"), ("real", "action"), ("static kept", "subject"), ("dynamic kept", "action")):
        scores = rows[name].scores[factor]
        assert scores.inception_score == pytest.approx(3)
        assert (scores.conditional_entropy, scores.marginal_entropy) == pytest.approx((0, math.log(3)))
    assert rows["both sampled"].scores["subject"].conditional_entropy == 0


def test_a_method_that_copies_only_the_look_does_not_listen_to_sampled_motion(knowing, splits, clips):
    rows = measure(CopyA(), knowing, prior_of(CopyA(), splits, replace(QUICK, num_steps=1)), clips).rows
    assert rows["static kept"].static.rate == rows["static kept"].dynamic.rate == 1


def test_a_method_that_copies_only_the_motion_does_not_listen_to_a_sampled_look(knowing, splits, clips):
    rows = measure(CopyB(), knowing, prior_of(CopyB(), splits, replace(QUICK, num_steps=1)), clips).rows
    assert rows["dynamic kept"].static.rate == rows["dynamic kept"].dynamic.rate == 1


def test_a_guessing_judge_gives_chance(label_prior, clips):
    many = clips.subset(np.arange(9).repeat(40))
    result = measure(LabelCodes(), GuessingJudge(judge_config(clips)), label_prior, many)
    assert result.chance["static"] == result.chance["dynamic"] == pytest.approx(1 / 3)
    for name, kind in (("static kept", "static"), ("dynamic kept", "dynamic"), ("real", "static")):
        rate = getattr(result.rows[name], kind)
        assert rate.num == 360
        assert rate.rate == pytest.approx(1 / 3, abs=4 * math.sqrt(1 / 3 * 2 / 3 / 360))


def test_it_repeats_and_is_json_without_nan(knowing, label_prior, clips):
    result = measure(LabelCodes(), knowing, label_prior, clips, seed=7, method="labels")
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert values == json.loads(json.dumps(measure(LabelCodes(), knowing, label_prior, clips, seed=7, method="labels").to_dict()))
    assert (values["method"], values["data"], values["seed"]) == ("labels", ["set"], 7)
    assert values["rows"]["both sampled"]["static"] is None
    assert values["rows"]["real"]["scores"]["action"]["inception_score"] == pytest.approx(3)
    assert values["prior"]["num_clips"] == 27


def test_what_is_drawn_for_clip_i_depends_on_the_seed_plus_i(label_prior):
    static, dynamic = draw_codes(label_prior, 4, NUM_FRAMES, 10)
    later_static, later_dynamic = draw_codes(label_prior, 2, NUM_FRAMES, 12)
    torch.testing.assert_close(later_static, static[2:])
    torch.testing.assert_close(later_dynamic, dynamic[2:])


def test_lines_name_the_prior_the_doubtful_judge_and_every_row(knowing, label_prior, clips):
    truth = {"subject": np.arange(10) % 3, "action": np.arange(10) % 3}
    wrong = {**truth, "action": (np.arange(10) + 1) % 3}
    config = judge_config(clips)
    result = measure(LabelCodes(), KnowingJudge(config, HeldOut.of(config, wrong, truth)), label_prior, clips)
    text = "\n".join(result.lines())
    assert "The judge is not to be trusted: its joint accuracy on held-out real clips is 0.0 %" in text
    assert "fitted afterwards to the codes of 27 training clips and is no part of the method" in text
    assert "action (dynamic, 3 classes): inception score, H(y|x) and H(y) in nats" in text
    assert len(result.lines()) == 5 + 1 + 2 * (1 + 5) + 2
    assert "nan" not in text


def test_the_sheet_shows_three_rows_a_clip(label_prior, clips):
    sheet = sampled_sheet(LabelCodes(), label_prior, clips, num_frames=NUM_FRAMES, sampling=SAMPLING, title="samples")
    assert sheet.height > 12 * 64
    assert sheet.width > NUM_FRAMES * 64


def test_a_method_that_returns_nan_is_named(knowing, splits, clips):
    prior = prior_of(CopyA(), splits, replace(QUICK, num_steps=1))
    with pytest.raises(ModelError, match=r"the method our-vae gives values that are not numbers .* in static kept 2:"):
        measure(Broken(), knowing, prior, clips, method="our-vae")


def test_clips_that_lack_a_label_are_left_out_or_refused(tmp_path):
    folder = prepare_clips(tmp_path / "recordings", tmp_path / "set", num_trials=2, unlabelled=("ben_fall_1",))
    clips = ClipDataset.open(folder, split="test")
    judge = KnowingJudge(judge_config(clips))
    used, truth = labelled_clips(judge, clips)
    assert len(used) == len(truth["action"]) == 8
    only = clips.subset([index for index in range(9) if clips.clip_id(index) == "ben_fall_1"])
    with pytest.raises(DatasetError, match="none of the 1 clips has all its labels"):
        labelled_clips(judge, only)


def test_a_judge_of_another_size_is_refused(knowing, label_prior, clips):
    with pytest.raises(ModelError, match=r"clips of 5 frames, 8 are asked for: .* --frames 8"):
        measure_sampled(LabelCodes(), knowing, label_prior, clips, num_frames=8, sampling=SAMPLING)
