from __future__ import annotations

import json
import pickle
import resource
import shutil

import numpy as np
import pytest

from divid.data.clips import ClipDataset, middle_positions, stretch_positions
from divid.data.sources import SourceOptions
from divid.data.sources.utd_mhad import UtdMhadSource
from divid.errors import ConfigError, DatasetError
from made_data import make_set, write_images


def test_frames_are_what_the_source_gave(utd_set, utd_folder):
    clips = ClipDataset.open(utd_set)
    source = UtdMhadSource(utd_folder, SourceOptions(image_size=16, channels=1))
    for index, item in enumerate(source.items()):
        frames, fps = source.load(item)
        assert clips.clip_id(index) == item.id
        assert clips.labels(index) == item.labels
        assert clips.fps(index) == fps
        np.testing.assert_array_equal(clips.frames(index), frames)
        np.testing.assert_array_equal(clips.frames(index, np.array([4, 0, 4])), frames[[4, 0, 4]])
    assert clips.info.num_frames == sum(clips.num_frames(index) for index in range(len(clips)))
    assert clips.info.factors == {"static": ("subject",), "dynamic": ("action",)}
    assert clips.info.classes == {"subject": ("s1", "s2"), "action": ("swipe left", "walk")}


def test_splits_divide_the_clips(utd_set):
    names = {}
    for split in ("train", "test"):
        clips = ClipDataset.open(utd_set, split=split)
        names[split] = {clips.clip_id(index) for index in range(len(clips))}
    assert all(name.endswith("t1_depth") for name in names["train"])
    assert all(name.endswith("t2_depth") for name in names["test"])
    assert len(names["train"] | names["test"]) == 8
    with pytest.raises(ConfigError, match="must be one of train, test"):
        ClipDataset.open(utd_set, split="dev")


def test_subset_keeps_the_order_given(utd_set):
    clips = ClipDataset.open(utd_set)
    chosen = clips.subset([5, 2]).subset([1, 0])
    assert [chosen.clip_id(0), chosen.clip_id(1)] == [clips.clip_id(2), clips.clip_id(5)]
    assert chosen.info.num_clips == 2
    with pytest.raises(DatasetError, match="no clips"):
        clips.subset([])


def test_several_sets_with_missing_labels(utd_set, tmp_path):
    write_images(tmp_path / "plain" / "one", 3)
    write_images(tmp_path / "plain" / "two", 5)
    plain = make_set(tmp_path / "plain", tmp_path / "plain_set", "folder").folder
    for folder in ("anna/walk/1", "ben/run/1"):
        write_images(tmp_path / "labelled" / folder, 2)
    labelled = make_set(tmp_path / "labelled", tmp_path / "labelled_set", "folder", layout="{subject}/{action}").folder
    clips = ClipDataset.open([utd_set, plain, labelled])
    assert len(clips) == 12
    assert clips.labels(8) == {"subject": None, "action": None}
    assert clips.labels(10) == {"subject": "anna", "action": "walk"}
    assert clips.info.classes["subject"] == ("s1", "s2", "anna", "ben")
    assert clips.info.classes["action"] == ("swipe left", "walk", "run")
    assert clips.num_frames(9) == 5


def test_sizes_and_channels_are_adapted_where_that_is_exact(tmp_path, utd_folder, caplog):
    big = make_set(utd_folder, tmp_path / "big", image_size=32).folder
    small = ClipDataset.open(big, image_size=16, channels=3)
    with caplog.at_level("INFO", logger="divid"):
        ClipDataset.open(big, image_size=16, channels=3)
    assert caplog.text.count("averaged down to 16") == 1
    assert caplog.text.count("repeated to RGB") == 1
    frames = ClipDataset.open(big).frames(0).astype(float)
    expected = np.rint(frames.reshape(-1, 16, 2, 16, 2, 1).mean(axis=(2, 4)))
    assert small.frames(0).shape == (6, 16, 16, 3)
    np.testing.assert_allclose(small.frames(0)[..., :1], expected, atol=1)
    with pytest.raises(DatasetError, match="prepare it with --size 24"):
        ClipDataset.open(big, image_size=24)
    with pytest.raises(DatasetError, match="prepare it with --size 64"):
        ClipDataset.open(big, image_size=64)


def test_sets_of_different_sizes_need_a_size(tmp_path, utd_folder):
    folders = [make_set(utd_folder, tmp_path / str(size), image_size=size).folder for size in (16, 32)]
    with pytest.raises(DatasetError, match="different sizes"):
        ClipDataset.open(folders)
    clips = ClipDataset.open(folders, image_size=16)
    assert {clips.frames(index).shape[1:] for index in range(len(clips))} == {(16, 16, 1)}


