"""Sprites: 1,296 game characters by 9 motions, composed from sheets of the Liberated Pixel Cup (Li & Mandt, ICML 2018)."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from divid.data.images import resize_uint8, to_channels
from divid.data.sources.base import Item, SourceOptions, require_folder
from divid.decoding import PILLOW_ERRORS
from divid.errors import InputError
from divid.outputs import describe

CELL = 64
FPS = 8.0
"""The sheets state none; one round of a motion then takes a second."""
LAYERS = {"body": "body", "bottom": "bottomwear", "top": "topwear", "hair": "hair"}
"""Factor -> folder of its sheets, in the order in which they are drawn."""
SHOES = "shoes/1.png"
"""Drawn last, the same for everybody."""
CHOICES = 6
"""Sheets 0 to 5 of each layer."""

_CELLS = {
    "spellcast": (0, (0, 1, 2, 3, 4, 5, 4, 6)),
    "walk": (8, (8, 1, 2, 3, 4, 5, 6, 7)),
    "slash": (12, (0, 1, 2, 3, 4, 5, 4, 0)),
}
"""Motion -> (first of its four rows of cells, its eight cells in a row)."""
_DIRECTIONS = {"left": 1, "front": 2, "right": 3}
"""Direction -> row after the motion's first, which shows the back."""
MOTIONS = tuple(f"{motion} {direction}" for motion, direction in product(_CELLS, _DIRECTIONS))

NUM_CHARACTERS = CHOICES ** len(LAYERS)
NUM_TRAIN = 1000
SPLIT_SEED = 423


class SpritesSource:
    """All characters in all motions, eight frames each; 1,000 characters train, 296 test.

    Args:
        folder: Holds `body`, `bottomwear`, `topwear`, `hair` and `shoes`.
        options: Size and channels.

    Raises:
        InputError: The folder is missing.
    """

    name = "sprites"
    static_factors = tuple(LAYERS)
    dynamic_factors = ("motion",)

    def __init__(self, folder: Path | None, options: SourceOptions) -> None:
        self.folder = require_folder(folder, self.name)
        self.options = options

    def items(self) -> list[Item]:
        """List the clips, character by character.

        Raises:
            InputError: A sheet is missing.
        """
        needed = [self._sheet(factor, number) for factor in LAYERS for number in range(CHOICES)] + [self.folder / SHOES]
        missing = [path for path in needed if not path.is_file()]
        if missing:
            raise InputError(
                f"{missing[0]} is missing ({len(missing)} of {len(needed)} sheets are): give the folder of the parts"
            )
        order = np.random.RandomState(SPLIT_SEED).permutation(NUM_CHARACTERS)
        train = set(order[:NUM_TRAIN].tolist())
        return [
            self._item(character, parts, motion, "train" if character in train else "test")
            for character, parts in enumerate(product(range(CHOICES), repeat=len(LAYERS)))
            for motion in MOTIONS
        ]

    def load(self, item: Item) -> tuple[np.ndarray, float]:
        """Draw one clip; see `Source.load`."""
        motion, direction = item.labels["motion"].split(" ")
        first_row, columns = _CELLS[motion]
        row = first_row + _DIRECTIONS[direction]
        canvas = Image.new("RGBA", (CELL * len(columns), CELL), (0, 0, 0, 255))
        for path in item.paths:
            canvas.alpha_composite(_cells(path, row, columns))
        pixels = np.array(canvas.convert("RGB"))
        frames = pixels.reshape(CELL, len(columns), CELL, 3).swapaxes(0, 1)
        return to_channels(resize_uint8(frames, self.options.image_size), self.options.channels), FPS

    def _sheet(self, factor: str, number: int) -> Path:
        return self.folder / LAYERS[factor] / f"{number}.png"

    def _item(self, character: int, parts: tuple[int, ...], motion: str, split: str) -> Item:
        chosen = dict(zip(LAYERS, parts, strict=True))
        return Item(
            id=f"character_{character:04d}_{motion.replace(' ', '_')}",
            paths=(*(self._sheet(factor, number) for factor, number in chosen.items()), self.folder / SHOES),
            labels={**{factor: str(number) for factor, number in chosen.items()}, "motion": motion},
            split=split,
        )


@lru_cache(maxsize=512)
def _cells(path: Path, row: int, columns: tuple[int, ...]) -> Image.Image:
    """Cut cells out of a sheet and lay them side by side; all that the data set needs of them fits into 50 MB."""
    sheet = _read_sheet(path)
    strip = Image.new("RGBA", (CELL * len(columns), CELL))
    for place, column in enumerate(columns):
        box = (column * CELL, row * CELL, (column + 1) * CELL, (row + 1) * CELL)
        strip.paste(sheet.crop(box), (place * CELL, 0))
    return strip


@lru_cache(maxsize=32)
def _read_sheet(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            sheet = image.convert("RGBA")
    except PILLOW_ERRORS as error:
        raise InputError(f"{path}: is no readable picture ({describe(error)}): fetch it again") from error
    last_row = max(first + max(_DIRECTIONS.values()) for first, _ in _CELLS.values())
    last_column = max(max(columns) for _, columns in _CELLS.values())
    if sheet.width < (last_column + 1) * CELL or sheet.height < (last_row + 1) * CELL:
        raise InputError(f"{path}: is {sheet.width}x{sheet.height}, too small for a sheet of {CELL}x{CELL} cells")
    return sheet
