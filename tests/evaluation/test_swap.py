"""The swap test where its outcome is known: judges that know or guess, methods that copy, and codes that are the labels."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from divid.config import SamplingConfig
from divid.data.clips import ClipDataset
from divid.errors import DatasetError, ModelError
from divid.evaluation.judge import HeldOut
from divid.evaluation.pairs import PairList
from divid.evaluation.swap import NUM_FAILURES, chance_levels, failure_sheet, measure_swaps
from labelled_clips import (
    NUM_FRAMES,
    SIZE,
    Broken,
    CopyA,
    CopyB,
    GuessingJudge,
    KnowingJudge,
    LabelCodes,
    Method,
    judge_config,
    prepare_clips,
)

SAMPLING = SamplingConfig()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("swapped")
    return prepare_clips(root / "recordings", root / "set", absent=[(0, 1), (2, 2)])


@pytest.fixture(scope="module")
def clips(folder):
    return ClipDataset.open(folder, split="test")


@pytest.fixture(scope="module")
def pairs(clips):
    return PairList.draw(clips, 36)


@pytest.fixture(scope="module")
def knowing(clips):
    return KnowingJudge(judge_config(clips))


def shares(row):
    return tuple(getattr(row, name).rate for name in ("static", "dynamic", "joint", "static_of_b", "dynamic_of_a"))


def swap(model, judge, clips, pairs, num_frames=NUM_FRAMES, **options):
    return measure_swaps(model, judge, clips, pairs, num_frames=num_frames, sampling=SAMPLING, **options)


def test_codes_that_hold_exactly_the_label_are_right_everywhere(knowing, clips, pairs):
    result = swap(LabelCodes(), knowing, clips, pairs)
    assert shares(result.rows["swap"]) == (1, 1, 1, 0, 0)
    assert result.rows["swap"].joint.num == result.num_pairs == 36
    assert result.rows["swap"].joint.bootstrap == (1, 1)
    assert result.rows["swap"].joint.wilson[1] == 1
    for name in ("real", "reconstruction"):
        row = result.rows[name]
        assert (row.static.rate, row.dynamic.rate, row.joint.rate, row.joint.num) == (1, 1, 1, 9)
        assert row.static_of_b is None
    assert result.failures == ()
    assert failure_sheet(result, clips) is None


@pytest.mark.parametrize(
    ("model", "expected"),
    [(CopyA(), (1, 0, 0, 0, 1)), (CopyB(), (0, 1, 0, 1, 0))],
)
def test_methods_that_copy_score_what_the_copy_rows_say(model, expected, knowing, clips, pairs):
    result = swap(model, knowing, clips, pairs)
    assert shares(result.rows["swap"]) == expected
    assert shares(result.rows["copy A"]) == (1, 0, 0, 0, 1)
    assert shares(result.rows["copy B"]) == (0, 1, 0, 1, 0)
    assert result.rows["reconstruction"].joint.rate == 1


def test_the_reverse_has_its_row_and_the_roles_are_exchanged(knowing, clips, pairs):
    some = replace(pairs, pairs=tuple(pair for pair in pairs.pairs if pair[0].startswith("anna")))
    assert "swap, reversed" not in swap(CopyA(), knowing, clips, some).rows
    right, copied, one = (
        swap(model, knowing, clips, some, reverse=True).rows for model in (LabelCodes(), CopyA(), RightForOneSubject())
    )
    assert shares(right["swap, reversed"]) == (1, 1, 1, 0, 0)
    assert shares(copied["swap, reversed"]) == (1, 0, 0, 0, 1)
    assert (one["swap"].static.rate, one["swap, reversed"].static.rate) == (1, 0)  # only anna's look is kept
    assert one["swap, reversed"].joint.num == len(some) == 12


def test_a_guessing_judge_gives_chance(clips, pairs):
    many = replace(pairs, pairs=pairs.pairs * 30)
    result = swap(CopyB(), GuessingJudge(judge_config(clips)), clips, many)
    assert result.chance == {"static": pytest.approx(1 / 3), "dynamic": pytest.approx(1 / 3), "joint": pytest.approx(1 / 9)}
    for name, chance in result.chance.items():
        low, high = getattr(result.rows["swap"], name).wilson
        assert low < chance < high


def test_chance_of_several_static_factors_is_their_product():
    from divid.evaluation.judge import Judge, JudgeConfig

    factors = {"static": {"hat": ("a", "b"), "coat": ("a", "b", "c")}, "dynamic": {"action": ("a", "b", "c", "d")}}
    levels = chance_levels(Judge(JudgeConfig("made", factors, SIZE, 1, 4)))
    assert levels == {"static": pytest.approx(1 / 6), "dynamic": 0.25, "joint": pytest.approx(1 / 24)}


class RightForOneSubject(LabelCodes):
    """Keeps only the first subject; everybody else's swaps show the motion's person."""

    def encode(self, video):
        codes = super().encode(video)
        person = codes.static[:, :, None].expand(-1, codes.num_frames, 1)
        return replace(codes, dynamic=torch.cat([codes.dynamic, person], dim=2))

    def choose(self, codes):
        own, moving = codes.static[:, 0], codes.dynamic[:, 0, 1]
        return super().choose(replace(codes, static=torch.where(own == 0, own, moving)[:, None]))


def test_the_breakdown_names_the_class_that_works(knowing, clips, pairs):
    result = swap(RightForOneSubject(), knowing, clips, pairs)
    subject = result.factors["subject"]
    assert {name: rate.rate for name, rate in subject.classes.items()} == {"anna": 1, "ben": 0, "cleo": 0}
    assert [rate.num for rate in subject.classes.values()] == [12, 12, 12]
    assert (subject.kind, subject.kept.rate, subject.other.rate) == ("static", pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert result.rows["swap"].static_of_b.rate == pytest.approx(2 / 3)
    assert np.array(subject.confusion)[0].tolist() == [12, 0, 0]
    action = result.factors["action"]
    assert (action.kind, action.kept.rate) == ("dynamic", 1)
    assert np.array(action.confusion).trace() == 36


def test_failures_are_kept_to_be_looked_at(knowing, clips, pairs):
    result = swap(CopyB(), knowing, clips, pairs)
    assert [(f.appearance, f.motion) for f in result.failures] == list(pairs.pairs[:NUM_FAILURES])
    first = result.failures[0]
    assert first.judged == dict(zip(("subject", "action"), first.motion.split("_")[:2], strict=True))
    sheet = failure_sheet(result, clips, title="failures")
    assert sheet.height > 3 * NUM_FAILURES * 64


def test_combinations_that_were_never_trained_on_are_reported_apart(folder, knowing, clips, pairs):
    train = ClipDataset.open(folder, split="train")
    rows = swap(RightForOneSubject(), knowing, clips, pairs, train_clips=train).rows
    new = rows["swap, unseen combinations"]
    assert new.joint.num == 4 + 4  # anna falling and cleo rising, each out of 4 pairs
    assert new.static.rate == 0.5
    assert "swap, unseen combinations" not in swap(CopyA(), knowing, clips, pairs, train_clips=clips).rows


def test_pair_i_is_sampled_with_its_own_seed_and_the_result_repeats(knowing, clips, pairs):
    model = CopyB()
    result = swap(model, knowing, clips, pairs, seed=100)
    assert model.seen_seeds == [*range(100, 109), *range(100, 136)]
    assert swap(CopyB(), knowing, clips, pairs, seed=100).to_dict() == result.to_dict()


def test_every_pair_has_its_outcome_in_the_lists_order(clips, pairs):
    guessing = GuessingJudge(judge_config(clips))
    result = swap(LabelCodes(), guessing, clips, pairs)
    row, outcomes = result.rows["swap"], result.outcomes
    assert outcomes["static"].count("1") == round(36 * row.static.rate)
    assert outcomes["dynamic"].count("1") == round(36 * row.dynamic.rate)
    both = [a + b == "11" for a, b in zip(outcomes["static"], outcomes["dynamic"], strict=True)]
    assert sum(both) == round(36 * row.joint.rate)
    failed = [pair for pair, right in zip(pairs.pairs, both, strict=True) if not right]
    assert [(f.appearance, f.motion) for f in result.failures] == failed[:NUM_FAILURES]


def test_the_result_is_json_without_nan(knowing, clips, pairs):
    alone = PairList(pairs.pairs[:1], 0, 1, pairs.data)
    result = swap(CopyB(), knowing, clips, alone, method="copier")
    text = json.dumps(result.to_dict(), allow_nan=False)
    values = json.loads(text)
    assert values["method"] == "copier"
    assert values["rows"]["swap"]["dynamic"] == {
        "rate": 1.0, "num": 1, "wilson": [pytest.approx(0.2065, abs=1e-4), 1.0], "bootstrap": [1.0, 1.0],
    }  # fmt: skip
    assert values["rows"]["real"]["static_of_b"] is None
    assert values["failures"][0]["appearance"] == pairs.pairs[0][0]
    assert values["outcomes"] == {"static": "0", "dynamic": "1"}
    assert values["factors"]["action"]["kind"] == "dynamic"
    assert any(line.startswith("copy A") for line in result.lines())
    assert any(line.startswith("chance") for line in result.lines())


def test_a_judge_under_its_threshold_and_missing_pairs_are_said(clips, pairs):
    config = judge_config(clips)
    truth = {"subject": np.arange(10) % 3, "action": np.arange(10) % 3}
    wrong = {"subject": truth["subject"], "action": np.where(np.arange(10) == 0, 1, truth["action"])}
    doubtful, fine = (KnowingJudge(config, HeldOut.of(config, answers, truth)) for answers in (wrong, truth))
    many = replace(pairs, num_asked=2000)
    notes = swap(CopyA(), doubtful, clips, many).notes
    assert notes[0] == "The judge is not to be trusted: its joint accuracy on held-out real clips is 90.0 %, under 95 %."
    assert notes[1] == "2000 pairs were asked for; 36 are all that there are."
    result = swap(CopyA(), fine, clips, pairs)
    assert result.notes == ()
    assert result.judge["is_trusted"]
    assert "unknown" in swap(CopyA(), KnowingJudge(config), clips, pairs).notes[0]


def test_a_method_that_returns_nan_is_named(knowing, clips, pairs):
    with pytest.raises(ModelError, match=r"the method our-vae gives values that are not numbers .* in reconstruction 2:"):
        swap(Broken(), knowing, clips, pairs, method="our-vae")


def test_a_method_of_another_shape_is_named(knowing, clips, pairs):
    class Halved(Method):
        def decode(self, codes, *, seeds, sampling=None, first_frame=0, callback=None):
            return torch.zeros(len(seeds), codes.num_frames, 1, SIZE // 2, SIZE // 2)

    with pytest.raises(ModelError, match=r"the method Halved gives clips of shape \(9, 5, 1, 8, 8\)"):
        swap(Halved(), knowing, clips, pairs)


def test_what_does_not_fit_is_refused(folder, knowing, clips, pairs):
    with pytest.raises(ModelError, match="divid judge --size 8 --channels 1"):
        swap(CopyA(), knowing, ClipDataset.open(folder, split="test", image_size=8), pairs)
    with pytest.raises(ModelError, match=r"clips of 5 frames, 8 are asked for: .* --frames 8"):
        swap(CopyA(), knowing, clips, pairs, num_frames=8)
    with pytest.raises(DatasetError, match="names the clip 'anna_"):
        swap(CopyA(), knowing, ClipDataset.open(folder, split="train"), pairs)


def test_a_pair_without_a_label_is_refused(tmp_path):
    folder = prepare_clips(tmp_path / "recordings", tmp_path / "set", num_trials=1, unlabelled=("ben_fall_0",))
    clips = ClipDataset.open(folder)
    pairs = PairList((("anna_stay_0", "ben_fall_0"),), 0, 1, ("set",))
    with pytest.raises(DatasetError, match="'ben_fall_0', which has no label of 'subject'"):
        swap(CopyA(), KnowingJudge(judge_config(clips)), clips, pairs)
