"""Judges: they learn, repeat, are saved whole, and refuse what does not fit."""

import json
import logging
import os
import stat
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from divid.data.clips import ClipDataset
from divid.data.module import middle_video
from divid.errors import ConfigError, DatasetError, ModelError, OutputError
from divid.evaluation.judge import INFO_NAME, WEIGHTS_NAME, HeldOut, Judge, all_right, class_numbers, confusion
from divid.evaluation.judging import JudgeTraining, augment, blur, judge_config, measure_judge, shift, train_judge
from divid.randomness import Randomness
from labelled_clips import NUM_FRAMES, SIZE, GuessingJudge, KnowingJudge, prepare_clips
from labelled_clips import judge_config as config_for
from made_data import make_set

OPTIONS = JudgeTraining(num_frames=NUM_FRAMES, num_steps=80, batch_size=12)


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    root = tmp_path_factory.mktemp("judged")
    folder = prepare_clips(root / "recordings", root / "set")
    return ClipDataset.open(folder, split="train"), ClipDataset.open(folder, split="test")


@pytest.fixture(scope="module")
def judge(splits):
    return train_judge(*splits, OPTIONS)


@pytest.fixture
def saved(judge, tmp_path):
    judge.save(tmp_path / "judge")
    return tmp_path / "judge"


@pytest.mark.parametrize("architecture", ["gru", "conv3d", "two_stream"])
def test_it_learns_who_and_what(splits, judge, architecture):
    trained = judge if architecture == "gru" else train_judge(*splits, replace(OPTIONS, architecture=architecture))
    assert trained.held_out.joint.rate == 1
    assert trained.is_trusted
    assert trained.held_out.joint.num == 9
    assert np.trace(np.array(trained.held_out.confusion["action"])) == 9
    assert trained.history["architecture"] == architecture
    assert trained.history["num_steps_made"] == 80


def test_training_repeats_by_its_seed_and_leaves_the_global_generator_alone(splits):
    short = replace(OPTIONS, num_steps=3)
    before = torch.get_rng_state()
    one, same, other = (train_judge(*splits, options).state_dict() for options in (short, short, replace(short, seed=1)))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["heads.0.weight"], other["heads.0.weight"])


def test_every_parameter_gets_a_gradient(splits):
    for architecture in ("gru", "conv3d", "two_stream"):
        made = Judge(judge_config(splits[0].info, replace(OPTIONS, architecture=architecture)))
        sum(scores.square().sum() for scores in made(torch.randn(4, NUM_FRAMES, 1, SIZE, SIZE)).values()).backward()
        assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("size", [8, 24, 64])
@pytest.mark.parametrize("architecture", ["gru", "conv3d", "two_stream"])
def test_any_size_and_length_can_be_judged(architecture, size):
    config = replace(judge_config_of_two(), architecture=architecture, image_size=size, channels=3, num_frames=2)
    answers = Judge(config).predict(torch.zeros(3, 2, 3, size, size))
    assert {name: tuple(numbers.shape) for name, numbers in answers.items()} == {"hat": (3,), "coat": (3,), "action": (3,)}


def test_each_of_two_streams_is_blind_to_what_the_other_judges_by():
    judge = Judge(replace(judge_config_of_two(), architecture="two_stream", channels=3)).eval()
    generator = torch.Generator().manual_seed(0)
    clips = torch.rand(2, NUM_FRAMES, 3, SIZE, SIZE, generator=generator) - 0.5
    picture = 0.4 * torch.rand(2, 1, 3, SIZE, SIZE, generator=generator)
    plain, backwards, before_a_picture = (judge(video) for video in (clips, clips.flip(1), clips + picture))
    for name in ("hat", "coat"):
        torch.testing.assert_close(backwards[name], plain[name])
        assert (before_a_picture[name] - plain[name]).abs().max() > 1e-3
    torch.testing.assert_close(before_a_picture["action"], plain["action"])
    assert (backwards["action"] - plain["action"]).abs().max() > 1e-3
    moved = judge(clips, moving=clips.flip(1))
    torch.testing.assert_close(moved["action"], backwards["action"])
    torch.testing.assert_close(moved["hat"], plain["hat"])


def judge_config_of_two():
    from divid.evaluation.judge import JudgeConfig

    factors = {"static": {"hat": ("red", "blue"), "coat": ("long", "short")}, "dynamic": {"action": ("run", "walk", "sit")}}
    return JudgeConfig("made", factors, SIZE, 1, NUM_FRAMES)


def test_static_is_right_when_all_static_factors_are():
    truth = {"hat": np.array([0, 0, 1, 1]), "coat": np.array([0, 1, 0, 1]), "action": np.array([0, 1, 2, 2])}
    answers = {"hat": np.array([0, 0, 1, 0]), "coat": np.array([0, 0, 0, 1]), "action": np.array([0, 1, 0, 2])}
    assert all_right(answers, truth, ["hat", "coat"]).tolist() == [True, False, True, False]
    held_out = HeldOut.of(judge_config_of_two(), answers, truth)
    rates = (held_out.static.rate, held_out.dynamic.rate, held_out.joint.rate, held_out.factors["hat"].rate)
    assert rates == (0.5, 0.75, 0.25, 0.75)
    assert held_out.confusion["action"] == ((1, 0, 0), (0, 1, 0), (1, 0, 1))
    assert HeldOut.from_dict(json.loads(json.dumps(held_out.to_dict()))) == held_out


