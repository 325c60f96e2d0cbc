"""Leakage where it is known: codes that hold exactly the label, the wrong label, both, nothing, or are all the same."""

import importlib.util
import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from divid.data.clips import ClipDataset
from divid.data.module import middle_video
from divid.errors import DatasetError, MissingExtraError, ModelError
from divid.evaluation import codes as batches
from divid.evaluation import leakage
from divid.evaluation.intervals import wilson_interval
from divid.evaluation.leakage import (
    LabelledCodes,
    Leakage,
    ProbeScore,
    check_labels,
    collect_codes,
    measure_leakage,
    probe_codes,
    summarise_dynamic,
)
from divid.evaluation.probes import mlp_probe
from divid.types import Codes
from made_data import make_set, write_depth
from pixel_method import PixelMethod

SUBJECTS, ACTIONS, NUM_TRIALS = 4, 5, 3
FACTORS = {"static": ("subject",), "dynamic": ("action",)}
CHANCE = {
    "S->D": 1 / ACTIONS, "D->D": 1 / ACTIONS, "Dseq->D": 1 / ACTIONS,
    "D->S": 1 / SUBJECTS, "S->S": 1 / SUBJECTS, "Dseq->S": 1 / SUBJECTS,
}  # fmt: skip


def centroid_probe(codes, classes, held_out, seed):
    """Name the class whose held-in mean is nearest; the same at every call, whatever is installed."""
    known = np.unique(classes)
    centres = np.stack([codes[classes == number].mean(0) for number in known])
    return known[((held_out[:, None] - centres) ** 2).sum(-1).argmin(1)]


needs_scikit_learn = pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="needs the extra eval")
PROBES = [pytest.param(centroid_probe, id="centroids"), pytest.param(mlp_probe, id="mlp", marks=needs_scikit_learn)]


def made_codes(static, dynamic, num_trials=NUM_TRIALS, num_frames=4):
    """Every subject doing every action: `static` and `dynamic` make a token of (subject, action), as one-hot vectors."""
    rows = list(itertools.product(range(SUBJECTS), range(ACTIONS), range(num_trials)))
    subject = torch.eye(SUBJECTS)[[row[0] for row in rows]]
    action = torch.eye(ACTIONS)[[row[1] for row in rows]]
    s, d = static(subject, action), dynamic(subject, action)
    labels = [{"subject": f"s{row[0]}", "action": f"a{row[1]}"} for row in rows]
    return LabelledCodes.of(Codes(s, d[:, None].expand(-1, num_frames, -1)), labels)


def only_subject(subject, action):
    return subject


def only_action(subject, action):
    return action


def both(subject, action):
    return torch.cat([subject, action], dim=1)


def nothing(subject, action):
    return torch.full((len(subject), 3), 0.7)


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize(
    ("static", "dynamic", "read"),
    [
        (only_subject, only_action, {"S->S", "D->D", "Dseq->D"}),
        (only_action, only_subject, {"S->D", "D->S", "Dseq->S"}),
        (both, both, {"S->D", "D->S", "S->S", "D->D", "Dseq->S", "Dseq->D"}),
        (nothing, nothing, set()),
        (only_subject, both, {"S->S", "D->S", "D->D", "Dseq->S", "Dseq->D"}),
    ],
)
def test_codes_that_hold_exactly_a_label_give_exactly_it_and_otherwise_chance(static, dynamic, read, probe):
    """A code that is a function of the subject alone answers each action equally often: exactly chance, whatever the probe."""
    result = probe_codes(made_codes(static, dynamic), made_codes(static, dynamic, num_trials=2), FACTORS, probe=probe)
    expected = {direction: 1.0 if direction in read else chance for direction, chance in CHANCE.items()}
    assert {direction: result.accuracy(direction) for direction in CHANCE} == pytest.approx(expected)
    assert {direction: result.chance(direction) for direction in CHANCE} == pytest.approx(CHANCE)
    assert result.mean == pytest.approx((expected["S->D"] + expected["D->S"]) / 2)
    assert result.normalised == pytest.approx(len(read & {"S->D", "D->S"}) / 2)
    assert result.num_held_in == SUBJECTS * ACTIONS * NUM_TRIALS
    assert {score.total for score in result.scores} == {SUBJECTS * ACTIONS * 2}


@pytest.mark.parametrize("probe", PROBES)
def test_noise_is_read_no_better_than_by_chance(probe):
    generator = torch.Generator().manual_seed(0)

    def noise(subject, action):
        return torch.randn(len(subject), 6, generator=generator)

    result = probe_codes(made_codes(noise, noise, 10), made_codes(noise, noise, 20), FACTORS, probe=probe)
    for score in result.scores:
        low, high = score.interval
        assert high - low < 0.11
        assert low - 0.02 < score.chance < high + 0.02
    assert result.normalised < 0.08


