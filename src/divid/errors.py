"""Every exception that divid raises on purpose.

DividError                 one line: what is wrong, what was got, what to do; exit code 2
|-- InputError             a file or folder that a person handed over cannot be used
|   |-- VideoReadError     a video, GIF or image folder cannot be read
|   `-- OutputError        an output path cannot be written, or would overwrite the input
|-- DatasetError           a prepared data set is missing, empty, damaged or not ours
|-- ConfigError            a recipe, flag or argument has a wrong key or value
|-- ModelError             a model folder or checkpoint cannot be loaded, or does not fit
|-- TrainingError          training cannot go on (a loss that is not a number, for one)
|   `-- TrainingStopped    a signal ended training; a checkpoint is saved
`-- MissingExtraError      an optional dependency is not installed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DividError(Exception):
    """Base of all errors that a person can mend; the command line prints it in one line and exits with 2."""

    exit_code = 2


class InputError(DividError):
    """A file or folder that a person handed over cannot be used."""


class VideoReadError(InputError):
    """A video, GIF or image folder cannot be read."""


class OutputError(InputError):
    """An output path cannot be written, or would overwrite the input."""


class DatasetError(DividError):
    """A prepared data set is missing, empty, damaged or was not made by divid."""


class ConfigError(DividError):
    """A recipe, flag or argument has a wrong key or value."""


class ModelError(DividError):
    """A model folder or checkpoint cannot be loaded, or does not fit what is asked of it."""


class TrainingError(DividError):
    """Training cannot go on."""


class TrainingStopped(TrainingError):  # noqa: N818 -- nothing went wrong
    """A signal ended training before its time; a checkpoint is saved.

    Args:
        message: What to do to go on.
        signal_number: The signal; the exit code is 128 more, as shells have it.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class MissingExtraError(DividError):
    """An optional dependency is not installed.

    Args:
        package: The distribution that is missing.
        extra: The extra of divid that brings it.
        purpose: What it is needed for.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}: run pip install 'divid[{extra}]'")


def nearest(wrong: str, allowed: Iterable[str]) -> str:
    """Give a hint naming the allowed word closest to a wrong one.

    Args:
        wrong: What was given.
        allowed: The words that are valid there.

    Returns:
        `" (did you mean X?)"`, or the list of the allowed words where none is near.
    """
    words = sorted(allowed)
    close = difflib.get_close_matches(wrong, words, n=1)
    return f" (did you mean {close[0]!r}?)" if close else f" (allowed: {', '.join(words)})"


def first_line(error: BaseException) -> str:
    """Give the first line of what an error says, or its kind where it says nothing: libraries' errors may fill pages.

    Args:
        error: Any.
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
