from __future__ import annotations

import pickle

import numpy as np
import pytest

from divid.data.sources import SOURCES, SourceOptions, find_source
from divid.errors import ConfigError

FOLDERS = {
    "folder": "faces94/female",
    "utd_mhad": "utd-mhad",
    "mead": "faces94/female",
    "weizmann": "weizmann",
    "sprites": "sprites",
}


def test_every_source_is_found_by_either_name():
    for name, source in SOURCES.items():
        assert source.name == name
        assert find_source(name.replace("_", "-")) is source
    with pytest.raises(ConfigError, match="did you mean 'utd-mhad'"):
        find_source("utd-mha")


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_source_keeps_the_contract(name, channels, data_root):
    if name == "mead":
        pytest.importorskip("cv2")
    folder = data_root / FOLDERS[name] if name in FOLDERS else None
    source = SOURCES[name](folder, SourceOptions(image_size=24, channels=channels, num_clips=4))
    items = source.items()
    assert len({item.id for item in items}) == len(items)
    assert [item.id for item in source.items()] == [item.id for item in items]
    assert {item.split for item in items} <= {"train", "test"}
    factors = {*source.static_factors, *source.dynamic_factors}
    assert all(set(item.labels) <= factors for item in items)
    item = pickle.loads(pickle.dumps(items[-1]))
    frames, fps = source.load(item)
    assert frames.dtype == np.uint8
    assert frames.shape[1:] == (24, 24, channels)
    assert len(frames) > 1
    assert 1 <= fps <= 120
    np.testing.assert_array_equal(frames, SOURCES[name](folder, source.options).load(item)[0])
