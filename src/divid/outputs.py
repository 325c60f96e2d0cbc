"""Checks and atomic writing of output files: a file is there whole, or it is as it was before."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from divid.errors import OutputError

OUTPUT_ENDINGS = (".mp4", ".gif", ".png")
"""What the commands write by default: H.264 video, GIF, contact sheet."""
IMAGE_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
"""Endings of the files that count as frames in a folder of images."""


def describe(error: BaseException) -> str:
    """Give what an exception says in one line, without error numbers and paths where the system has a plain text for it."""
    number = getattr(error, "errno", None)
    if isinstance(number, int):
        return os.strerror(number) if number in errno.errorcode else str(getattr(error, "strerror", error))
    return " ".join(str(error).split()) or type(error).__name__


def write_failure(path: Path, error: BaseException) -> OutputError:
    """Make the error that says why a file could not be written and what to do.

    Args:
        path: The output.
        error: What the system or FFmpeg reported.
    """
    remedy = {errno.ENOSPC: "free some space or choose another place", errno.EDQUOT: "free some space or choose another place"}
    hint = remedy.get(getattr(error, "errno", None) or 0, "choose another place")
    return OutputError(f"{path}: cannot be written ({describe(error)}): {hint}")


def temporary_path(path: Path) -> Path:
    """Give an unused hidden name in the folder of an output, from where `os.replace` is atomic."""
    return path.with_name(f".divid-{uuid.uuid4().hex}{path.suffix.lower()}")


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary path that becomes the output when the block ends well, and is removed when it does not.

    Args:
        path: The output; an existing file stays as it is until the new one is whole.

    Yields:
        A path in the same folder, with the same ending.

    Raises:
        OutputError: If writing fails, for one because the disk is full.
    """
    path = Path(path)
    temporary = temporary_path(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise write_failure(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_image(path: Path | str, image: Image.Image | np.ndarray) -> None:
    """Write one picture as PNG, atomically and without loss.

    Args:
        path: An output ending in .png.
        image: A Pillow image, or uint8 "H W", "H W 1" or "H W 3".

    Raises:
        OutputError: If the ending is not .png or the file cannot be written.
    """
    path = Path(path)
    check_ending(path, (".png",))
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image)
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def check_ending(path: Path, endings: Sequence[str]) -> None:
    """Raise an OutputError unless the path has one of these endings, in upper or lower case."""
    if path.suffix.lower() not in endings:
        got = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
        raise OutputError(f"{path}: the output {got}, which says nothing writable: use one of {', '.join(endings)}")


def check_output(path: Path | str, *, inputs: Sequence[Path] = (), endings: Sequence[str] = OUTPUT_ENDINGS) -> Path:
    """Check, before the work starts, that an output can be written and overwrites none of the inputs.

    Args:
        path: Where the result is to go.
        inputs: Files and folders of images that are read.
        endings: The allowed endings.

    Returns:
        The path.

    Raises:
        OutputError: If the ending is unknown, the folder is missing or not writable, or the output is one of the inputs.
    """
    path = Path(path)
    check_ending(path, endings)
    try:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder: give the name of a file in it, such as {path / f'out{endings[0]}'}")
        if not path.parent.is_dir():
            wrong = "is not a folder" if path.parent.exists() else "does not exist"
            raise OutputError(f"{path}: the folder {path.parent} {wrong}: create it, or write somewhere else")
        for source in inputs:
            _check_not_input(path, Path(source))
        if path.exists() and not os.access(path, os.W_OK):
            raise OutputError(f"{path}: exists and is write-protected: give another name")
    except OSError as error:
        raise write_failure(path, error) from error
    _check_folder_writable(path)
    return path


def _check_not_input(path: Path, source: Path) -> None:
    if path.exists() and source.exists() and path.samefile(source):
        raise OutputError(f"{path}: is the input {source} itself: give the output another name")
    if source.is_dir() and path.parent.samefile(source) and path.suffix.lower() in IMAGE_ENDINGS:
        raise OutputError(f"{path}: would become a frame of the input folder {source}: write outside of it")


def _check_folder_writable(path: Path) -> None:
    probe = temporary_path(path)
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        text = f"the folder {path.parent} is not writable ({describe(error)}): choose another place"
        raise OutputError(f"{path}: {text}") from error
