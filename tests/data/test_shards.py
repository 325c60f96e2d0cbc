from __future__ import annotations

import numpy as np
import pytest

from divid.data.shards import split_parts


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize(
    ("total", "parts"), [(0, []), (1, [1]), (8, [8]), (9, [5, 4]), (16, [8, 8]), (17, [8, 5, 4]), (31, [8, 8, 8, 7])]
)
def test_parts_keep_every_frame_in_order(total, parts, chunk):
    frames = np.arange(total).reshape(total, 1, 1, 1)
    chunks = [frames[start : start + chunk] for start in range(0, total, chunk)]
    result = list(split_parts(chunks, max_frames=8))
    assert [len(part) for part in result] == parts
    assert np.concatenate([frames[:0], *result]).ravel().tolist() == list(range(total))
