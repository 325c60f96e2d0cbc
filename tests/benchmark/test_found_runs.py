"""A run of `divid train` that was put into a cell is taken if it is what the cell would train, and refused otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_plans import write_plan

from divid.benchmark.cells import BenchmarkFolder
from divid.errors import ConfigError, TrainingError
from divid.recipes import load_recipe
from divid.training.fit import train
from labelled_clips import prepare_clips

CELL = "made/tiny/seed-0"
QUIET = {"leakage": False}


def put_run(root: Path, data: Path, changes=None) -> tuple[Path, Path]:
    """Write a plan of one cell, and train into its folder by the plan's recipe or another; give (plan, out)."""
    plan = write_plan(root, {"made": data}, methods={"tiny": {}}, evaluation=QUIET)
    recipe = load_recipe(str(root / "recipe.yaml"), {"seed": 0, **(changes or {})}).resolve()
    run = BenchmarkFolder(root / "out").cell(CELL).run
    run.parent.mkdir(parents=True)
    train(recipe, [data], run, device="cpu", progress=False)
    return plan, root / "out"


def test_a_run_of_the_cells_recipe_is_taken_as_it_is(clips_folder, run_plan, tmp_path):
    shown = {"training.log_every_steps": 3, "sampling.num_inference_steps": 3}
    plan, out = put_run(tmp_path, clips_folder, shown)
    cell = BenchmarkFolder(out).cell(CELL)
    before = {path: path.stat().st_mtime_ns for path in cell.run.rglob("*") if path.is_file()}
    assert run_plan(plan, out).done == [CELL]
    assert {path: path.stat().st_mtime_ns for path in cell.run.rglob("*") if path.is_file()} == before
    assert cell.read_result()["training"]["steps"] == 6
    assert cell.read_result()["sampling"]["num_inference_steps"] == 2  # the plan's
    assert run_plan(plan, out).done == [CELL]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"training.learning_rate": 0.5}, r"training.learning_rate \(0.5 then, 0.01 now\)"),
        ({"seed": 3}, r"seed \(3 then, 0 now\)"),
        ({"training.num_steps": 4}, r"training.num_steps \(4 then, 6 now\)"),
    ],
)
def test_a_run_of_another_recipe_is_named_before_any_work(clips_folder, run_plan, tmp_path, changes, named):
    plan, out = put_run(tmp_path, clips_folder, changes)
    with pytest.raises(ConfigError, match=rf"run is not what the cell {CELL} would train: {named}; remove it"):
        run_plan(plan, out)
    folder = BenchmarkFolder(out)
    assert folder.cell(CELL).has_model
    assert not folder.plan.exists()


def test_a_run_on_other_clips_is_refused(clips_folder, run_plan, tmp_path):
    other = prepare_clips(tmp_path / "recordings", tmp_path / "set", absent=[(1, 1)])
    plan, out = put_run(tmp_path / "bench", other)
    plan.write_text(plan.read_text().replace(str(other), str(clips_folder)))
    with pytest.raises(ConfigError, match="the clips that it was trained on"):
        run_plan(plan, out)


@pytest.mark.parametrize(("name", "text"), [("run.json", None), ("run.json", "{"), ("recipe.yaml", None)])
def test_a_run_that_lacks_what_it_depended_on_is_refused(clips_folder, run_plan, tmp_path, name, text):
    plan, out = put_run(tmp_path, clips_folder)
    path = BenchmarkFolder(out).cell(CELL).run / name
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises((ConfigError, TrainingError), match=name):
        run_plan(plan, out)


def test_a_run_without_fingerprints_is_refused(clips_folder, run_plan, tmp_path):
    plan, out = put_run(tmp_path, clips_folder)
    path = BenchmarkFolder(out).cell(CELL).run / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "data": "none"}))
    with pytest.raises(TrainingError, match=r"run\.json is damaged"):
        run_plan(plan, out)