@needs_scikit_learn
def test_the_seed_decides_what_the_probe_reads():
    generator = torch.Generator().manual_seed(0)

    def noise(subject, action):
        return torch.randn(len(subject), 6, generator=generator)

    sets = made_codes(noise, noise), made_codes(noise, noise)
    assert probe_codes(*sets, FACTORS, seed=1) == probe_codes(*sets, FACTORS, seed=1)
    assert probe_codes(*sets, FACTORS, seed=1) != probe_codes(*sets, FACTORS, seed=2)


def test_motion_is_read_from_the_spread_over_frames_too():
    dynamic = torch.tensor([[[1.0, 0.0], [3.0, 0.0]], [[2.0, 5.0], [2.0, 7.0]]])
    torch.testing.assert_close(summarise_dynamic(dynamic), torch.tensor([[2.0, 0.0, 1.0, 0.0], [2.0, 6.0, 0.0, 1.0]]))


def test_the_scale_of_a_code_does_not_matter_and_rounding_is_no_code():
    def scaled(subject, action):
        return 5 + 1e-3 * action

    def rounded(subject, action):
        return 1000 + 1e-4 * action  # float32 keeps steps of 6e-5 there

    shouted = probe_codes(made_codes(scaled, nothing), made_codes(scaled, nothing), FACTORS, probe=centroid_probe)
    assert shouted.accuracy("S->D") == 1
    whispered = probe_codes(made_codes(rounded, nothing), made_codes(rounded, nothing), FACTORS, probe=centroid_probe)
    assert whispered.accuracy("S->D") == pytest.approx(1 / ACTIONS)


def test_several_factors_are_averaged_each_on_its_own_scale():
    result = Leakage(
        (
            ProbeScore("S->D", "action", correct=50, total=100, chance=0.25),
            ProbeScore("D->S", "hair", correct=100, total=100, chance=0.5),
            ProbeScore("D->S", "shirt", correct=10, total=100, chance=0.2),
            ProbeScore("S->S", "hair", correct=90, total=100, chance=0.5),
            ProbeScore("S->S", "shirt", correct=80, total=100, chance=0.2),
            ProbeScore("D->D", "action", correct=100, total=100, chance=0.25),
            ProbeScore("Dseq->S", "hair", correct=100, total=100, chance=0.5),
            ProbeScore("Dseq->S", "shirt", correct=60, total=100, chance=0.2),
            ProbeScore("Dseq->D", "action", correct=100, total=100, chance=0.25),
        ),
        num_held_in=300,
    )
    assert result.accuracy("D->S") == pytest.approx(0.55)
    assert result.chance("D->S") == pytest.approx(0.35)
    assert result.mean == pytest.approx((0.5 + 0.55) / 2)
    assert result.normalised == pytest.approx((1 / 3 + (1 + 0) / 2) / 2)  # below chance counts as 0
    assert result.scores[0].interval == wilson_interval(50, 100)
    values = result.to_dict()
    assert values["directions"]["D->S"]["factors"]["shirt"]["num_clips"] == 100
    assert values["directions"]["D->S"]["factors"]["shirt"]["low"] == wilson_interval(10, 100)[0]
    assert values["leakage"] == result.mean
    assert values["strict_leakage"] == result.strict == pytest.approx((0.5 + 0.8) / 2)
    text = result.to_text()
    assert "D->S  mean          55.0%  chance 35.0%" in text
    assert "leakage (mean of S->D and D->S) 52.5%, normalised by chance 41.7%" in text
    assert "strict leakage (Dseq->S in place of D->S where it reads more) 65.0%" in text


def test_a_person_in_the_order_of_the_tokens_is_read_by_the_whole_sequence_alone():
    """Mean and deviation over the frames are the same for every person: what a token shows in which frame is not."""
    codes, labels = torch.zeros(40, 4, 1), []
    for clip in range(40):
        codes[clip, :, 0] = torch.tensor([1.0, 1, -1, -1] if clip % 2 else [1.0, -1, 1, -1])
        labels.append({"subject": f"s{clip % 2}", "action": f"a{clip // 2 % 2}"})
    read = LabelledCodes.of(Codes(torch.zeros(40, 2), codes), labels)
    result = probe_codes(read, read, FACTORS, probe=centroid_probe)
    assert result.accuracy("D->S") == 0.5
    assert result.accuracy("Dseq->S") == 1
    assert result.accuracy("Dseq->D") == 0.5
    assert (result.mean, result.strict) == (0.5, 0.75)


def test_clips_without_label_and_of_unknown_classes_are_left_out():
    held_in, held_out = made_codes(both, both), made_codes(both, both)
    unlabelled = [{**row, "action": None} if index < 7 else row for index, row in enumerate(held_out.labels)]
    strangers = [{**row, "subject": "s9"} if row["subject"] == "s3" else row for row in unlabelled]
    result = probe_codes(held_in, replace(held_out, labels=strangers), FACTORS, probe=centroid_probe)
    totals = {score.direction: score.total for score in result.scores}
    num_clips = SUBJECTS * ACTIONS * NUM_TRIALS
    assert totals["S->D"] == num_clips - 7
    assert totals["S->S"] == num_clips * 3 // 4
    assert result.accuracy("S->S") == result.accuracy("D->D") == 1