def test_confusion_counts_rows_by_truth():
    assert confusion(np.array([0, 0, 1]), np.array([1, 0, 1]), 2) == ((1, 1), (0, 1))


def test_a_perfect_and_a_guessing_judge_measure_what_they_are(splits):
    config = config_for(splits[1])
    assert measure_judge(KnowingJudge(config), splits[1]).joint.rate == 1
    many = splits[1].subset(np.arange(9).repeat(40))
    guessed = measure_judge(GuessingJudge(config), many)
    low, high = guessed.joint.wilson
    assert low < 1 / 9 < high
    assert not Judge(config).is_trusted
    assert not Judge(config, guessed).is_trusted


def test_predicting_leaves_the_judge_as_it_was(judge, splits):
    video = middle_video(splits[1], list(range(9)), NUM_FRAMES)
    judge.train()
    first = judge.predict(video)
    assert judge.training
    judge.eval()
    again = judge.predict(video[:5])
    assert all(torch.equal(first[name][:5], again[name]) for name in first)


def test_saved_and_loaded_it_says_the_same(judge, saved, splits):
    loaded = Judge.load(saved)
    assert loaded.config == judge.config
    assert loaded.held_out == judge.held_out
    assert loaded.history == judge.history
    assert loaded.is_trusted
    video = middle_video(splits[1], list(range(9)), NUM_FRAMES)
    assert all(torch.equal(a, b) for a, b in zip(loaded(video).values(), judge(video).values(), strict=True))
    info = json.loads((saved / INFO_NAME).read_text())
    assert (info["format"], info["data"], info["image_size"], info["num_frames"]) == ("divid-judge", "set", SIZE, NUM_FRAMES)
    assert info["factors"]["static"] == {"subject": ["anna", "ben", "cleo"]}
    assert info["held_out"]["joint"]["rate"] == 1


def test_both_files_have_the_permissions_that_new_files_have(judge, tmp_path):
    before = os.umask(0o027)
    try:
        judge.save(tmp_path / "judge")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "judge").iterdir()}
    assert modes == {INFO_NAME: 0o640, WEIGHTS_NAME: 0o640}


def test_probabilities_sum_to_1_and_agree_with_the_answers(judge, splits):
    video = middle_video(splits[1], list(range(9)), NUM_FRAMES)
    for name, p in judge.probabilities(video).items():
        assert p.dtype == torch.float64
        torch.testing.assert_close(p.sum(1), torch.ones(9, dtype=torch.float64))
        assert torch.equal(p.argmax(1), judge.predict(video)[name])
    with pytest.raises(ModelError, match=r"takes clips of \(F, C, H, W\)"):
        judge.probabilities(video[:, 1:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "divid-dataset"}, "was not made by divid judge"),
        ({"version": 9}, "format version 9"),
        ({"architecture": "transformer"}, "architecture 'transformer'"),
        ({"held_out": {}}, "is damaged"),
        ({"factors": {"static": {}}}, "is damaged"),
        ({"factors": {"static": {"subject": ["anna", "ben"]}, "dynamic": {"action": ["fall", "rise", "stay"]}}}, "has shape"),
        ({"factors": {"static": {"subject": ["a", "b", "c"]}, "dynamic": {}}}, "unknown parameter 'heads.1.bias'"),
        ({"channels": 3}, "has shape"),
    ],
)
def test_a_judge_that_does_not_match_its_weights_is_refused(saved, changes, message):
    path = saved / INFO_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ModelError, match=message) as caught:
        Judge.load(saved)
    assert "\n" not in str(caught.value)


def test_broken_weights_are_refused(saved, tmp_path):
    weights = load_file(saved / WEIGHTS_NAME)
    save_file({**weights, "heads.0.bias": torch.full((3,), torch.nan)}, saved / WEIGHTS_NAME)
    with pytest.raises(ModelError, match=r"'heads\.0\.bias' holds NaN"):
        Judge.load(saved)
    (saved / WEIGHTS_NAME).write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="cannot be read"):
        Judge.load(saved)
    (saved / INFO_NAME).write_text("{")
    with pytest.raises(ModelError, match=r"judge.json cannot be read \(.*\): train the judge again"):
        Judge.load(saved)
    with pytest.raises(ModelError, match="holds no judge"):
        Judge.load(tmp_path)


