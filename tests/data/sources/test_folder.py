from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from divid.data.clips import ClipDataset
from divid.data.sources import SourceOptions
from divid.data.sources.folder import FolderSource
from divid.errors import ConfigError, InputError
from made_data import make_set, write_avi, write_images


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two people by two actions, one recording of each kind."""
    folder = tmp_path / "clips"
    write_avi(folder / "anna" / "walk" / "1.avi")
    write_images(folder / "anna" / "run" / "take 2")
    write_images(folder / "ben" / "walk" / "1", size=20)
    write_avi(folder / "ben" / "run.avi")
    (folder / "notes.txt").write_text("x")
    write_images(folder / ".hidden")
    return folder


def items(folder: Path, **options):
    return {item.id: item for item in FolderSource(folder, SourceOptions(image_size=16, **options)).items()}


def table(folder: Path, *lines: str) -> Path:
    path = folder.parent / "labels.csv"
    path.write_text("\n".join(lines))
    return path


def test_videos_and_folders_of_images_are_recordings(clips, tmp_path):
    found = items(clips)
    assert list(found) == ["anna/run/take 2", "anna/walk/1", "ben/run", "ben/walk/1"]
    assert all(item.labels == {} for item in found.values())
    summary = make_set(clips, tmp_path / "set", "folder", channels=3)
    opened = ClipDataset.open(summary.folder)
    assert [opened.num_frames(index) for index in range(4)] == [4, 5, 5, 4]
    np.testing.assert_array_equal(opened.frames(0)[:, 0, 0, 0], [0, 20, 40, 60])
    assert opened.info.factors == {"static": (), "dynamic": ()}


def test_labels_from_folders(clips):
    assert {name: item.labels for name, item in items(clips, labels="folders").items()} == {
        "anna/run/take 2": {"action": "run"},
        "anna/walk/1": {"action": "walk"},
        "ben/run": {"action": "ben"},
        "ben/walk/1": {"action": "walk"},
    }


def test_labels_from_a_layout(clips):
    found = items(clips, layout="{subject}/{action}")
    assert found["anna/run/take 2"].labels == {"subject": "anna", "action": "run"}
    assert found["ben/run"].labels == {"subject": "ben", "action": "run"}
    source = FolderSource(clips, SourceOptions(layout="{_}/{dynamic.kind}/{static.take}"))
    labels = {item.id: item.labels for item in source.items()}
    assert (source.static_factors, source.dynamic_factors) == (("take",), ("kind",))
    assert labels["anna/run/take 2"] == {"take": "take 2", "kind": "run"}
    assert labels["ben/run"] == {}, "it does not follow the pattern"


@pytest.mark.parametrize(
    ("layout", "message"),
    [("walk", "names no factor"), ("{a}/{a}", "names 'a' twice"), ("{a b}", "a factor is a word"), ("{}", "a factor is a word")],
)
def test_wrong_layouts_are_named(clips, layout, message):
    with pytest.raises(ConfigError, match=message):
        FolderSource(clips, SourceOptions(layout=layout))


def test_labels_from_a_table(clips):
    path = table(
        clips,
        "file,static.person,dynamic.move,split,trial",
        "anna/walk/1.avi,anna,walk,test,3",
        "ben/walk/1,ben,,train,",
        "notes.txt,,,,",
    )
    source = FolderSource(clips, SourceOptions(labels_csv=path, test_fraction=0))
    found = {item.id: item for item in source.items()}
    assert (source.static_factors, source.dynamic_factors) == (("person",), ("move",))
    assert found["anna/walk/1"].labels == {"person": "anna", "move": "walk"}
    assert (found["anna/walk/1"].split, found["anna/walk/1"].trial) == ("test", 3)
    assert found["ben/walk/1"].labels == {"person": "ben"}
    assert found["ben/run"].labels == {}
    assert "notes" in found, "a file that the table names counts, whatever its ending"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,static.a", "nobody.mp4,x"], r"line 2: names 'nobody\.mp4', which is not in"),
        (["file,static.a", ",x"], "line 2: names ''"),
        (["name,static.a", "x,y"], "has no column 'file', got 'name', 'static.a'"),
        (["file,person"], "unknown column 'person'"),
        (["file,spilt"], r"unknown column 'spilt' \(did you mean 'split'"),
        (["file,static.a,dynamic.a"], "two columns are about 'a'"),
        (["file,split", "ben/run.avi,dev"], "line 2: split is 'dev', must be train or test"),
        (["file,trial", "ben/run.avi,one"], "trial is 'one'"),
        (["file,static.a", "ben/run.avi"], "not as many cells"),
        (["file,static.a", "ben/run.avi,x,y"], "not as many cells"),
        (["file", "ben/run.avi", "ben/run.avi"], "line 3: 'ben/run.avi' is named a second time"),
        ([""], "has no column 'file', got an empty table"),
    ],
)
def test_wrong_tables_are_named(clips, lines, message):
    path = table(clips, *lines)
    with pytest.raises(InputError, match=message) as error:
        items(clips, labels_csv=path)
    assert str(path) in str(error.value)


def test_a_table_may_name_files_in_full_but_none_outside(clips):
    inside, outside = clips / "notes.txt", clips.parent / "letter.txt"
    outside.write_text("x")
    assert "notes" in items(clips, labels_csv=table(clips, "file", str(inside)))
    with pytest.raises(InputError, match=r"letter\.txt, which is not under .*: name files relative to that folder"):
        items(clips, labels_csv=table(clips, "file", str(outside)))


def test_a_table_that_is_not_there_or_no_text(clips):
    with pytest.raises(InputError, match="No such file"):
        items(clips, labels_csv=clips / "labels.csv")
    (clips / "labels.csv").write_bytes(b"file\n\xff\xfe\x00")
    with pytest.raises(InputError, match="give a CSV file in UTF-8"):
        items(clips, labels_csv=clips / "labels.csv")


def test_labels_come_from_one_place(clips):
    with pytest.raises(ConfigError, match="give one of them"):
        FolderSource(clips, SourceOptions(labels="folders", layout="{subject}"))


def test_the_held_out_share_depends_on_names_alone(tmp_path):
    for number in range(20):
        write_images(tmp_path / "clips" / f"{number}", 1)
    first = {name for name, item in items(tmp_path / "clips", test_fraction=0.2).items() if item.split == "test"}
    assert len(first) == 4
    assert first == {name for name, item in items(tmp_path / "clips", test_fraction=0.2).items() if item.split == "test"}
    assert first < {name for name, item in items(tmp_path / "clips", test_fraction=0.5).items() if item.split == "test"}
    assert all(item.split == "train" for item in items(tmp_path / "clips", test_fraction=0.0).values())


def test_one_name_with_two_endings_makes_two_recordings(tmp_path):
    write_avi(tmp_path / "a.avi")
    write_avi(tmp_path / "a.mkv")
    write_avi(tmp_path / "b.avi")
    assert list(items(tmp_path)) == ["a.avi", "a.mkv", "b"]


def test_a_folder_of_images_itself_is_a_recording(tmp_path):
    write_images(tmp_path / "walk", 3)
    assert list(items(tmp_path / "walk")) == ["walk"]


def test_stills_beside_videos_are_no_recording(tmp_path):
    write_avi(tmp_path / "a.avi")
    write_images(tmp_path, 1)
    assert list(items(tmp_path)) == ["a"]


def test_webp_is_a_still_or_a_film(tmp_path):
    still = Image.new("RGB", (16, 16))
    (tmp_path / "stills").mkdir()
    for f in range(3):
        still.save(tmp_path / "stills" / f"{f}.webp")
    frames = [Image.new("RGB", (16, 16), (80 * f, 0, 0)) for f in range(3)]
    (tmp_path / "films").mkdir()
    frames[0].save(tmp_path / "films" / "a.webp", save_all=True, append_images=frames[1:], duration=100)
    assert list(items(tmp_path)) == ["films/a", "stills"]


def test_bad_videos_are_skipped(clips, tmp_path):
    whole = (clips / "ben" / "run.avi").read_bytes()
    (clips / "empty.mp4").write_bytes(b"")
    (clips / "text.mp4").write_text("no video at all")
    (clips / "renamed.mp4").write_bytes(whole)
    (clips / "head.avi").write_bytes(whole[:1000])
    info = make_set(clips, tmp_path / "set", "folder").info
    assert {skipped["file"] for skipped in info["skipped"]} == {"empty.mp4", "text.mp4", "head.avi"}
    assert all("\n" not in skipped["reason"] for skipped in info["skipped"])
    assert info["num_clips"] == 5, "a wrong ending alone is no fault"


def test_an_unreadable_folder_is_named(clips, monkeypatch, caplog):
    scandir = os.scandir

    def refuse(path):
        if str(path) == str(refused):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    refused = clips / "ben"
    assert list(items(clips)) == ["anna/run/take 2", "anna/walk/1"]
    assert f"skipped the folder {refused}: Permission denied" in caplog.text
    refused = clips
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
        items(clips)
