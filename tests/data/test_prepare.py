from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import divid.data.prepare
from divid.data.prepare import prepare
from divid.data.schema import MAX_FRAMES
from divid.data.sources import SOURCES, SourceOptions
from divid.errors import ConfigError, DatasetError, InputError, OutputError
from made_data import make_set, write_avi, write_depth, write_images


def test_a_set_holds_everything_about_every_recording(utd_folder, tmp_path):
    summary = make_set(utd_folder, tmp_path / "set")
    info = summary.info
    assert (info["num_clips"], info["num_recordings"], info["num_frames"]) == (8, 8, 48)
    assert info["splits"] == {"test": 4, "train": 4}
    assert info["factors"] == {"static": {"subject": {"s1": 4, "s2": 4}}, "dynamic": {"action": {"swipe left": 4, "walk": 4}}}
    assert info["fps"] == {"30": 8}
    assert info == json.loads((summary.folder / "dataset.json").read_text())
    assert (summary.folder / "contact_sheet.png").stat().st_size > 1000
    assert not (summary.folder / ".work").exists()


def test_any_parquet_reader_opens_a_set(utd_set, utd_folder, tmp_path):
    import datasets

    files = sorted(str(path) for path in (utd_set / "data").iterdir())
    opened = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    row = opened[0]
    assert opened.features["static.subject"].names == ["s1", "s2"]
    assert (row["id"], row["trial"], row["fps"], row["source_file"]) == ("a1_s1_t1_depth", 1, 30.0, "Depth/a1_s1_t1_depth.mat")
    assert len(row["frames"]) == row["num_frames"] * row["height"] * row["width"] * row["channels"]
    assert row["source_sha256"] == __import__("hashlib").sha256((utd_folder / row["source_file"]).read_bytes()).hexdigest()
    assert pq.ParquetFile(files[0]).metadata.row_group(0).column(0).compression == "ZSTD"


def test_the_number_of_processes_changes_no_byte(utd_folder, tmp_path, contents):
    one = make_set(utd_folder, tmp_path / "one").folder
    options = SourceOptions(image_size=16, channels=1)
    two = prepare("utd-mhad", utd_folder, tmp_path / "two", options=options, num_processes=2).folder
    assert contents(one) == contents(two)


def test_a_finished_set_given_again_is_left_alone(utd_folder, utd_set, contents):
    before = contents(utd_set)
    states = [path.stat().st_mtime_ns for path in sorted((utd_set / "data").iterdir())]
    again = make_set(utd_folder, utd_set)
    assert not again.is_new
    assert contents(utd_set) == before
    assert [path.stat().st_mtime_ns for path in sorted((utd_set / "data").iterdir())] == states


