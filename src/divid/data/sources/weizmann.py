"""Weizmann actions: 9 people by 9 actions, as strips of square frames (Gorelick et al., TPAMI 2007)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from divid.data.images import resize_uint8, to_channels
from divid.data.sources.base import Item, SourceOptions, require_folder
from divid.decoding import PILLOW_ERRORS
from divid.errors import InputError
from divid.outputs import describe

PEOPLE = ("daria", "denis", "eli", "ido", "ira", "lena", "lyova", "moshe", "shahar")
ACTIONS = ("bend", "jack", "jump", "pjump", "run", "side", "walk", "wave1", "wave2")
FPS = 25.0
"""Of the original recordings (deinterlaced, 50 fields a second)."""
BLOCK = 3
"""People and actions in a block of the split."""


class WeizmannSource:
    """Strips named `<action>/<person>_<action>.jpg`; frame k of a strip of height H is its columns kH to (k+1)H - 1.

    A number after the action counts repetitions (lena ran and walked twice). People and actions form three blocks of three
    each; a clip is in the test split where the two blocks are equal.

    Args:
        folder: Holds a folder for each action.
        options: Size and channels.

    Raises:
        InputError: The folder is missing.
    """

    name = "weizmann"
    static_factors = ("person",)
    dynamic_factors = ("action",)

    def __init__(self, folder: Path | None, options: SourceOptions) -> None:
        self.folder = require_folder(folder, self.name)
        self.options = options

    def items(self) -> list[Item]:
        """List the strips, by action and person.

        Raises:
            InputError: There are none.
        """
        items = []
        for place, action in enumerate(ACTIONS):
            for path in sorted((self.folder / action).glob("*")):
                match = re.fullmatch(rf"({'|'.join(PEOPLE)})_{action}(\d*)\.(jpe?g|png)", path.name, re.IGNORECASE)
                if match is None:
                    continue
                person = match[1].lower()
                is_test = PEOPLE.index(person) // BLOCK == place // BLOCK
                items.append(
                    Item(
                        id=path.stem,
                        paths=(path,),
                        labels={"person": person, "action": action},
                        split="test" if is_test else "train",
                        trial=int(match[2] or 1),
                    )
                )
        if not items:
            raise InputError(f"{self.folder} holds no <action>/<person>_<action>.jpg: give the folder of the Weizmann strips")
        return items

    def load(self, item: Item) -> tuple[np.ndarray, float]:
        """Cut one strip into its frames; see `Source.load`."""
        path = item.paths[0]
        try:
            with Image.open(path) as image:
                strip = image.convert("RGBA")
        except PILLOW_ERRORS as error:
            raise InputError(f"{path}: is no readable picture ({describe(error)}): fetch it again") from error
        width, side = strip.size
        if width % side:
            raise InputError(f"{path}: is {width} pixels wide, no multiple of its height {side}: not a strip of square frames")
        black = Image.new("RGBA", strip.size, (0, 0, 0, 255))
        pixels = np.array(Image.alpha_composite(black, strip).convert("RGB"))
        frames = pixels.reshape(side, width // side, side, 3).swapaxes(0, 1)
        return to_channels(resize_uint8(frames, self.options.image_size), self.options.channels), FPS
