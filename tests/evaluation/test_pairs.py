"""Pair lists: what is drawn, what is saved, and what is refused."""

import json
import logging

import pytest

from divid.data.clips import ClipDataset
from divid.errors import ConfigError, DatasetError
from divid.evaluation.pairs import PairList
from labelled_clips import prepare_clips
from made_data import make_set, write_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    return prepare_clips(root / "recordings", root / "set", num_trials=3)


@pytest.fixture(scope="module")
def clips(folder):
    return ClipDataset.open(folder, split="test")


def labels_of(clips):
    return {clips.clip_id(index): clips.labels(index) for index in range(len(clips))}


def test_all_pairs_there_are_differ_in_every_factor(clips, caplog):
    with caplog.at_level(logging.WARNING, "divid"):
        pairs = PairList.draw(clips, 100)
    labels = labels_of(clips)
    expected = {(a, b) for a in labels for b in labels if all(labels[a][name] != labels[b][name] for name in labels[a])}
    assert len(pairs) == len(expected) == 9 * 4
    assert set(pairs.pairs) == expected
    assert pairs.num_asked == 100
    assert "100 pairs are asked for, the 9 clips give only 36: all are taken" in caplog.text


def test_as_many_as_asked_without_repetition_by_the_seed(clips, caplog):
    drawn = {seed: PairList.draw(clips, 20, seed) for seed in (0, 1)}
    assert len(set(drawn[0].pairs)) == 20
    assert drawn[0] == PairList.draw(clips, 20, 0) != drawn[1]
    assert not caplog.records


def test_pairs_are_drawn_evenly(clips):
    """Over many seeds each of the 36 pairs comes about as often: 400 draws of 9 give each 100 times."""
    counts = {}
    for seed in range(400):
        for pair in PairList.draw(clips, 9, seed).pairs:
            counts[pair] = counts.get(pair, 0) + 1
    assert len(counts) == 36
    assert 60 <= min(counts.values()) <= max(counts.values()) <= 140


def test_saved_and_loaded_it_names_the_same_clips(clips, tmp_path):
    pairs = PairList.draw(clips, 10, 3)
    pairs.save(tmp_path / "pairs.json")
    loaded = PairList.load(tmp_path / "pairs.json")
    assert loaded == pairs
    numbers = loaded.numbers(clips)
    assert [(clips.clip_id(a), clips.clip_id(b)) for a, b in numbers.tolist()] == list(pairs.pairs)


def test_clips_without_a_label_are_left_out(tmp_path, caplog):
    out = prepare_clips(tmp_path / "recordings", tmp_path / "set", num_trials=2, unlabelled=("ben_fall_1",))
    with caplog.at_level(logging.WARNING, "divid"):
        pairs = PairList.draw(ClipDataset.open(out, split="test"), 100)
    assert len(pairs) == 36 - 2 * 4
    assert all("ben_fall_1" not in pair for pair in pairs.pairs)
    assert "1 of 9 clips lack a label" in caplog.text


def test_a_list_that_names_absent_clips_is_refused(clips):
    pairs = PairList((("anna_stay_2", "nobody_2"), ("nothing_1", "ben_fall_2")), 0, 2, ("other",))
    with pytest.raises(
        DatasetError, match=r"drawn from other\) names the clip 'nobody_2', which is not among .* \(2 such in all\)"
    ):
        pairs.numbers(clips)


def test_names_that_two_sets_share_are_refused(folder, clips):
    pairs = PairList.draw(clips, 3)
    with pytest.raises(DatasetError, match="which several data sets have"):
        pairs.numbers(ClipDataset.open([folder, folder], split="test"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subjects": [1]}, "all labelled clips have the class 'ben' of 'subject'"),
        ({"actions": [0]}, "all labelled clips have the class 'stay' of 'action'"),
    ],
)
def test_one_class_only_cannot_be_swapped(options, message, tmp_path):
    clips = ClipDataset.open(prepare_clips(tmp_path / "recordings", tmp_path / "set", num_trials=1, **options))
    with pytest.raises(DatasetError, match=message):
        PairList.draw(clips)


def test_no_labels_cannot_be_swapped(tmp_path):
    prepare_clips(tmp_path / "recordings", tmp_path / "labelled", num_trials=1)
    make_set(tmp_path / "recordings", tmp_path / "set", "folder")
    with pytest.raises(DatasetError, match="have no static factor"):
        PairList.draw(ClipDataset.open(tmp_path / "set"))


def test_clips_that_share_a_factor_cannot_be_paired(clips):
    chosen = [i for i in range(9) if clips.clip_id(i) in ("anna_stay_2", "anna_fall_2", "ben_stay_2")]
    two = clips.subset([i for i in chosen if "stay" in clips.clip_id(i)])
    with pytest.raises(DatasetError, match="all labelled clips have the class 'stay'"):
        PairList.draw(two)
    assert len(PairList.draw(clips.subset(chosen), 2)) == 2


def test_clips_that_all_share_something_cannot_be_paired(tmp_path):
    for place in ("anna/red/run", "anna/blue/walk", "ben/red/walk"):
        write_images(tmp_path / "recordings" / place)
    make_set(tmp_path / "recordings", tmp_path / "set", "folder", layout="{subject}/{hat}/{action}")
    with pytest.raises(DatasetError, match="no two of the 3 clips differ in every factor"):
        PairList.draw(ClipDataset.open(tmp_path / "set"))


def test_no_pair_asked_for_is_refused(clips):
    with pytest.raises(ConfigError, match="0 pairs are asked for"):
        PairList.draw(clips, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "must hold a JSON object, got list: give a pair list that a swap test has saved"),
        (json.dumps({"format": "divid-pairs", "version": 1, "pairs": [["a"]]}), "is damaged"),
        (json.dumps({"format": "divid-pairs", "version": 1, "pairs": [], "seed": 0, "num_asked": 1, "data": []}), "no pair"),
    ],
)
def test_a_damaged_file_is_one_line(text, message, tmp_path):
    path = tmp_path / "pairs.json"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message) as caught:
        PairList.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="cannot be read"):
        PairList.load(tmp_path / "none.json")
