from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from divid.data.sources import SourceOptions
from divid.data.sources.weizmann import ACTIONS, PEOPLE, WeizmannSource
from divid.errors import InputError


def write_strip(folder: Path, person: str, action: str, num_frames: int = 3, image_format: str = "JPEG") -> None:
    """Frame f of a strip is grey with brightness 50 f; PNG ones have a transparent right half."""
    path = folder / action.rstrip() / f"{person}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.repeat(np.arange(num_frames, dtype=np.uint8) * 50, 64)[None, :, None].repeat(64, 0).repeat(3, 2)
    image = Image.fromarray(pixels)
    if image_format == "PNG":
        alpha = np.tile(np.repeat(np.array([255, 0], np.uint8), 32), (64, num_frames))
        image.putalpha(Image.fromarray(alpha))
    image.save(path, format=image_format)


def test_strips_become_frames(tmp_path):
    write_strip(tmp_path, "daria_walk", "walk")
    write_strip(tmp_path, "eli_walk", "walk", image_format="PNG")
    source = WeizmannSource(tmp_path, SourceOptions(image_size=32))
    items = source.items()
    frames, fps = source.load(items[0])
    assert (frames.shape, fps) == ((3, 32, 32, 3), 25.0)
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [0, 50, 100], atol=2)
    transparent, _ = source.load(items[1])
    assert transparent[2, :, :16].min() == 100
    assert transparent[:, :, 16:].max() == 0


def test_repetitions_belong_to_the_person(tmp_path):
    for name, action in (("lena_run1", "run"), ("lena_run2", "run"), ("lena_wave1", "wave1"), ("nobody_run", "run")):
        write_strip(tmp_path, name, action, 1)
    items = WeizmannSource(tmp_path, SourceOptions()).items()
    assert [(item.id, item.labels["person"], item.labels["action"], item.trial) for item in items] == [
        ("lena_run1", "lena", "run", 1), ("lena_run2", "lena", "run", 2), ("lena_wave1", "lena", "wave1", 1),
    ]  # fmt: skip


def test_split_by_blocks(tmp_path):
    for person in PEOPLE:
        for action in ACTIONS:
            write_strip(tmp_path, f"{person}_{action}", action, 1)
    items = WeizmannSource(tmp_path, SourceOptions()).items()
    test = {(item.labels["person"], item.labels["action"]) for item in items if item.split == "test"}
    assert len(items) == 81
    assert len(test) == 27
    assert ("daria", "jump") in test
    assert ("ido", "run") in test
    assert ("daria", "run") not in test


def test_wrong_strips_are_named(tmp_path):
    write_strip(tmp_path, "ido_walk", "walk")
    path = tmp_path / "walk" / "ido_walk.jpg"
    source = WeizmannSource(tmp_path, SourceOptions())
    Image.new("RGB", (100, 64)).save(path)
    with pytest.raises(InputError, match="no multiple of its height 64"):
        source.load(source.items()[0])
    path.write_bytes(b"no picture")
    with pytest.raises(InputError, match="no readable picture"):
        source.load(source.items()[0])


def test_real_strips(data_root):
    source = WeizmannSource(data_root / "weizmann", SourceOptions(image_size=64))
    items = source.items()
    assert Counter(item.split for item in items) == {"train": 55, "test": 28}
    assert Counter(item.labels["person"] for item in items)["lena"] == 11
    for item in items[::20]:
        frames, _ = source.load(item)
        assert 23 <= len(frames) <= 146
        assert frames.std() > 10
