"""A method and clips so small that a training step takes a millisecond."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny import CLIPS_FOLDER, install, tiny_recipe

from divid.recipes import dump_recipe
from divid.training.fit import train

TINY = Path(__file__).parent / "tiny.py"


@pytest.fixture
def data(monkeypatch, tmp_path):
    """Put the tiny method and clips in the place of the real ones; gives the data set to name."""
    install(monkeypatch.setattr)
    folder = tmp_path / CLIPS_FOLDER
    folder.mkdir()
    (folder / "train.parquet").write_bytes(b"tiny")
    return folder


@pytest.fixture
def fit(data, tmp_path):
    """Train the tiny recipe with changes, in this process."""

    def run(name="run", resume=False, **changes):
        return train(tiny_recipe(**changes), [data], tmp_path / name, resume=resume, device="cpu", progress=False)

    return run


@pytest.fixture
def start(data, tmp_path, start_process):
    """Start `divid train` on the tiny clips as a process of its own."""
    numbers = itertools.count()

    def run(recipe, out, *words, delay=0.0, **environment):
        file = tmp_path / f"recipe-{next(numbers)}.yaml"
        file.write_text(dump_recipe(recipe))
        command = [TINY, "--config", file, "--data", data, "--out", out, "--device", "cpu", *words]
        return start_process(command, {"TINY_DELAY": str(delay), **environment})

    return run
