from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from made_data import make_set, write_avi, write_images

pytest.importorskip("cv2", reason="faces: pip install 'divid[faces]'")

from divid.data.clips import ClipDataset
from divid.data.faces import FaceTrack
from divid.data.sources import SourceOptions, mead
from divid.data.sources.mead import MeadSource


def items(folder: Path):
    return {item.id: item for item in MeadSource(folder, SourceOptions(image_size=16)).items()}


def test_the_layout_of_the_release(tmp_path):
    for name in ("front/angry/level_1/001", "front/happy/level_3/012", "left_30/angry/level_1/001", "top/happy/level_1/002"):
        write_avi(tmp_path / "M003" / "video" / f"{name}.mp4", 2)
    found = items(tmp_path)
    assert list(found) == ["M003/video/front/angry/level_1/001", "M003/video/front/happy/level_3/012"]
    assert found["M003/video/front/happy/level_3/012"].labels == {"subject": "M003", "emotion": "happy"}
    assert found["M003/video/front/happy/level_3/012"].trial == 12
    one_subject = items(tmp_path / "M003")
    assert one_subject["video/front/angry/level_1/001"].labels == {"subject": "M003", "emotion": "angry"}


def test_folders_of_extracted_images(tmp_path):
    write_images(tmp_path / "W009" / "front" / "Sad" / "level_2" / "004")
    write_images(tmp_path / "W010" / "surprised")
    assert [item.labels for item in items(tmp_path).values()] == [
        {"subject": "W009", "emotion": "sad"},
        {"subject": "W010", "emotion": "surprised"},
    ]


def test_folders_of_people(tmp_path):
    write_images(tmp_path / "female" / "anna")
    write_images(tmp_path / "male" / "ben")
    source = MeadSource(tmp_path, SourceOptions())
    assert [item.labels for item in source.items()] == [{"subject": "anna"}, {"subject": "ben"}]
    assert source.dynamic_factors == ()


def test_frames_are_cropped_to_the_face(tmp_path, monkeypatch):
    write_avi(tmp_path / "clips" / "anna" / "happy" / "001.mp4", 6, height=48, width=64)
    monkeypatch.setattr(mead, "find_face", lambda frames, what: FaceTrack(8, 0, 48, sum(1 for _ in frames), 6))
    info = make_set(tmp_path / "clips", tmp_path / "set", "mead", channels=3).info
    assert info["details"] == {"num_frames_searched": 6, "num_frames_with_face": 6}
    frames = ClipDataset.open(tmp_path / "set").frames(0)
    assert frames.shape == (6, 16, 16, 3)
    assert frames[:, :, 2:-2, 0].min() > 200, "the crop is the red middle square"
    assert frames[:, :, 2:-2, 2].max() < 60


def test_clips_without_a_face_are_reported(tmp_path, data_root):
    person = next((data_root / "faces94").glob("*/*"))
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / person.name).symlink_to(person)
    write_images(tmp_path / "clips" / "wall", size=100)
    source_folder = tmp_path / "clips"
    copied = source_folder / person.name
    copied.unlink()
    copied.mkdir()
    for image in sorted(person.iterdir())[:4]:
        (copied / image.name).write_bytes(image.read_bytes())
    info = make_set(source_folder, tmp_path / "set", "mead").info
    assert info["num_clips"] == 1
    assert [skipped["file"] for skipped in info["skipped"]] == ["wall"]
    assert "no face was found in any of 4 frames" in info["skipped"][0]["reason"]


@pytest.mark.slow
def test_every_person_of_faces94_is_found(data_root, tmp_path):
    info = make_set(data_root / "faces94", tmp_path / "set", "mead", image_size=64, channels=3).info
    assert (info["num_clips"], info["skipped"]) == (40, [])
    assert info["details"]["num_frames_searched"] == 800
    assert info["details"]["num_frames_with_face"] >= 0.98 * 800
    clips = ClipDataset.open(tmp_path / "set")
    assert {clips.num_frames(index) for index in range(40)} == {20}
    assert np.mean([clips.frames(index).std() for index in range(40)]) > 30
