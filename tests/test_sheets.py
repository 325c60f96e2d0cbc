"""Contact sheets show the right frames in the right places."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFont

from divid.sheets import BACKGROUND, GAP, LABEL_SIZE, MARGIN, contact_sheet, fit_cell, pick_evenly, wrap


def flat(levels: list[int], height: int = 8, width: int = 8, channels: int = 3) -> np.ndarray:
    return np.stack([np.full((height, width, channels), level, dtype=np.uint8) for level in levels])


def cell_centre(sheet: Image.Image, row: int, column: int, cell: int = 20) -> tuple[int, ...]:
    step = cell + GAP
    return sheet.getpixel((MARGIN + column * step + cell // 2, MARGIN + row * step + cell // 2))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("num_frames", "count", "expected"), [(3, 10, [0, 1, 2]), (10, 4, [0, 3, 6, 9]), (5, 1, [0]), (1, 3, [0]), (100, 2, [0, 99])]
)
def test_pick_evenly(num_frames: int, count: int, expected: list[int]) -> None:
    assert pick_evenly(num_frames, count) == expected


def test_cells_without_labels() -> None:
    sheet = contact_sheet([("", flat([10, 60, 110])), ("", flat([200]))], cell=20)
    assert sheet.size == (2 * MARGIN + 3 * 20 + 2 * GAP, 2 * MARGIN + 2 * 20 + GAP)
    assert [cell_centre(sheet, 0, k)[0] for k in range(3)] == [10, 60, 110]
    assert cell_centre(sheet, 1, 0) == (200, 200, 200)
    assert cell_centre(sheet, 1, 1) == BACKGROUND  # the second row is shorter


def test_long_rows_are_thinned_evenly() -> None:
    sheet = contact_sheet([("", flat(list(range(0, 200, 2))))], cell=20, max_columns=4)
    assert [cell_centre(sheet, 0, k)[0] for k in range(4)] == [0, 66, 132, 198]


def test_labels_and_title_are_drawn_dark_on_white() -> None:
    plain = contact_sheet([("", flat([128]))], cell=60)
    labelled = contact_sheet([("walk", flat([128])), ("jump\nhigh", flat([128]))], cell=60)
    titled = contact_sheet([("walk", flat([128]))], cell=60, title="Swaps")
    assert labelled.width > plain.width
    column = np.asarray(labelled)[:, : labelled.width - 60 - MARGIN - 2]
    for row in (column[MARGIN : MARGIN + 60], column[MARGIN + 60 + GAP :]):
        assert row.min() < 80
    assert titled.height > plain.height
    assert np.asarray(titled)[: MARGIN + 20].min() < 80
    assert titled.getpixel((0, 0)) == BACKGROUND


def test_grey_and_colour_of_different_sizes_share_a_sheet() -> None:
    sheet = contact_sheet([("", flat([90], 4, 4, 1)), ("", flat([150], 30, 60, 3))], cell=20)
    assert cell_centre(sheet, 0, 0) == (90, 90, 90)
    assert sheet.height == 2 * MARGIN + 20 + GAP + 10  # the wide row is half as high


def test_tiny_frames_keep_hard_pixels() -> None:
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    pixels[0, 0] = pixels[1, 1] = 255
    large = np.asarray(fit_cell(Image.fromarray(pixels), 96))
    np.testing.assert_array_equal(large, pixels.repeat(48, axis=0).repeat(48, axis=1))


def test_large_frames_are_averaged() -> None:
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = np.asarray(fit_cell(Image.fromarray(checks), 16))
    assert small.shape == (16, 16)
    assert np.abs(small.astype(int) - 127).max() <= 1


def test_wrap() -> None:
    font = ImageFont.load_default(size=LABEL_SIZE)
    lines = wrap("a rather long label that needs several lines Donaudampfschifffahrtsgesellschaft\nand one more", font, 100)
    assert all(font.getlength(line) <= 100 for line in lines)
    assert "".join(lines).replace(" ", "").startswith("aratherlong")
    assert lines[-1] == "and one more"
    assert wrap("", font, 100) == []


@pytest.mark.parametrize("rows", [[], [("empty", flat([1])[:0])]])
def test_nothing_to_show(rows: list[tuple[str, np.ndarray]]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet(rows)


def test_wrong_numbers() -> None:
    with pytest.raises(ValueError, match="max_columns"):
        contact_sheet([("", flat([1]))], max_columns=0)
