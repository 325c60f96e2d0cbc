"""Small data sets in the forms in which the real ones are distributed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from made_data import make_set, write_depth


@pytest.fixture
def utd_folder(tmp_path: Path) -> Path:
    """Eight recordings: two subjects, two actions, two trials."""
    folder = tmp_path / "utd" / "Depth"
    folder.mkdir(parents=True)
    for action in (1, 23):
        for subject in (1, 2):
            for trial in (1, 2):
                write_depth(folder, f"a{action}_s{subject}_t{trial}")
    return folder.parent


@pytest.fixture
def utd_set(utd_folder: Path, tmp_path: Path) -> Path:
    """These eight, prepared."""
    return make_set(utd_folder, tmp_path / "set").folder


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Every file of a folder by its relative name, but for the cache that opening makes."""

    def read(folder: Path) -> dict[str, bytes]:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and ".cache" not in path.parts]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    return read
