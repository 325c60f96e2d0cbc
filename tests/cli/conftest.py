"""A model folder and clips for the commands' tests."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from divid.cli.main import main
from divid.config import ModelConfig, SamplingConfig
from divid.export import save_model
from divid.model_parts import DenoiserConfig, EncoderConfig, TokenConfig
from divid.models.divid import DividModel
from divid.video import write_video


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained model, saved."""
    config = ModelConfig(
        image_size=16,
        frames_per_sequence=5,
        encoder=EncoderConfig(base_channels=8, multipliers=(1, 2), static_hidden=16, lstm_hidden=16, attention_heads=2),
        tokens=TokenConfig(static_dim=16, dynamic_dim=8),
        denoiser=DenoiserConfig(channels=(8, 16), attention_levels=(1,), attention_heads=2, attention_width=16, norm_groups=8),
    )
    folder = tmp_path_factory.mktemp("models") / "model"
    save_model(DividModel(config), SamplingConfig(num_inference_steps=2), folder, {"title": "Tiny"})
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a.mp4 (8 frames) and b.mp4 (12 frames)."""
    folder = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    for name, num_frames in (("a", 8), ("b", 12)):
        start = generator.integers(0, 255, (1, 24, 24, 3))
        ramp = np.arange(num_frames)[:, None, None, None] * 5
        write_video(folder / f"{name}.mp4", ((start + ramp) % 256).astype(np.uint8), 12.0)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def last_line(error: str) -> str:
    assert "Traceback" not in error
    lines = error.splitlines()
    assert [line for line in lines if line.startswith("divid: ")] == lines[-1:]
    assert lines[-1].startswith("divid: error: ")
    return lines[-1]


@pytest.fixture
def refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Run a command that must fail; with `is_logged`, messages may come before the error, and new files may stay."""

    def run(words: Sequence[object], message: str, *, is_logged: bool = False) -> None:
        before = contents(tmp_path)
        capfd.readouterr()
        assert main([str(word) for word in words]) == 2
        error = capfd.readouterr().err
        assert re.search(message, last_line(error)), error
        assert is_logged or error.count("\n") == 1, error
        after = contents(tmp_path)
        assert {name: after.get(name) for name in before} == before
        assert is_logged or after.keys() == before.keys()

    return run


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last step of each write meets a full disk."""

    def replace(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))

    monkeypatch.setattr(os, "replace", replace)
