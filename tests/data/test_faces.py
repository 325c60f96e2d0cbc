from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from divid.errors import InputError, MissingExtraError

pytest.importorskip("cv2", reason="faces: pip install 'divid[faces]'")

from divid.data import faces
from divid.data.faces import find_face


def frames(count: int = 10, shape: tuple[int, int, int] = (100, 120, 3)) -> list[np.ndarray]:
    return [np.full(shape, f, dtype=np.uint8) for f in range(count)]


def detections(monkeypatch, boxes: list[list[tuple[float, float, float]]]) -> None:
    """Let frame f, whose bytes are all f, have these detections."""
    monkeypatch.setattr(faces, "detect", lambda frame: np.array(boxes[frame.flat[0]], dtype=float).reshape(-1, 3))


def test_outliers_and_gaps_do_not_move_the_box(monkeypatch):
    boxes = [[(60, 50, 20)]] * 6 + [[], [(15, 15, 40)], [(60, 50, 20), (15, 15, 40)], [(62, 50, 22)]]
    detections(monkeypatch, boxes)
    track = find_face(frames(), "clip")
    assert (track.num_found, track.num_checked) == (8, 10)
    assert track.side == round(20 * faces.MARGIN)
    assert (track.left + track.side / 2, track.top + track.side / 2) == pytest.approx((60, 50), abs=1)


def test_the_square_stays_inside_the_picture(monkeypatch):
    detections(monkeypatch, [[(110, 8, 60)]] * 4)
    track = find_face(frames(4), "clip")
    assert track.side == 87
    assert (track.left, track.top) == (120 - 87, 0)
    detections(monkeypatch, [[(60, 50, 95)]] * 4)
    assert find_face(frames(4), "clip").side == 100


def test_a_clip_without_a_face_is_named():
    with pytest.raises(InputError, match="clip: no face was found in any of 3 frames"):
        find_face(frames(3), "clip")


def test_a_face_in_too_few_frames_is_none(monkeypatch):
    detections(monkeypatch, [[(60, 50, 20)]] + [[]] * 9)
    with pytest.raises(InputError, match="in only 1 of 10 frames"):
        find_face(frames(), "clip")


def test_without_opencv_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    faces._opencv.cache_clear()
    try:
        with pytest.raises(MissingExtraError, match=r"pip install 'divid\[faces\]'"):
            faces.require_opencv()
    finally:
        faces._opencv.cache_clear()


def test_a_real_face_is_found_at_any_size(data_root):
    path = sorted((data_root / "faces94").glob("male/*/*.jpg"))[0]
    with Image.open(path) as image:
        room = Image.new("RGB", (320, 280), (90, 90, 90))
        room.paste(image, (100, 40))
    small, large = np.array(room), np.array(room.resize((1600, 1400)))
    track, large_track = find_face([small], "small"), find_face([large], "large")
    assert 100 < track.left + track.side / 2 < 280
    assert 80 < track.side < 250
    assert large_track.side == pytest.approx(5 * track.side, rel=0.1)
    assert large_track.left == pytest.approx(5 * track.left, abs=50)
    assert large_track.top == pytest.approx(5 * track.top, abs=50)
