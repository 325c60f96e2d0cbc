"""Benchmarks of several processes, and of one that is killed."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import time

import pytest
from small_plans import SCRIPT, write_plan

from divid.benchmark.cells import BenchmarkFolder
from divid.training.metrics import read_metrics


@pytest.fixture
def start(tmp_path, start_process):
    """Start `divid` with the tiny methods as a process of its own."""
    numbers = itertools.count()

    def run(*words, delay=0.0, **environment):
        path = tmp_path / f"log-{next(numbers)}"
        settings = {"TINY_DELAY": str(delay), "PYTHONUNBUFFERED": "1", **environment}
        with path.open("w") as log:
            process = start_process([SCRIPT, *words], settings, stdout=log, stderr=subprocess.STDOUT)
        process.log = path.read_text
        return process

    return run


def done_lines(text):
    return re.findall(r"cell (\S+): done", " ".join(text.split()))


@pytest.mark.slow
def test_two_processes_share_a_folder_and_make_each_cell_once(start, clips_folder, tmp_path):
    plan = write_plan(tmp_path, {"made": clips_folder}, seeds=(0, 1, 2), evaluation={"leakage": False})
    words = ["benchmark", plan, "--out", tmp_path / "out", "--device", "cpu"]
    both = [start(*words, delay=0.05, BARRIER=str(tmp_path / "barrier")) for _ in range(2)]
    assert [process.wait(timeout=240) for process in both] == [0, 0], [process.log() for process in both]
    made = [done_lines(process.log()) for process in both]
    assert all(made)
    folder = BenchmarkFolder(tmp_path / "out")
    names = {f"made/{method}/seed-{seed}" for method in ("tiny", "fast") for seed in (0, 1, 2)}
    assert sorted(made[0] + made[1]) == sorted(names)
    by = {name: folder.cell(name).read_result()["made"]["process"] for name in names}
    assert {name for name, pid in by.items() if pid == both[0].pid} == set(made[0])
    assert sum(process.log().count("judge of made: training") for process in both) == 1
    report = json.loads((folder.path / "benchmark.json").read_text())
    assert {cell["state"] for cell in report["cells"].values()} == {"done"}
    assert list(folder.path.rglob("*lock*")) == []


@pytest.mark.slow
def test_a_killed_benchmark_goes_on_at_its_cell_and_its_checkpoint(start, finished, run_plan, clips_folder, tmp_path, caplog):
    changes = {"checkpoint_minutes": 0.0, "num_steps": 6}
    methods = {"tiny": {}, "fast": {"method": "tiny", "set": {"training.learning_rate": 0.1}}}
    plan = write_plan(tmp_path, {"made": clips_folder}, methods=methods, **changes)
    folder = BenchmarkFolder(tmp_path / "out")
    first, second = folder.cell("made/tiny/seed-0"), folder.cell("made/fast/seed-0")
    process = start("benchmark", plan, "--out", folder.path, "--device", "cpu", delay=0.5)
    until = time.monotonic() + 240
    while len([row for row in read_metrics(second.run / "metrics.csv") if "train/total" in row]) < 3:
        assert process.poll() is None, process.log()
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert second.lock.exists()
    assert second.state() == ("open", "begun")
    before = first.result.read_bytes()
    summary = run_plan(plan, folder.path)
    assert summary.done == ["made/tiny/seed-0", "made/fast/seed-0"]
    assert first.result.read_bytes() == before
    assert re.search(r"going on from step [1-5]\b", caplog.text)
    assert f"cell made/fast/seed-0: taken over from process {process.pid}" in caplog.text
    unbroken = finished[1].cell("made/fast/seed-0")
    again, before = second.read_result(), unbroken.read_result()
    assert again["swaps"]["rows"] == before["swaps"]["rows"]
    assert again["psnr_db"]["model"] == pytest.approx(before["psnr_db"]["model"], rel=1e-5)
    losses = [
        [row["train/total"] for row in read_metrics(cell.run / "metrics.csv") if "train/total" in row]
        for cell in (second, unbroken)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert len(losses[0]) == 6


@pytest.mark.slow
def test_a_signal_stops_the_whole_benchmark_with_a_checkpoint(start, clips_folder, tmp_path):
    plan = write_plan(tmp_path, {"made": clips_folder}, evaluation={"leakage": False})
    cell = BenchmarkFolder(tmp_path / "out").cell("made/tiny/seed-0")
    process = start("benchmark", plan, "--out", tmp_path / "out", "--device", "cpu", delay=0.5)
    until = time.monotonic() + 240
    while not read_metrics(cell.run / "metrics.csv"):
        assert process.poll() is None, process.log()
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert (cell.run / "checkpoints" / "last.ckpt").is_file()
    assert not cell.lock.exists()
    said = " ".join(process.log().split())
    assert said.endswith(
        "divid: error: cell made/tiny/seed-0: stopped by SIGTERM, a checkpoint is saved: go on with the same command"
    )
