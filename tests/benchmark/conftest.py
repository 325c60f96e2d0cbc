"""Labelled clips, the tiny methods, and a finished benchmark."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from small_plans import SMALL_METHODS, write_plan

from divid.benchmark.cells import BenchmarkFolder
from divid.benchmark.plan import cells_of, load_plan
from divid.benchmark.report import write_report
from divid.benchmark.runner import check_plan, run_cells
from divid.methods import METHODS
from labelled_clips import prepare_clips


@pytest.fixture(autouse=True, scope="package")
def small_methods():
    """Register the tiny methods while these tests run."""
    METHODS.update(SMALL_METHODS)
    yield
    for name in SMALL_METHODS:
        METHODS.pop(name, None)


@pytest.fixture(autouse=True)
def heard(caplog):
    """Hear what the package says."""
    caplog.set_level(logging.INFO, logger="divid")


@pytest.fixture(scope="session")
def clips_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("benchmark-clips")
    return prepare_clips(root / "recordings", root / "set", absent=[(0, 1), (2, 2)])


def make(plan_file, out):
    """Run a plan in this process as the command does."""
    plan = load_plan(plan_file)
    cells, folder = cells_of(plan), BenchmarkFolder(Path(out))
    check_plan(plan, cells, folder)
    summary = run_cells(plan, cells, folder, device="cpu", command="divid benchmark made-up", progress=False)
    write_report(plan, cells, folder)
    return summary


@pytest.fixture(scope="session")
def run_plan():
    return make


@pytest.fixture(scope="package")
def finished(small_methods, clips_folder, tmp_path_factory):
    """A benchmark of two trained methods and one that samples from the first one's model, with two seeds: (plan, folder)."""
    root = tmp_path_factory.mktemp("finished")
    methods = {
        "tiny": {"label": "Tiny"},
        "fast": {"method": "tiny", "set": {"training.learning_rate": 0.1}},
        "few-steps": {"model_of": "tiny", "set": {"sampling.num_inference_steps": 1}},
    }
    plan = write_plan(root, {"made": clips_folder}, methods=methods, seeds=(0, 1))
    make(plan, root / "out")
    return plan, BenchmarkFolder(root / "out")