def test_chance_is_the_most_frequent_class_of_the_held_out_clips():
    held_in, held_out = made_codes(both, both), made_codes(both, both)
    kept = [index for index, row in enumerate(held_out.labels) if row["subject"] == "s0" or index % NUM_TRIALS == 0]
    parts = [read[kept] for read in (held_out.static, held_out.dynamic, held_out.sequence)]
    few = LabelledCodes(*parts, [held_out.labels[index] for index in kept])
    result = probe_codes(held_in, few, FACTORS, probe=centroid_probe)
    assert result.chance("D->S") == pytest.approx(NUM_TRIALS / (NUM_TRIALS + SUBJECTS - 1))


LABELS = [{"subject": f"s{i % 2}", "action": f"a{i // 2}"} for i in range(4)]


@pytest.mark.parametrize(
    ("held_in", "held_out", "factors", "words"),
    [
        (LABELS, LABELS, {"static": (), "dynamic": ("action",)}, "no static factor.*prepare the data set with labels"),
        (LABELS, LABELS, {"static": ("subject",), "dynamic": ()}, "no dynamic factor.*prepare the data set with labels"),
        ([{**row, "action": "a0"} for row in LABELS], LABELS, FACTORS, "training clips have 1 class of .* 'action'"),
        (LABELS, [{**row, "subject": None} for row in LABELS], FACTORS, "held-out clips have 0 classes .* 'subject'"),
        (LABELS, [{**row, "subject": f"x{i}"} for i, row in enumerate(LABELS)], FACTORS, "share fewer than 2 .* 'subject'"),
    ],
)
def test_labels_that_cannot_be_probed_are_named(held_in, held_out, factors, words):
    with pytest.raises(DatasetError, match=words) as caught:
        check_labels(held_in, held_out, factors)
    assert "\n" not in str(caught.value)


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=r"measuring leakage needs scikit-learn: run pip install 'divid\[eval\]'"):
        probe_codes(made_codes(both, both), made_codes(both, both), FACTORS)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Two people and two actions, who differ in nothing but the labels."""
    folder = tmp_path_factory.mktemp("recordings")
    for action, subject, trial in itertools.product((1, 2), (1, 2), (1, 2, 3)):
        write_depth(folder, f"a{action}_s{subject}_t{trial}", num_frames=4 + trial)
    out = tmp_path_factory.mktemp("sets") / "set"
    make_set(folder, out)
    return out


def test_codes_are_the_same_in_any_batch(prepared, monkeypatch):
    clips, heard = ClipDataset.open(prepared, split="train"), []
    monkeypatch.setattr(batches, "BATCH_CLIPS", 3)
    codes = collect_codes(PixelMethod(), clips, num_frames=3, told=lambda *words: heard.append(words), stage="reading")
    video = middle_video(clips, list(range(8)), 3)
    np.testing.assert_allclose(codes.static, video[:, 0].flatten(1).numpy(), rtol=1e-6)
    np.testing.assert_allclose(codes.dynamic[:, : codes.static.shape[1]], video.mean(1).flatten(1).numpy(), atol=1e-6)
    assert codes.labels[0] == clips.labels(0)
    assert heard == [("reading", 3, 8), ("reading", 6, 8), ("reading", 8, 8)]


def test_a_model_that_gives_no_numbers_is_refused(prepared):
    with pytest.raises(ModelError, match="codes that hold NaN"):
        collect_codes(PixelMethod(float("nan")), ClipDataset.open(prepared, split="test"), num_frames=3)


def test_labels_are_checked_before_anything_is_encoded(prepared):
    train, test = (ClipDataset.open(prepared, split=split) for split in ("train", "test"))
    one_person = test.subset([index for index in range(len(test)) if test.labels(index)["subject"] == "s1"])
    with pytest.raises(DatasetError, match="held-out clips have 1 class of the static factor 'subject'"):
        measure_leakage(PixelMethod(float("nan")), train, one_person, num_frames=3)


@pytest.mark.parametrize("probe", PROBES)
def test_clips_that_differ_in_their_labels_only_leak_as_much_as_chance(probe, prepared, monkeypatch):
    monkeypatch.setattr(leakage, "mlp_probe", probe)
    if probe is centroid_probe:
        monkeypatch.setattr(leakage, "require_scikit_learn", lambda purpose: None)
    train, test = (ClipDataset.open(prepared, split=split) for split in ("train", "test"))
    result = measure_leakage(PixelMethod(), train, test, num_frames=3)
    assert (result.mean, result.normalised, result.num_held_in) == (0.5, 0, 8)
    assert result.accuracy("S->S") == result.accuracy("D->D") == 0.5
