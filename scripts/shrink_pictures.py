"""Give PNG files a palette of 256 colours where that makes them a fifth smaller or more: contact sheets lose nothing that shows.

    .venv/bin/python scripts/shrink_pictures.py docs/results/images/*.png

All tracked files together stay under 32 MiB (`tests/test_layout.py`), of which the bundled weights take 23.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image

from divid.outputs import atomic_path

MOST_LEFT = 0.8
"""Share of its size above which a picture stays as it is."""


def shrink(path: Path) -> int:
    """Shrink one file, if that is worth it.

    Args:
        path: A PNG file.

    Returns:
        Bytes that were saved.
    """
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE, kmeans=2).save(buffer, "PNG", optimize=True)
    before, after = path.stat().st_size, len(buffer.getvalue())
    if after > MOST_LEFT * before:
        return 0
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
    return before - after


def main() -> None:
    """Shrink every file that was named, and say what that saved."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, nargs="+", metavar="FILE", help="PNG files")
    args = parser.parse_args()
    print(f"saved {sum(map(shrink, args.pictures)) / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
