"""A method and clips so small that a training step takes a millisecond."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny import CLIPS_FOLDER, install, tiny_recipe

from divid.recipes import dump_recipe
from divid.training.fit import train


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
def start(data, tmp_path):
    """Start `divid train` on the tiny clips as a process of its own."""
    processes = []

    def run(recipe, out, *words, delay=0.0):
        file = tmp_path / f"recipe-{len(processes)}.yaml"
        file.write_text(dump_recipe(recipe))
        script = Path(__file__).parent / "tiny.py"
        command = [
            sys.executable,
            str(script),
            "--config",
            str(file),
            "--data",
            str(data),
            "--out",
            str(out),
            "--device",
            "cpu",
            *words,
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TINY_DELAY": str(delay)}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield run
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()
