from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import run, workload
from bench.files import write_test_video
from bench.measuring import Effort, Measured, Peaks, forget_peak_memory, measure, peak_memory_mib
from bench.report import COLUMNS, QUICK_WARNING
from bench.rows import Row
from bench.sampling import encoding_rows, extrapolate, pass_flops
from bench.training import TrainingLoop, ladder
from bench.workload import PAPER_STEPS, Bench, MadeClips, make_recipe
from divid.errors import ConfigError
from divid.models.divid import DividModel
from divid.video import read_video

BRIEF = Effort(seconds=0.0, min_runs=2, max_runs=2)


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    recipe = make_recipe(None, "tiny", "cpu", batch_size=None, is_quick=True)
    return Bench(recipe, "cpu", BRIEF, Peaks("cpu", BRIEF, 64, 1), tmp_path, tmp_path, is_quick=True, reference_steps=2)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What `python -m bench --quick` writes, the parts in processes of their own left to their own tests."""
    out = tmp_path_factory.mktemp("bench")
    parts = "train,sample,data,encode,swap,scale,profile"
    assert run.main(["--quick", "--device", "cpu", "--only", parts, "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"speed.json", "speed.md", "profile.txt"}
    assert QUICK_WARNING in (out / "speed.md").read_text()
    return {**json.loads((out / "speed.json").read_text()), "markdown": (out / "speed.md").read_text()}


def test_flops_of_a_denoiser_pass_are_linear_in_its_frames(bench):
    model = bench.sampling_model("fp32")
    assert pass_flops(model, 6) == 3 * pass_flops(model, 2) > 0


def test_flops_of_a_larger_picture_grow_with_its_pixels(bench):
    """Convolutions do; attention to two tokens as well; self-attention and the time embedding are what is left."""
    from dataclasses import replace

    large = replace(bench.recipe, model=replace(bench.recipe.model, image_size=32)).resolve()
    assert 3.5 < pass_flops(bench.sampling_model("fp32", large), 2) / pass_flops(bench.sampling_model("fp32"), 2) < 8


def test_a_measurement_holds_the_middle_and_both_ends():
    calls = []
    measured = measure(lambda: calls.append(1), "cpu", Effort(seconds=0.0, min_runs=5, max_runs=9, num_warmups=2))
    assert len(calls) == 7
    assert measured.num_runs == 5
    assert 0 < measured.fastest <= measured.seconds <= measured.slowest


def test_peak_memory_sees_what_was_taken_and_given_back():
    forget_peak_memory("cpu")
    before = peak_memory_mib("cpu")
    with mmap.mmap(-1, 200 * 2**20) as taken:  # from the system: an allocator may still have what other tests gave back
        np.frombuffer(taken, dtype=np.uint8)[::4096].fill(1)
    assert peak_memory_mib("cpu") - before > 150


def test_extrapolation_scales_every_time():
    measured = extrapolate(Measured(2.0, 1.0, 3.0, 2, 10.0), 10, PAPER_STEPS)
    assert (measured.seconds, measured.fastest, measured.slowest) == (200.0, 100.0, 300.0)


def test_a_row_is_told_by_its_unit(bench):
    reference = bench.row("x", "plain", Measured(8.0, 8.0, 8.0, 1, 1.0), "clip", 4)
    row = bench.row("x", "quick", Measured(1.0, 0.5, 2.0, 3, 1.0), "clip", 2, reference=reference, flops=1e3)
    assert (reference.seconds, reference.ratio, reference.reference) == (2.0, 1.0, "")
    assert (row.seconds, row.fastest, row.slowest, row.flops) == (0.5, 0.25, 1.0, 500.0)
    assert (row.ratio, row.reference) == (4.0, "plain")
    assert row.peak_share == pytest.approx(1e3 / bench.peaks.flops_per_second("fp32"))


@pytest.mark.parametrize(("has_units", "expected"), [(True, ("fp32", "bf16")), (False, ("fp32",))])
def test_nothing_is_sampled_in_a_precision_that_is_only_emulated(bench, monkeypatch, has_units, expected):
    monkeypatch.setattr(workload, "has_bf16_units", lambda device: has_units)
    assert bench.sampling_precisions == expected
    assert {row.precision for row in encoding_rows(bench)} == set(expected)


@pytest.mark.slow
def test_every_part_is_there(results):
    assert {row["part"] for row in results["rows"]} == {"train", "sample", "data", "encode", "swap", "scale"}
    assert [profile["name"].split(",")[0] for profile in results["profiles"]] == ["training step", "sampling"]
    assert results["failures"] == []


@pytest.mark.slow
def test_every_row_is_complete(results):
    for row in results["rows"]:
        assert set(row) == {field.name for field in fields(Row)}
        assert 0 < row["fastest"] <= row["seconds"] <= row["slowest"] < math.inf
        assert row["num_runs"] >= 1 and row["peak_memory_mib"] > 0
    assert {"date", "device_name", "threads", "torch", "commit"} <= set(results["machine"])
    assert results["peaks"]["flops_per_second"]["fp32"] > 0 < results["peaks"]["bytes_per_second"]["fp32"]


@pytest.mark.slow
def test_ratios_are_reference_over_measured(results):
    rows = {(row["part"], row["name"]): row for row in results["rows"]}
    for row in results["rows"]:
        reference = rows[row["part"], row["reference"] or row["name"]]
        assert reference["reference"] == ""
        assert row["ratio"] == pytest.approx(reference["seconds"] / row["seconds"])


@pytest.mark.slow
def test_shares_of_the_peak_are_possible(results):
    shares = [row["peak_share"] for row in results["rows"] if row["peak_share"] is not None]
    assert {row["part"] for row in results["rows"] if row["peak_share"] is not None} == {
        "train", "sample", "data", "encode", "scale",
    }  # fmt: skip
    assert all(0 < share < 1.2 for share in shares)


@pytest.mark.slow
def test_the_references_are_those_that_are_promised(results):
    references = {row["part"]: row for row in results["rows"] if not row["reference"] and row["part"] != "scale"}
    assert references["train"]["precision"] == "fp32" and "all frames" in references["train"]["name"]
    assert references["sample"]["note"] == f"extrapolated from {run.QUICK_REFERENCE_STEPS} of {PAPER_STEPS} steps"
    assert references["swap"]["note"] == references["sample"]["note"]
    per_step = references["sample"]["flops"] / PAPER_STEPS
    two = next(row for row in results["rows"] if row["name"] == "dpmsolver++, 2 steps" and row["part"] == "sample")
    assert two["flops"] == pytest.approx(2 * per_step)
    train = [row["flops"] for row in results["rows"] if row["part"] == "train"]
    assert train[0] > train[1] > train[2] == train[-1], "other blocks, then fewer frames"


@pytest.mark.slow
def test_profiles_hold_the_largest_operations_first(results):
    for profile in results["profiles"]:
        shares = [operation["share"] for operation in profile["operations"]]
        assert shares == sorted(shares, reverse=True)
        assert 0.3 < sum(shares) <= 1.0001
        assert profile["busy_share"] is None


@pytest.mark.slow
def test_markdown_has_every_row(results):
    lines = results["markdown"].splitlines()
    assert f"| {' | '.join(COLUMNS)} |" in lines
    num_parts = len({row["part"] for row in results["rows"]})
    assert sum(line.startswith("| ") for line in lines) == len(results["rows"]) + 2 * num_parts


def test_a_part_that_fails_is_one_line_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    def fails(bench: Bench) -> Iterator[Row]:
        yield bench.row("sample", "before", Measured(1.0, 1.0, 1.0, 1, 1.0), "clip", 1)
        raise RuntimeError("no room\nat all")

    def works(bench: Bench) -> Iterator[Row]:
        yield bench.row("swap", "after", Measured(1.0, 1.0, 1.0, 1, 1.0), "swap", 1)

    monkeypatch.setitem(run.PARTS, "sample", fails)
    monkeypatch.setitem(run.PARTS, "swap", works)
    assert run.main(["--quick", "--device", "cpu", "--precision", "fp32", "--only", "sample,swap", "--out", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if "failed" in line] == ["bench: sample failed: RuntimeError: no room at all"]
    found = json.loads((tmp_path / "speed.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["before", "after"]
    assert found["failures"] == [{"part": "sample", "reason": "RuntimeError: no room at all"}]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "trian"], "did you mean 'train'"),
        (["--only", "long"], "add for example --frames"),
        (["--frames", "ten"], "whole numbers"),
        (["--frames", "1"], "2 frames or more"),
        (["--steps", "0"], "between 1 and 1000"),
        (["--threads", "0"], "at least 1"),
        (["--model", "/nowhere"], "no model"),
    ],
)
def test_wrong_options_are_one_line(tmp_path, capsys, words, message):
    quick = ["--quick", "--device", "cpu", "--precision", "fp32", "--out", str(tmp_path / "out")]
    assert run.main([*quick, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("bench: error: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "value"),
    [([], "off"), (["--compile", "on"], "on"), (["--compile", "off"], "off"), (["--compile", "graphs"], "graphs")],
)
def test_compiling_can_be_asked_for_or_left_out(tmp_path, words, value):
    quick = ["--quick", "--device", "cpu", "--precision", "fp32", "--out", str(tmp_path / "out")]
    measured = run.make_bench(run.make_parser().parse_args([*quick, *words]), tmp_path)
    last = ladder(measured)[-1]
    assert last.compile == value
    assert ("compiled" in last.name) == (value == "on")
    assert ("as CUDA graphs" in last.name) == (value == "graphs")


def test_the_plain_way_on_a_cpu_has_the_blocks_of_diffusers(bench):
    modules = [
        {type(module).__module__.split(".")[0] for module in TrainingLoop(bench, setup).model.denoiser.unet.modules()}
        for setup in ladder(bench)[:2]
    ]
    assert modules == [{"diffusers", "torch"}, {"diffusers", "torch", "divid"}]


def test_a_recipe_of_another_method_is_refused():
    with pytest.raises(ConfigError, match="measures the method divid"):
        make_recipe("dbse", "tiny", "cpu", batch_size=None, is_quick=False)


def test_a_recipe_keeps_its_model_and_loses_what_varies():
    recipe = make_recipe("utd-mhad-cpu", "tiny", "cpu", batch_size=2, image_size=64)
    assert recipe.model.channels == 1 and recipe.training.batch_size == 2
    assert recipe.data.min_frames == recipe.data.frames_per_sequence
    clips = MadeClips(recipe, 3)
    assert clips.frames(1).shape == (clips.num_frames(1), 64, 64, 1)


def test_a_test_video_has_the_length_that_was_asked_for(tmp_path):
    write_test_video(tmp_path / "long.mp4", 230, 32)
    frames, _ = read_video(tmp_path / "long.mp4")
    assert frames.shape == (230, 32, 32, 3)
    assert (frames[0] != frames[120]).any()


@pytest.mark.slow
def test_long_swaps_and_processes_report_their_own(bench):
    bench.long_frames, bench.long_steps, bench.long_size = (6, 12), 1, 16
    rows = [*run.PARTS["long"](bench), *run.PARTS["processes"](bench)]
    assert [row.reference == "" for row in rows] == [True, False, True, False]
    assert all(row.seconds > 0 and row.peak_memory_mib > 50 for row in rows)
    assert not (bench.folder / "12.mp4").exists()


@pytest.mark.slow
def test_a_process_that_fails_is_named(bench, tmp_path):
    bench.long_frames, bench.model_folder = (6,), tmp_path / "nowhere"
    with pytest.raises(Exception, match=r"the swap of 6\.mp4 ended with exit code 1: .*nowhere"):
        list(run.PARTS["long"](bench))


def test_models_are_equal_for_reference_and_measured(bench):
    first, second = bench.new_model(), bench.new_model()
    assert isinstance(first, DividModel)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
