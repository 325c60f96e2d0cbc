"""What every test has: checked types, fixed seeds, no network, no window.

Shapes and types in the signatures of `divid` are checked at every call while tests run; outside of tests they cost nothing.
`DIVID_TYPECHECK=0` switches that off, which tests of `torch.compile` need.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "2")

if os.environ.get("DIVID_TYPECHECK", "1") != "0":
    # Before the first import of divid: the hook rewrites modules as they are loaded.
    from jaxtyping import install_import_hook

    install_import_hook("divid", "checked_types.checked")

import numpy as np
import pytest
import torch

from warm_processes import WarmProcess

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where there is none."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Seed the global generators, which nothing in divid should draw from."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the working tree."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder with real recordings (utd-mhad, weizmann, sprites, faces94), named by DIVID_DATA."""
    folder = os.environ.get("DIVID_DATA")
    if not folder:
        pytest.skip("real recordings: set DIVID_DATA to the folder that holds utd-mhad, weizmann, sprites and faces94")
    return Path(folder)


@pytest.fixture(autouse=True)
def logger_as_before() -> Iterator[None]:
    """Undo what a command, in a test or in a fixture of a module, does to the package's logger: other tests listen to it."""
    _reset_logger()
    yield
    _reset_logger()


@pytest.fixture(scope="session")
def feature_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the smaller feature network, in a file."""
    from safetensors.torch import save_file

    from divid.models.perceptual import EfficientNetLite0Features

    generator = torch.Generator().manual_seed(0)
    state = EfficientNetLite0Features().state_dict()
    random = {name: torch.rand(x.shape, generator=generator) * 0.1 + 0.01 for name, x in state.items() if x.is_floating_point()}
    path = tmp_path_factory.mktemp("weights") / "lite0.safetensors"
    save_file(random, path)
    return path


@pytest.fixture
def start_process() -> Iterator[Callable[..., WarmProcess]]:
    """Start Python scripts as processes of their own, one thread each; those still alive when the test ends are killed."""
    processes = []

    def start(command: Sequence[object], environment: Mapping[str, str], **options: Any) -> WarmProcess:
        settings = os.environ | {"OMP_NUM_THREADS": "1", **environment}
        process = WarmProcess([str(word) for word in command], settings, **options)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


_LOGGER = logging.getLogger("divid")
_AT_FIRST = (list(_LOGGER.handlers), _LOGGER.level, _LOGGER.propagate)


def _reset_logger() -> None:
    _LOGGER.handlers[:], level, _LOGGER.propagate = _AT_FIRST
    _LOGGER.setLevel(level)
