"""What the jobs for a machine with a GPU reckon, where that needs no GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from divid.recipes import dump_recipe, load_recipe

JOBS = Path(__file__).resolve().parents[1] / "gpu"


@pytest.fixture
def trial(tmp_path):
    """A run that logged 40 clips a second once it was warm, at 8 clips a step."""
    (tmp_path / "recipe.yaml").write_text(dump_recipe(load_recipe("puppets-cpu").resolve()))

    def write(speeds):
        rows = [f"{step},{speed}" for step, speed in enumerate(speeds, start=1)]
        (tmp_path / "metrics.csv").write_text("\n".join(["step,speed/clips_per_second", *rows]) + "\n")
        return tmp_path

    return write


def steps(trial, minutes):
    command = [sys.executable, JOBS / "steps_in_time.py", trial, str(minutes)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_steps_are_those_that_the_warm_speed_leaves_time_for(trial):
    result = steps(trial([2, 30, 39, 40, 41, 40]), 10)
    assert int(result.stdout) == int(0.93 * 10 * 60 * 40 / 8)


def test_too_short_a_trial_says_so(trial):
    result = steps(trial([40]), 10)
    assert result.returncode == 1
    assert "give the trial more time" in result.stderr


@pytest.mark.parametrize("job", ["train.sh", "table.sh", "bench.sh", "check.sh"])
def test_jobs_are_shell_scripts_that_can_be_started(job):
    assert os.access(JOBS / job, os.X_OK)
    assert subprocess.run(["bash", "-n", JOBS / job], check=False).returncode == 0


def test_training_without_data_says_where_they_come_from(tmp_path):
    environment = {**os.environ, "DATA": str(tmp_path / "none"), "OUT": str(tmp_path / "out"), "PYTHON": sys.executable}
    result = subprocess.run([JOBS / "train.sh", "puppets"], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "see gpu/QUEUE.md" in result.stderr