def test_a_judge_is_not_written_over_a_file(judge, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write the judge"):
        judge.save(tmp_path / "file")


def test_other_sizes_and_classes_are_refused(judge, splits):
    info = splits[1].info
    judge.check_fits(info)
    for changes, message in (
        ({"image_size": 32}, "frames of 16 pixels with 1 channels, these clips have 32 with 1"),
        ({"channels": 3}, "these clips have 16 with 3"),
        ({"factors": {**info.factors, "static": ()}}, "static factors subject, the clips have none: prepare the data"),
        ({"classes": {**info.classes, "action": (*info.classes["action"], "wave")}}, "other classes of 'action' .*'wave'"),
        ({"classes": {**info.classes, "subject": ("anna", "ben")}}, "other classes of 'subject' .*'cleo'"),
    ):
        with pytest.raises(ModelError, match=message):
            judge.check_fits(replace(info, **changes))
    with pytest.raises(ModelError, match=r"takes clips of \(F, C, H, W\)"):
        judge.predict(torch.zeros(1, NUM_FRAMES + 1, 1, SIZE, SIZE))


def test_labels_in_another_order_are_the_same_classes(judge, splits):
    info = splits[1].info
    judge.check_fits(replace(info, classes={name: classes[::-1] for name, classes in info.classes.items()}))
    reversed_numbers = class_numbers(splits[1], {"action": info.classes["action"][::-1]})["action"]
    assert (reversed_numbers == 2 - class_numbers(splits[1], {"action": info.classes["action"]})["action"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subjects": [0]}, "only the class 'anna' of 'subject'"),
        ({"actions": [1]}, "only the class 'fall' of 'action'"),
    ],
)
def test_one_class_cannot_be_judged(options, message, tmp_path):
    clips = ClipDataset.open(prepare_clips(tmp_path / "recordings", tmp_path / "set", num_trials=2, **options))
    with pytest.raises(DatasetError, match=message):
        train_judge(clips, clips, OPTIONS)


def test_no_labels_cannot_be_judged(tmp_path):
    prepare_clips(tmp_path / "recordings", tmp_path / "labelled", num_trials=1)
    make_set(tmp_path / "recordings", tmp_path / "set", "folder")
    clips = ClipDataset.open(tmp_path / "set")
    with pytest.raises(DatasetError, match="has no static factor"):
        train_judge(clips, clips, OPTIONS)


def test_clips_that_lack_labels_are_trained_on_and_measured_where_they_have_them(tmp_path):
    unlabelled = ("ben_fall_2", "anna_stay_0")
    folder = prepare_clips(tmp_path / "recordings", tmp_path / "set", num_trials=3, unlabelled=unlabelled)
    train, test = (ClipDataset.open(folder, split=split) for split in ("train", "test"))
    made = train_judge(train, test, replace(OPTIONS, num_steps=2, batch_size=18))
    assert made.held_out.joint.num == 8
    only = test.subset([i for i in range(9) if test.clip_id(i) == "ben_fall_2"])
    with pytest.raises(DatasetError, match="none of the 1 held-out clips has all its labels"):
        measure_judge(made, only)


def test_a_class_that_is_never_trained_on_is_said(tmp_path, caplog):
    absent = [(2, a) for a in range(3)]
    folder = prepare_clips(tmp_path / "recordings", tmp_path / "set", num_trials=2, absent=absent)
    splits = [ClipDataset.open(folder, split=split) for split in ("train", "test")]
    with caplog.at_level(logging.WARNING, "divid"):
        train_judge(*splits, replace(OPTIONS, num_steps=2))
    assert "no training clip has the class 'cleo' of 'subject'" in caplog.text


def test_the_limit_of_minutes_shortens_training_and_says_so(splits, caplog):
    with caplog.at_level(logging.WARNING, "divid"):
        made = train_judge(*splits, replace(OPTIONS, num_steps=10**6, max_minutes=0.01))
    assert 1 <= made.history["num_steps_made"] < 10**6
    assert "another machine will give another judge" in caplog.text


@pytest.mark.parametrize("changes", [{"architecture": "lstm"}, {"num_frames": 1}, {"num_steps": 0}, {"seed": -1}])
def test_wrong_options_are_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        replace(OPTIONS, **changes).validate()


def test_blur_keeps_the_sum_and_zero_leaves_a_clip_alone():
    video = torch.zeros(2, 3, 1, 16, 16)
    video[..., 8, 8] = 1.0
    blurred = blur(video, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(blurred[0], video[0])
    torch.testing.assert_close(blurred[1].sum((-1, -2)), torch.ones(3, 1))
    expected = torch.exp(torch.tensor(-0.5))
    torch.testing.assert_close(blurred[1, 0, 0, 8, 9] / blurred[1, 0, 0, 8, 8], expected)


def test_shift_by_a_whole_pixel_moves_a_clip():
    video = torch.rand(2, 3, 1, 8, 8)
    moved = shift(video, torch.tensor([[1 / 8, 0.0], [0.0, -2 / 8]]))
    torch.testing.assert_close(moved[0, ..., :7], video[0, ..., 1:])
    torch.testing.assert_close(moved[1, ..., 2:, :], video[1, ..., :6, :])


def test_augmentation_belongs_to_seed_and_step_and_place():
    video = torch.rand(4, 3, 1, 16, 16) * 2 - 1
    whole = augment(video, Randomness(0, 5, (0, 1, 2, 3), 4))
    torch.testing.assert_close(augment(video[2:], Randomness(0, 5, (2, 3), 4)), whole[2:])
    assert not torch.equal(augment(video, Randomness(0, 6, (0, 1, 2, 3), 4)), whole)
    assert whole.abs().max() <= 1
