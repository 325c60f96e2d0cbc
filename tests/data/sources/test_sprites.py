from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from divid.data.sources import SourceOptions
from divid.data.sources.sprites import CELL, MOTIONS, NUM_CHARACTERS, SpritesSource
from divid.errors import InputError


@pytest.fixture(scope="module")
def sheets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sheets of 16 by 13 cells: bodies fill a cell with a colour that names row and column, all others draw one pixel each."""
    folder = tmp_path_factory.mktemp("sheets")
    rows, columns = np.mgrid[0:16, 0:13]
    for place, layer in enumerate(("body", "bottomwear", "topwear", "hair")):
        (folder / layer).mkdir()
        for number in range(6):
            cells = np.zeros((16, 13, CELL, CELL, 4), np.uint8)
            if layer == "body":
                cells[..., 0], cells[..., 1] = rows[..., None, None] * 10, columns[..., None, None] * 10
                cells[..., 2], cells[..., 3] = number, 255
            else:
                cells[:, :, 0, place] = (200 + place, 200 + number, 0, 255)
            sheet = cells.swapaxes(1, 2).reshape(16 * CELL, 13 * CELL, 4)
            Image.fromarray(sheet).save(folder / layer / f"{number}.png")
    (folder / "shoes").mkdir()
    shoes = np.zeros((16 * CELL, 13 * CELL, 4), np.uint8)
    shoes[0::CELL, 3::CELL] = (9, 9, 9, 255)
    Image.fromarray(shoes).save(folder / "shoes" / "1.png")
    return folder


def test_every_character_does_every_motion(sheets):
    items = SpritesSource(sheets, SourceOptions()).items()
    assert len(items) == NUM_CHARACTERS * len(MOTIONS) == 11_664
    assert Counter(item.split for item in items) == {"train": 9000, "test": 2664}
    sides = {}
    for item in items:
        sides.setdefault(item.id[:14], set()).add(item.split)
    assert all(len(splits) == 1 for splits in sides.values())
    expected = np.random.RandomState(423).permutation(1296)[:1000]
    assert {item.id[:14] for item in items if item.split == "train"} == {f"character_{number:04d}" for number in expected}


def test_a_character_is_drawn_from_its_parts(sheets):
    source = SpritesSource(sheets, SourceOptions())
    items = {item.id: item for item in source.items()}
    number = 2 * 216 + 5 * 36 + 1 * 6 + 4
    for motion, row, columns in (
        ("spellcast left", 1, [0, 1, 2, 3, 4, 5, 4, 6]),
        ("walk front", 10, [8, 1, 2, 3, 4, 5, 6, 7]),
        ("slash right", 15, [0, 1, 2, 3, 4, 5, 4, 0]),
    ):
        item = items[f"character_{number:04d}_{motion.replace(' ', '_')}"]
        assert item.labels == {"body": "2", "bottom": "5", "top": "1", "hair": "4", "motion": motion}
        frames, _ = source.load(item)
        assert frames.shape == (8, 64, 64, 3)
        assert frames[:, 30, 30].tolist() == [[row * 10, column * 10, 2] for column in columns]
        assert frames[0, 0, :4].tolist() == [[row * 10, columns[0] * 10, 2], [201, 205, 0], [202, 201, 0], [9, 9, 9]]


def test_missing_and_wrong_sheets_are_named(tmp_path, sheets):
    with pytest.raises(InputError, match=r"body/0\.png is missing \(25 of 25 sheets are\)"):
        SpritesSource(tmp_path, SourceOptions()).items()
    wrong = tmp_path / "0.png"
    Image.new("RGBA", (64, 64)).save(wrong)
    source = SpritesSource(sheets, SourceOptions())
    item = source.items()[0]
    with pytest.raises(InputError, match="is 64x64, too small"):
        source.load(type(item)(id="x", paths=(wrong,), labels=item.labels))


def test_real_sheets(data_root):
    source = SpritesSource(data_root / "sprites", SourceOptions(image_size=64))
    items = source.items()
    for item in items[:: len(items) // 7]:
        frames, _ = source.load(item)
        drawn = (frames > 0).any(axis=-1).mean(axis=(1, 2))
        assert ((drawn > 0.1) & (drawn < 0.6)).all(), "a sprite fills a part of its cell, in every frame"
        assert not frames[:, 0].any(), "the background is black"
