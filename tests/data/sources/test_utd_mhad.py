from __future__ import annotations

import numpy as np
import pytest
from scipy.io import savemat

from divid.data.clips import ClipDataset
from divid.data.sources import SourceOptions
from divid.data.sources.utd_mhad import ACTIONS, UtdMhadSource, depth_to_brightness
from divid.errors import InputError
from made_data import make_set, write_avi, write_depth

GREY = SourceOptions(image_size=24, channels=1)


def test_brightness_is_depth_around_the_median():
    depth = np.array([0, 3000, 3000, 3000, 2600, 3400, 1000, 5000], dtype=np.uint16)
    expected = [0, 0.5, 0.5, 0.5, 0.75, 0.25, 1.0, 0.15]
    np.testing.assert_allclose(depth_to_brightness(depth) / 255, expected, atol=1e-6)
    assert not depth_to_brightness(np.zeros((2, 2), dtype=np.uint16)).any()


def test_depth_is_cropped_to_the_middle_square(tmp_path):
    write_depth(tmp_path, "a1_s1_t1")
    source = UtdMhadSource(tmp_path, GREY)
    frames, fps = source.load(source.items()[0])
    assert (frames.shape, frames.dtype, fps) == ((6, 24, 24, 1), np.uint8, 30.0)
    # Columns 120 to 159 of 320 are 80 to 119 of the square, which are columns 8 to 11 of 24; rows 80 to 199 are 8 to 19.
    expected = np.zeros((24, 24))
    expected[8:20, 8:12] = 128
    np.testing.assert_array_equal(frames[0, ..., 0], expected)
    np.testing.assert_array_equal(frames[5, 8:20, 10:14, 0], 128)


def test_labels_split_and_order(tmp_path):
    for name in ("a10_s1_t1", "a2_s1_t1", "a2_s1_t2", "a2_s1_t4", "a2_s2_t1", "a2_s2_t3"):
        write_depth(tmp_path, name, 1)
    (tmp_path / "a99_s1_t1_depth.mat").write_bytes(b"")
    (tmp_path / "a1_s1_t1_skeleton.mat").write_bytes(b"")
    items = UtdMhadSource(tmp_path, GREY).items()
    assert [item.id.removesuffix("_depth") for item in items] == [
        "a2_s1_t1", "a2_s1_t2", "a2_s1_t4", "a2_s2_t1", "a2_s2_t3", "a10_s1_t1",
    ]  # fmt: skip
    assert [item.split for item in items] == ["train", "train", "test", "train", "test", "test"]
    assert items[2].labels == {"subject": "s1", "action": "swipe right"}
    assert items[2].trial == 4
    assert (len(ACTIONS), ACTIONS[21], ACTIONS[26]) == (27, "jog", "squat")


def test_colour_recordings_keep_the_middle_square(tmp_path):
    for trial in (1, 2):
        write_avi(tmp_path / "RGB" / f"a3_s4_t{trial}_color.avi", num_frames=5, height=48, width=64, fps=15)
    info = make_set(tmp_path / "RGB", tmp_path / "set", image_size=16, channels=3).info
    clips = ClipDataset.open(tmp_path / "set")
    assert (info["splits"], info["fps"]) == ({"test": 1, "train": 1}, {"15": 2})
    assert clips.labels(0) == {"subject": "s4", "action": "wave"}
    frames = clips.frames(0).astype(int)
    assert frames.shape == (5, 16, 16, 3)
    assert frames[..., 0].min() > 200, "the blue margins are inside of the crop"
    assert frames[:, :, 1:-1, 2].max() < 60


def test_depth_and_colour_side_by_side_are_refused(tmp_path):
    write_depth(tmp_path, "a1_s1_t1", 1)
    write_avi(tmp_path / "a1_s1_t1_color.avi")
    with pytest.raises(InputError, match="both depth and colour"):
        UtdMhadSource(tmp_path, GREY).items()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"other": np.zeros((240, 320, 3), np.uint16)}, "no variable d_depth"),
        ({"d_depth": np.zeros((10, 10, 3), np.uint16)}, r"is uint16 \(10, 10, 3\), expected"),
        ({"d_depth": np.zeros((240, 320, 3))}, "is float64"),
        ({"d_depth": np.full((240, 320, 2), -1, np.int16)}, "outside 0 to 65535"),
    ],
)
def test_wrong_mat_files_are_named(tmp_path, contents, message):
    savemat(tmp_path / "a1_s1_t1_depth.mat", contents)
    source = UtdMhadSource(tmp_path, GREY)
    with pytest.raises(InputError, match=message) as error:
        source.load(source.items()[0])
    assert "a1_s1_t1_depth.mat" in str(error.value)


def test_real_recordings(data_root):
    source = UtdMhadSource(data_root / "utd-mhad", SourceOptions(image_size=64, channels=1))
    items = source.items()
    assert len(items) == 648
    assert sum(item.split == "test" for item in items) == 216
    for item in items[::200]:
        frames, _ = source.load(item)
        assert 41 <= len(frames) <= 125
        person = frames > 0
        assert 0.02 < person.mean() < 0.4, "the person is a small part of the picture"
        columns = np.flatnonzero(person.any(axis=(0, 1, 3)))
        assert columns.min() > 0
        assert columns.max() < 63, "the crop cuts nobody"
        assert 100 < np.median(frames[person]) < 155