def test_a_loader_process_can_be_sent_the_set(utd_set):
    clips = ClipDataset.open(utd_set, split="test")
    sent = pickle.dumps(clips)
    assert len(sent) < 5000, "frames travel in the pickle"
    np.testing.assert_array_equal(pickle.loads(sent).frames(2), clips.frames(2))


def test_what_is_no_data_set_is_named(tmp_path, utd_set):
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pytest.raises(DatasetError, match="does not exist: make a data set with divid prepare"):
        ClipDataset.open(tmp_path / "nowhere")
    other = tmp_path / "other"
    (other / "data").mkdir(parents=True)
    pq.write_table(pa.table({"text": ["a"]}), other / "data" / "shard-00000.parquet")
    with pytest.raises(DatasetError, match=r"no prepared data set \(it has no dataset.json\)"):
        ClipDataset.open(other)
    (other / "dataset.json").write_text('{"format": "their own"}')
    with pytest.raises(DatasetError, match="not made by divid"):
        ClipDataset.open(other)
    (other / "dataset.json").write_text("[]")
    with pytest.raises(DatasetError, match="must hold a JSON object, got list: prepare the data set again with --overwrite"):
        ClipDataset.open(other)
    with pytest.raises(DatasetError, match="no data set was given"):
        ClipDataset.open([])


def change_info(folder, **changes):
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_newer_formats_and_empty_sets_are_refused(utd_set):
    change_info(utd_set, version=99)
    with pytest.raises(DatasetError, match="format version 99, this divid reads up to 1: update divid"):
        ClipDataset.open(utd_set)
    change_info(utd_set, version=1, shards=[])
    with pytest.raises(DatasetError, match="holds no clip"):
        ClipDataset.open(utd_set)


def test_a_parquet_of_another_project_under_our_names_is_refused(utd_set):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in (utd_set / "data").iterdir():
        pq.write_table(pa.table({"text": ["a"]}), path)
    with pytest.raises(DatasetError, match="lacks the column"):
        ClipDataset.open(utd_set)


@pytest.mark.parametrize("was_opened_before", [False, True])
@pytest.mark.parametrize("damage", ["missing", "cut", "swapped", "flipped"])
def test_damaged_shards_are_refused(utd_set, damage, was_opened_before):
    if was_opened_before:
        ClipDataset.open(utd_set)
    shard = utd_set / "data" / "shard-00003.parquet"
    whole = shard.read_bytes()
    if damage == "missing":
        shard.unlink()
    elif damage == "cut":
        shard.write_bytes(whole[: len(whole) // 2])
    elif damage == "swapped":
        shutil.rmtree(shard.parent)
        shard.parent.mkdir()
    else:
        shard.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    with pytest.raises(DatasetError, match="prepare the data set again with --overwrite") as error:
        ClipDataset.open(utd_set)
    assert "\n" not in str(error.value)


def test_a_full_disk_is_not_taken_for_damage(utd_set):
    """The system refuses every file to grow above 3,000 bytes, as near as it gets without a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(DatasetError, match=r"cannot be unpacked for reading \(File too large\): free some space"):
            ClipDataset.open(utd_set)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(ClipDataset.open(utd_set)) == 8


def test_an_unfinished_set_says_so(utd_set):
    (utd_set / "dataset.json").unlink()
    (utd_set / ".work").mkdir()
    with pytest.raises(DatasetError, match="unfinished: give the same divid prepare again"):
        ClipDataset.open(utd_set)


def test_one_name_for_two_kinds_of_factor_is_refused(utd_set, tmp_path):
    write_images(tmp_path / "clips" / "walk" / "1", 2)
    other = make_set(tmp_path / "clips", tmp_path / "other", "folder", layout="{static.action}/{_}").folder
    with pytest.raises(DatasetError, match="'action' is a static factor in"):
        ClipDataset.open([utd_set, other])


def test_stretches_cover_a_recording_in_order():
    np.testing.assert_array_equal(stretch_positions(20, 5, np.zeros(5)), [0, 4, 8, 12, 16])
    np.testing.assert_array_equal(middle_positions(20, 5), [2, 6, 10, 14, 18])
    np.testing.assert_array_equal(stretch_positions(3, 6, np.full(6, 0.5)), [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(stretch_positions(100, 4, np.zeros(4), start=0.5, span=0.5), [50, 62, 75, 87])
    last = stretch_positions(7, 3, np.full(3, np.nextafter(1, 0)), start=0.25, span=0.75)
    assert last[-1] == 6
    assert (np.diff(last) >= 0).all()
