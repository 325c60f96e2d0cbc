"""Which recordings lie in a folder: video files, and folders of images."""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path

from PIL import Image

from divid.decoding import PILLOW_ERRORS, list_images, natural_key
from divid.errors import InputError
from divid.outputs import IMAGE_ENDINGS, describe
from divid.video import VIDEO_ENDINGS

logger = logging.getLogger("divid")


def find_recordings(root: Path) -> list[Path]:
    """List the recordings under a folder in natural order: each video file, and each folder of images, is one.

    Images beside videos (posters, thumbnails) are no recording. A file whose ending stands for stills and films alike
    (`.webp`) is opened to see. Hidden files and folders are left out.

    Args:
        root: The folder; where it holds images itself, it is a recording.

    Raises:
        InputError: The folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        if error.filename is not None and Path(error.filename) != root:
            logger.warning("skipped the folder %s: %s", error.filename, describe(error))
            return
        raise InputError(f"{root}: cannot be read ({describe(error)}): check its permissions") from error

    found: list[Path] = []
    for name, folders, files in os.walk(root, onerror=refuse):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        folder = Path(name)
        videos = [folder / file for file in files if not file.startswith(".") and is_film(folder / file)]
        if videos:
            found.extend(videos)
        elif list_images(folder):
            found.append(folder)
    return sorted(found, key=lambda path: natural_key(path.as_posix()))


def is_film(path: Path) -> bool:
    """Tell whether a file counts as a video by its ending; stills in a format that can hold films do not.

    Args:
        path: A file.
    """
    ending = path.suffix.lower()
    if ending not in VIDEO_ENDINGS:
        return False
    if ending not in IMAGE_ENDINGS:
        return True
    try:
        with Image.open(path) as image:
            return getattr(image, "n_frames", 1) > 1
    except PILLOW_ERRORS:
        return False


def recording_ids(paths: list[Path], root: Path) -> list[str]:
    """Name recordings by their path under the folder, without the ending where that leaves them apart.

    Args:
        paths: Recordings under the folder.
        root: The folder.
    """
    full = [path.relative_to(root).as_posix() if path != root else root.resolve().name for path in paths]
    short = [
        name if path.is_dir() else str(Path(name).with_suffix("").as_posix()) for name, path in zip(full, paths, strict=True)
    ]
    count = Counter(short)
    return [name if count[name] == 1 else whole for name, whole in zip(short, full, strict=True)]
