"""Swap the appearances of two clips, both ways, and show the four clips on one sheet.

    python examples/swap.py MODEL A.mp4 B.mp4 OUT_FOLDER

MODEL is a run folder, a model folder or a Hub id.
"""

from __future__ import annotations

import sys
from pathlib import Path

from divid import DividPipeline
from divid.errors import DividError


def main(model: str, first: str, second: str, out: str) -> None:
    """Write A's look with B's motion, and the other way round, as video and as a contact sheet.

    Args:
        model: The model.
        first: Clip A.
        second: Clip B.
        out: Folder for the results; made if missing.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = DividPipeline.from_pretrained(model)
    for name, appearance, motion in (("a-as-b", first, second), ("b-as-a", second, first)):
        for ending in (".mp4", ".png"):
            result = pipeline.swap(appearance, motion, folder / f"{name}{ending}", seed=0)
            print(f"{result.path}: {result.num_frames} frames at {result.fps:g} a second")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except DividError as error:
        sys.exit(str(error))
