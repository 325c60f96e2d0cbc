from __future__ import annotations

import numpy as np
import pytest

from divid.data.images import area_matrix, area_resize, resize_uint8, to_channels


@pytest.mark.parametrize(("length", "size"), [(240, 64), (64, 64), (10, 4), (4, 10), (7, 1)])
def test_every_pixel_counts_equally(length, size):
    matrix = area_matrix(length, size)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(matrix.sum(axis=0), size / length, atol=1e-6)


def test_area_average_of_parts_of_pixels():
    line = np.array([0.0, 30.0, 60.0]).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(area_resize(line, 2)[0, 0, :, 0], [(0 * 1 + 30 * 0.5) / 1.5, (30 * 0.5 + 60 * 1) / 1.5], rtol=1e-6)


def test_frames_of_the_wanted_size_pass_unchanged():
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    assert resize_uint8(frames, 8) is frames
    assert to_channels(frames, 3) is frames


def test_grey_and_rgb():
    grey = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(to_channels(to_channels(grey, 3), 1), grey)
    red = np.array([[[[255, 0, 0]]]], dtype=np.uint8)
    assert to_channels(red, 1).item() == 76