def test_an_interrupted_call_goes_on_to_the_same_bytes(utd_folder, tmp_path, contents, monkeypatch):
    whole = make_set(utd_folder, tmp_path / "whole").folder
    written = []
    write = divid.data.prepare.ShardWriter.write

    def stop_after_three(self, job):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(job.index)
        return write(self, job)

    monkeypatch.setattr(divid.data.prepare.ShardWriter, "write", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        make_set(utd_folder, tmp_path / "set")
    with pytest.raises(OutputError, match="unfinished data set made with image_size = 16, not 32"):
        make_set(utd_folder, tmp_path / "set", image_size=32)

    def write_and_count(self, job):
        written.append(job.index)
        return write(self, job)

    monkeypatch.setattr(divid.data.prepare.ShardWriter, "write", write_and_count)
    make_set(utd_folder, tmp_path / "set")
    assert sorted(written) == list(range(8)), "a shard was written twice, or not at all"
    assert contents(tmp_path / "set") == contents(whole)


@pytest.mark.slow
def test_a_killed_process_leaves_no_worker_and_is_continued(utd_folder, tmp_path, contents):
    for trial in range(3, 20):
        write_depth(utd_folder / "Depth", f"a2_s1_t{trial}", num_frames=60)
    whole = make_set(utd_folder, tmp_path / "whole").folder
    out = tmp_path / "set"
    command = ["prepare", "utd-mhad", "--source", str(utd_folder), "--out", str(out), "--size", "16", "--channels", "1"]
    process = subprocess.Popen([sys.executable, "-m", "divid", *command, "--processes", "2"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob(".work/shard-*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(2.5)
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
    assert not [line for line in running if str(process.pid).encode() in line and b"spawn_main" in line]
    make_set(utd_folder, out)
    assert contents(out) == contents(whole)


def test_other_options_or_files_need_overwrite(utd_folder, utd_set):
    with pytest.raises(OutputError, match="made with channels = 1, not 3: give another --out, or --overwrite"):
        make_set(utd_folder, utd_set, channels=3)
    write_depth(utd_folder / "Depth", "a1_s1_t3")
    with pytest.raises(OutputError, match="from other files"):
        make_set(utd_folder, utd_set)
    options = SourceOptions(image_size=16, channels=1)
    again = prepare("utd_mhad", utd_folder, utd_set, options=options, num_processes=1, overwrite=True)
    assert again.is_new
    assert again.info["num_clips"] == 9
    assert len(list((utd_set / "data").iterdir())) == 9


def test_a_damaged_file_is_skipped_and_reported(utd_folder, tmp_path, caplog):
    bad = utd_folder / "Depth" / "a1_s2_t1_depth.mat"
    bad.write_bytes(bad.read_bytes()[:300])
    (utd_folder / "Depth" / "a1_s1_t1_depth.mat").write_bytes(b"")
    summary = make_set(utd_folder, tmp_path / "set")
    assert summary.info["num_clips"] == 6
    assert [skipped["file"] for skipped in summary.info["skipped"]] == ["Depth/a1_s1_t1_depth.mat", "Depth/a1_s2_t1_depth.mat"]
    assert "is not a readable MATLAB file" in summary.info["skipped"][1]["reason"]
    assert "a1_s2_t1_depth.mat" in caplog.text


def test_strict_stops_at_a_damaged_file(utd_folder, tmp_path):
    (utd_folder / "Depth" / "a1_s1_t1_depth.mat").write_bytes(b"nothing")
    options = SourceOptions(image_size=16, channels=1)
    with pytest.raises(DatasetError, match=r"a1_s1_t1_depth\.mat.*--strict"):
        prepare("utd_mhad", utd_folder, tmp_path / "set", options=options, num_processes=1, strict=True)
    assert not (tmp_path / "set" / "dataset.json").exists()
    make_set(utd_folder, tmp_path / "set")
    with pytest.raises(DatasetError, match="was made without it"):
        prepare("utd_mhad", utd_folder, tmp_path / "set", options=options, num_processes=1, strict=True)


def test_a_set_of_damaged_files_only_is_an_error(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(b"no video")
    with pytest.raises(DatasetError, match="none of the 1 recordings could be read"):
        make_set(tmp_path / "clips", tmp_path / "set", "folder")


def test_an_empty_folder_is_an_error(tmp_path):
    (tmp_path / "clips").mkdir()
    for source in ("folder", "utd_mhad", "weizmann", "sprites", "mead"):
        with pytest.raises(InputError, match="clips"):
            make_set(tmp_path / "clips", tmp_path / "set", source)
    assert not (tmp_path / "set").exists()


def test_wrong_places_are_refused_before_anything_is_written(utd_folder, tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        make_set(utd_folder, tmp_path / "missing" / "set")
    with pytest.raises(OutputError, match="lies in the source folder"):
        make_set(utd_folder, utd_folder)
    with pytest.raises(OutputError, match="lies in the source folder"):
        make_set(utd_folder, utd_folder / "set")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="holds files that are no data set"):
        prepare("utd_mhad", utd_folder, tmp_path / "mine", num_processes=1, overwrite=True)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    with pytest.raises(OutputError, match="is a file"):
        make_set(utd_folder, tmp_path / "mine" / "letter.txt")
    with pytest.raises(InputError, match="does not exist"):
        make_set(tmp_path / "nowhere", tmp_path / "set")
    with pytest.raises(InputError, match="give --source DIR"):
        prepare("utd_mhad", None, tmp_path / "set")


def test_wrong_options_are_named(utd_folder, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'weizmann'"):
        prepare("weizman", utd_folder, tmp_path / "set")
    for options in ({"channels": 2}, {"image_size": 4}, {"limit": 0}, {"test_fraction": 1.5}):
        with pytest.raises(ConfigError, match="must"):
            make_set(utd_folder, tmp_path / "set", **options)
    with pytest.raises(ConfigError, match="number of processes is 0"):
        prepare("utd_mhad", utd_folder, tmp_path / "set", num_processes=0)


def test_a_full_disk_is_one_error_and_leaves_no_rest(utd_folder, tmp_path, monkeypatch):
    import errno

    def fail(self, table, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", fail)
    with pytest.raises(OutputError, match=r"No space left on device.*free some space"):
        make_set(utd_folder, tmp_path / "set")
    assert list((tmp_path / "set" / "data").iterdir()) == []


def test_limit_picks_evenly(utd_folder, tmp_path):
    info = make_set(utd_folder, tmp_path / "set", limit=4).info
    assert info["num_clips"] == 4
    assert info["factors"]["dynamic"]["action"] == {"swipe left": 2, "walk": 2}


@pytest.mark.slow
def test_a_long_recording_becomes_rows_in_bounded_memory(tmp_path):
    """Ten minutes of video at 25 frames a second, prepared in a process whose peak memory is read."""
    num_frames = 15_000
    write_avi(tmp_path / "clips" / "long.avi", num_frames, 64, 64)
    code = (
        "import resource, sys; from divid.data.prepare import prepare; from divid.data.sources import SourceOptions\n"
        "from divid.data import plan, shards, prepare as module; import datasets, av, matplotlib\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "prepare('folder', sys.argv[1], sys.argv[2], options=SourceOptions(image_size=64), num_processes=1)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "clips"), str(tmp_path / "set")]
    growth = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert growth < 150, f"memory grew by {growth:.0f} MiB, the frames are {num_frames * 64 * 64 * 3 / 2**20:.0f} MiB"
    table = pq.read_table(tmp_path / "set" / "data" / "shard-00000.parquet", columns=["id", "recording", "part", "num_frames"])
    rows = table.to_pylist()
    assert sum(row["num_frames"] for row in rows) == num_frames
    assert max(row["num_frames"] for row in rows) == MAX_FRAMES
    assert [row["part"] for row in rows] == list(range(len(rows)))
    assert {row["recording"] for row in rows} == {"long"}
    assert (rows[0]["id"], rows[1]["id"]) == ("long", "long#1")


def test_a_recording_that_breaks_late_leaves_no_part_behind(tmp_path, monkeypatch):
    folder = tmp_path / "clips"
    write_images(folder / "good", 3)
    write_images(folder / "late", 3)
    source = SOURCES["folder"]
    stream = source.stream

    def breaking(self, item):
        recording = stream(self, item)
        if item.id == "late":
            recording.chunks = break_after(recording.chunks)
        return recording

    def break_after(chunks):
        first = next(chunks)
        for _ in range(3 * MAX_FRAMES // len(first)):
            yield first
        raise InputError("late: the rest is damaged")

    monkeypatch.setattr(source, "stream", breaking)
    monkeypatch.setattr("divid.data.plan.SHARDS_WANTED", 1)
    info = make_set(folder, tmp_path / "set", "folder").info
    assert (info["num_clips"], info["num_frames"]) == (1, 3)
    assert info["skipped"] == [{"file": "late", "reason": "late: the rest is damaged"}]
    assert pq.read_table(tmp_path / "set" / "data").column("id").to_pylist() == ["good"]


def test_puppets_keep_their_poses(tmp_path):
    from divid.data.clips import ClipDataset
    from divid.data.sources.puppets import JOINT_NAMES, PuppetsSource

    options = SourceOptions(image_size=32, num_clips=3)
    prepare("puppets", None, tmp_path / "set", options=options, num_processes=1)
    clips = ClipDataset.open(tmp_path / "set")
    source = PuppetsSource(None, options)
    for index, item in enumerate(source.items()):
        poses = clips.poses(index)
        assert poses is not None
        assert poses.shape == (clips.num_frames(index), len(JOINT_NAMES), 2)
        np.testing.assert_array_equal(poses, source.poses(item))
        np.testing.assert_array_equal(clips.frames(index), source.load(item)[0])
        assert json.loads(clips.row(index)["extra"]) == item.extra
