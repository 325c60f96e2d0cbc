"""Contact sheets: labelled rows of frames as one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN = 16
GAP = 4
LABEL_SIZE = 14
TITLE_SIZE = 20
MAX_LABEL_WIDTH = 200
BACKGROUND = (255, 255, 255)
TEXT = (32, 33, 36)
FRAME_EDGE = (222, 224, 228)


def pick_evenly(num_frames: int, count: int) -> list[int]:
    """Give at most `count` positions spread evenly over a clip, its first and last frame among them.

    Args:
        num_frames: Length of the clip.
        count: How many positions at most.
    """
    if num_frames <= count:
        return list(range(num_frames))
    if count == 1:
        return [0]
    return [round(k * (num_frames - 1) / (count - 1)) for k in range(count)]


def to_image(frame: np.ndarray) -> Image.Image:
    """Make an RGB picture of a uint8 frame "H W C" with C = 1 or 3."""
    return Image.fromarray(np.ascontiguousarray(frame[..., 0] if frame.shape[-1] == 1 else frame)).convert("RGB")


def fit_cell(image: Image.Image, cell: int) -> Image.Image:
    """Scale a picture so that its longer side fills a cell.

    Small pictures are enlarged with hard pixel edges (a whole multiple by nearest neighbour, then averaged down to the cell), so
    that every pixel of a 32x32 frame stays visible and equally large; large ones are averaged down.

    Args:
        image: Any size.
        cell: Side of the cell in pixels.
    """
    longer = max(image.size)
    size = (max(1, round(image.width * cell / longer)), max(1, round(image.height * cell / longer)))
    if longer < cell:
        factor = math.ceil(cell / longer)
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    return image.resize(size, Image.Resampling.BOX if image.width % size[0] == 0 else Image.Resampling.HAMMING)


def contact_sheet(
    rows: Sequence[tuple[str, np.ndarray]], *, max_columns: int = 10, cell: int = 96, title: str | None = None
) -> Image.Image:
    """Lay out clips as labelled rows of frames, dark on white.

    Args:
        rows: Label and uint8 frames "F H W C" of each row, from top to bottom; lengths and sizes may differ.
        max_columns: Frames of a row; from a longer clip they are picked evenly, the first and the last among them.
        cell: Side of the square that each frame fills, in pixels.
        title: A line above the rows.

    Returns:
        An RGB picture.

    Raises:
        ValueError: If there is no row, a row has no frame, or `max_columns` or `cell` is below 1.
    """
    if not rows or any(len(frames) == 0 for _, frames in rows):
        raise ValueError("a contact sheet needs at least one row and one frame in each row")
    if max_columns < 1 or cell < 1:
        raise ValueError(f"max_columns and cell must be at least 1, got {max_columns} and {cell}")
    font, title_font = ImageFont.load_default(size=LABEL_SIZE), ImageFont.load_default(size=TITLE_SIZE)
    pictures = [[fit_cell(to_image(frames[k]), cell) for k in pick_evenly(len(frames), max_columns)] for _, frames in rows]
    labels = [wrap(label, font, MAX_LABEL_WIDTH) for label, _ in rows]
    num_columns = max(len(row) for row in pictures)
    label_width = math.ceil(max(font.getlength(line) for lines in labels for line in [*lines, ""]))
    left = MARGIN + (label_width + MARGIN if label_width else 0)
    line_height = LABEL_SIZE + 4
    heights = [max(row[0].height, len(lines) * line_height) for row, lines in zip(pictures, labels, strict=True)]
    grid_width = num_columns * (cell + GAP) - GAP
    title_lines = wrap(title, title_font, max(left + grid_width - MARGIN, MAX_LABEL_WIDTH)) if title else []
    top = MARGIN + (len(title_lines) * (TITLE_SIZE + 6) + MARGIN // 2 if title_lines else 0)
    title_width = math.ceil(max((title_font.getlength(line) for line in title_lines), default=0))
    width = max(left + grid_width, MARGIN + title_width) + MARGIN
    sheet = Image.new("RGB", (width, top + sum(heights) + GAP * (len(rows) - 1) + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(title_lines):
        draw.text((MARGIN, MARGIN + number * (TITLE_SIZE + 6)), line, fill=TEXT, font=title_font)
    for row, lines, height in zip(pictures, labels, heights, strict=True):
        _draw_row(sheet, draw, row, lines, font, (left, top, height, cell))
        top += height + GAP
    return sheet


def wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Break a text into lines no wider than `width` pixels, at spaces where it can and within words where it must.

    Args:
        text: One or more lines; empty gives none.
        font: What it is drawn in.
        width: In pixels.
    """
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            candidate = f"{line} {word}".strip()
            if line and font.getlength(candidate) > width:
                lines.append(line)
                candidate = word
            while font.getlength(candidate) > width and len(candidate) > 1:
                cut = next(k for k in range(len(candidate), 0, -1) if k == 1 or font.getlength(candidate[:k]) <= width)
                lines.append(candidate[:cut])
                candidate = candidate[cut:]
            line = candidate
        if line:
            lines.append(line)
    return lines


def _draw_row(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    row: list[Image.Image],
    lines: list[str],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    place: tuple[int, int, int, int],
) -> None:
    left, top, height, cell = place
    line_height = LABEL_SIZE + 4
    text_top = top + (height - len(lines) * line_height) // 2
    for number, line in enumerate(lines):
        draw.text((MARGIN, text_top + number * line_height), line, fill=TEXT, font=font)
    for column, picture in enumerate(row):
        x = left + column * (cell + GAP) + (cell - picture.width) // 2
        y = top + (height - picture.height) // 2
        sheet.paste(picture, (x, y))
        draw.rectangle((x - 1, y - 1, x + picture.width, y + picture.height), outline=FRAME_EDGE)
