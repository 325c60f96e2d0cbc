"""Cells are made once, fail alone, and go on where they stopped."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest
from PIL import Image
from small_plans import write_plan

from divid.benchmark import runner as runner_module
from divid.benchmark import scoring as scoring_module
from divid.benchmark.cells import BenchmarkFolder
from divid.benchmark.plan import cells_of, load_plan
from divid.benchmark.report import MARK
from divid.benchmark.runner import check_plan
from divid.data.prepare import prepare
from divid.data.sources import SourceOptions
from divid.errors import ConfigError, MissingExtraError, ModelError
from divid.evaluation.judge import Judge
from divid.evaluation.leakage import DIRECTIONS
from divid.evaluation.pairs import PairList
from divid.json_files import write_json
from labelled_clips import prepare_clips
from made_data import make_set

ONE = {"tiny": {}}


def errors(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def results(folder):
    return {path: path.read_bytes() for path in folder.path.rglob("result.json")}


def test_every_cell_has_its_numbers_and_how_they_were_made(finished):
    plan, folder = finished
    assert len(results(folder)) == 6
    for spec in cells_of(load_plan(plan)):
        result = folder.cell(spec.name).read_result()
        assert (result["cell"], result["method"], result["seed"]) == (spec.name, spec.method, spec.seed)
        assert result["swaps"]["num_pairs"] == 12
        assert result["training"]["steps"] == 6
        assert result["training"]["seconds"] > 0
        assert result["sampling"]["seconds_per_clip"] > 0
        assert {"static", "dynamic", "joint"} <= result["swaps"]["rows"]["swap"].keys()
        assert set(result["leakage"]["directions"]) == set(DIRECTIONS)
        assert {"command", "git_commit", "machine", "versions", "began", "ended"} <= result["made"].keys()
        assert json.loads((folder.cell(spec.name).path / "swaps.json").read_text()) == result["swaps"]
        assert not folder.cell(spec.name).lock.exists()


def test_swaps_that_the_judge_did_not_accept_are_a_picture(finished):
    plan, folder = finished
    cells = [folder.cell(spec.name) for spec in cells_of(load_plan(plan))]
    failed = {cell.failed_swaps: len(cell.read_result()["swaps"]["failures"]) for cell in cells}
    assert any(failed.values())
    for path, count in failed.items():
        assert path.is_file() == (count > 0)
        if count:
            with Image.open(path) as picture:
                assert 0 < picture.height - 3 * count * (64 + 4) < 3 * (64 + 4)  # three rows a swap, and a title


def test_without_failures_there_is_no_picture_of_them(clips_folder, run_plan, tmp_path, monkeypatch):
    real = scoring_module.measure_swaps
    monkeypatch.setattr(scoring_module, "measure_swaps", lambda *args, **options: replace(real(*args, **options), failures=()))
    plan = write_plan(tmp_path, {"made": clips_folder}, methods=ONE, evaluation={"leakage": False})
    cell = BenchmarkFolder(tmp_path / "out").cell("made/tiny/seed-0")
    cell.path.mkdir(parents=True)
    cell.failed_swaps.write_bytes(b"of an earlier attempt")
    assert run_plan(plan, tmp_path / "out").done == ["made/tiny/seed-0"]
    assert not cell.failed_swaps.exists()
    assert "Failed swaps" not in (tmp_path / "out" / "benchmark.md").read_text()


def test_all_methods_have_one_judge_and_one_pair_list(finished):
    plan, folder = finished
    data = folder.data("made")
    assert not Judge.load(data.judge).is_trusted
    assert len(PairList.load(data.pairs)) == 12
    described = {json.dumps(folder.cell(spec.name).read_result()["swaps"]["judge"]) for spec in cells_of(load_plan(plan))}
    real = {json.dumps(folder.cell(spec.name).read_result()["swaps"]["rows"]["real"]) for spec in cells_of(load_plan(plan))}
    assert len(described) == len(real) == 1
    assert {path.name for path in data.judge.glob("*.png")} == {"confusion_subject.png", "confusion_action.png"}


def test_a_cell_that_takes_anothers_model_trains_none(finished):
    _, folder = finished
    assert not folder.cell("made/few-steps/seed-0").run.exists()
    few, full = (folder.cell(f"made/{name}/seed-0").read_result() for name in ("few-steps", "tiny"))
    assert few["training"] == full["training"]
    assert (few["sampling"]["num_inference_steps"], full["sampling"]["num_inference_steps"]) == (1, 2)


def test_samples_and_likeness_are_measured_where_they_are_asked_for(clips_folder, run_plan, tmp_path, feature_weights):
    asked = {"sampled": True, "realism": True, "realism_pairs": 4, "feature_weights": str(feature_weights)}
    plan = write_plan(tmp_path, {"made": clips_folder}, methods=ONE, evaluation=asked)
    assert run_plan(plan, tmp_path / "out").done == ["made/tiny/seed-0"]
    cell = BenchmarkFolder(tmp_path / "out").cell("made/tiny/seed-0")
    result = cell.read_result()
    assert "lite0.safetensors" in result["likeness"]["network"]
    assert result["likeness"]["frechet"]["swap"]["num_made_clips"] == 4
    assert {"static kept", "dynamic kept", "both sampled"} <= result["sampled"]["rows"].keys()
    for name in ("sampled", "likeness"):
        assert json.loads((cell.path / f"{name}.json").read_text()) == result[name]
    measures = json.loads((tmp_path / "out" / "benchmark.json").read_text())["data"]["made"]["methods"]["tiny"]["measures"]
    assert measures["ssim"]["mean"] == result["likeness"]["ssim"]["mean"]
    assert measures["frechet_clip"]["mean"] == result["likeness"]["frechet"]["swap"]["clip"]
    assert result["likeness"]["flicker"]["ratio"] is None  # where these clips are still they do not change at all
    assert "flicker_ratio" not in measures
    assert measures["dynamic kept"]["mean"] == result["sampled"]["rows"]["dynamic kept"]["dynamic"]["rate"]
    page = (tmp_path / "out" / "benchmark.md").read_text()
    assert f"| tiny {MARK} | {100 * measures['static kept']['mean']:.1f} (" in page
    assert f"| tiny | {measures['ssim']['mean']:.4f} (" in page
    assert "fitted afterwards" in page


def test_swaps_are_compared_with_their_ground_truth_where_the_data_can_show_it(clips_folder, run_plan, tmp_path):
    options = SourceOptions(image_size=16, channels=1, num_clips=16, num_looks=3, scenery="plain")
    prepare("puppets", None, tmp_path / "puppets", options=options, num_processes=1)
    sets = {"made": clips_folder, "puppets": tmp_path / "puppets"}
    plan = write_plan(tmp_path, sets, methods=ONE, evaluation={"ground_truth": True, "ground_truth_pairs": 3})
    run_plan(plan, tmp_path / "out")
    folder = BenchmarkFolder(tmp_path / "out")
    assert folder.cell("made/tiny/seed-0").read_result()["ground_truth"] is None
    result = folder.cell("puppets/tiny/seed-0").read_result()["ground_truth"]
    assert result["num_pairs"] == 3
    data = json.loads((tmp_path / "out" / "benchmark.json").read_text())["data"]
    measures = data["puppets"]["methods"]["tiny"]["measures"]
    assert measures["ground truth, swap"]["mean"] == result["psnr_db"]["swap"]["mean"]
    assert measures["nearest to the ground truth"]["mean"] == result["is_nearest"]["rate"]
    assert not any("ground truth" in name for name in data["made"]["methods"]["tiny"]["measures"])
    page = (tmp_path / "out" / "benchmark.md").read_text()
    assert page.count("### Ground truth") == 1
    assert f"| tiny | {result['psnr_db']['swap']['mean']:.2f} (" in page


def test_a_missing_feature_network_is_said_before_any_work(clips_folder, run_plan, tmp_path):
    asked = {"realism": True, "feature_weights": str(tmp_path / "none.pth")}
    plan = write_plan(tmp_path, {"made": clips_folder}, methods=ONE, evaluation=asked)
    with pytest.raises(ModelError, match=r"none\.pth"):
        run_plan(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_finished_is_not_made_again(finished, run_plan):
    plan, folder = finished
    before = results(folder)
    assert len(run_plan(plan, folder.path).done) == 6
    assert results(folder) == before


def test_a_cell_made_again_from_nothing_has_the_same_accuracies(finished, clips_folder, run_plan, tmp_path):
    _, folder = finished
    plan = write_plan(tmp_path, {"made": clips_folder}, methods=ONE)
    run_plan(plan, tmp_path / "out")
    again = BenchmarkFolder(tmp_path / "out").cell("made/tiny/seed-0").read_result()
    before = folder.cell("made/tiny/seed-0").read_result()
    for name in ("swaps", "leakage", "psnr_db", "parameters"):
        assert again[name] == before[name]


def test_a_plan_may_grow_but_not_change(clips_folder, run_plan, tmp_path):
    plan = write_plan(tmp_path, {"made": clips_folder}, methods=ONE, evaluation={"leakage": False})
    run_plan(plan, tmp_path / "out")
    before = results(BenchmarkFolder(tmp_path / "out"))
    write_plan(tmp_path, {"made": clips_folder}, methods=ONE, evaluation={"leakage": False}, learning_rate=0.5)
    with pytest.raises(ConfigError, match=r"cell made/tiny/seed-0 .*training.learning_rate \(0.01 then, 0.5 now\)"):
        run_plan(plan, tmp_path / "out")
    write_plan(tmp_path, {"made": clips_folder}, methods=ONE, evaluation={"leakage": False}, judge={"num_steps": 4})
    with pytest.raises(ConfigError, match=r"the judge of made .*judge.num_steps \(3 then, 4 now\)"):
        run_plan(plan, tmp_path / "out")
    write_plan(tmp_path, {"made": clips_folder}, methods=ONE, evaluation={"leakage": False}, seeds=(0, 1))
    assert len(run_plan(plan, tmp_path / "out").done) == 2
    assert before.items() <= results(BenchmarkFolder(tmp_path / "out")).items()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("nan-loss", "in step 3: the last good checkpoint is kept"),
        ("nan-swaps", "method nan-swaps gives values that are not numbers"),
    ],
)
def test_a_method_that_gives_nan_is_one_line_and_the_others_go_on(method, message, clips_folder, run_plan, tmp_path, caplog):
    methods = {method: {}, "tiny": {}}
    plan = write_plan(tmp_path, {"made": clips_folder}, methods=methods, evaluation={"leakage": False})
    caplog.clear()
    summary = run_plan(plan, tmp_path / "out")
    assert list(summary.failed) == [f"made/{method}/seed-0"]
    assert summary.done == ["made/tiny/seed-0"]
    assert len(errors(caplog)) == 1
    assert message in errors(caplog)[0]
    cell = BenchmarkFolder(tmp_path / "out").cell(f"made/{method}/seed-0")
    assert cell.state()[0] == "failed"
    assert message in (tmp_path / "out" / "benchmark.md").read_text()


def test_a_fault_of_ours_is_kept_with_its_trace_and_the_others_go_on(clips_folder, run_plan, tmp_path, monkeypatch):
    real = runner_module.score_cell

    def faulty(model, judge, clips, pairs, spec, *more):
        if spec.method == "tiny":
            raise RuntimeError("out of\nluck")
        return real(model, judge, clips, pairs, spec, *more)

    monkeypatch.setattr(runner_module, "score_cell", faulty)
    plan = write_plan(tmp_path, {"made": clips_folder}, evaluation={"leakage": False})
    summary = run_plan(plan, tmp_path / "out")
    assert summary.failed == {"made/tiny/seed-0": "internal error: RuntimeError: out of luck"}
    assert summary.done == ["made/fast/seed-0"]
    cell = BenchmarkFolder(tmp_path / "out").cell("made/tiny/seed-0")
    assert "in faulty" in json.loads(cell.failure.read_text())["traceback"]
    monkeypatch.undo()
    assert len(run_plan(plan, tmp_path / "out").done) == 2
    assert not cell.failure.exists()


def test_data_that_cannot_be_judged_are_one_line_and_the_others_go_on(clips_folder, run_plan, tmp_path, caplog):
    prepare_clips(tmp_path / "recordings", tmp_path / "labelled", num_trials=2)
    make_set(tmp_path / "recordings", tmp_path / "unlabelled", "folder")
    data = {"none": tmp_path / "unlabelled", "absent": tmp_path / "nothing", "made": clips_folder}
    plan = write_plan(tmp_path / "plan", data, seeds=(0, 1), evaluation={"leakage": False})
    caplog.clear()
    summary = run_plan(plan, tmp_path / "out")
    assert (len(summary.failed), len(summary.done)) == (8, 4)
    assert len(errors(caplog)) == 2
    assert "all cells on none fail: the clips have no static factor" in errors(caplog)[0]
    assert "all cells on absent fail" in errors(caplog)[1]
    assert not BenchmarkFolder(tmp_path / "out").cell("none/tiny/seed-0").run.exists()


def test_a_failed_model_fails_whoever_takes_it(clips_folder, run_plan, tmp_path):
    methods = {"taker": {"model_of": "nan-loss"}, "nan-loss": {}}
    summary = run_plan(write_plan(tmp_path, {"made": clips_folder}, methods=methods), tmp_path / "out")
    assert "the cell made/nan-loss/seed-0, whose model it takes, failed" in summary.failed["made/taker/seed-0"]


def test_a_cell_that_another_machine_holds_is_left_to_it(clips_folder, run_plan, tmp_path, caplog):
    plan = write_plan(tmp_path, {"made": clips_folder}, evaluation={"leakage": False})
    cell = BenchmarkFolder(tmp_path / "out").cell("made/tiny/seed-0")
    write_json(cell.lock, {"host": "another/pid:[1]", "pid": 7, "token": "theirs"})
    summary = run_plan(plan, tmp_path / "out")
    assert (summary.held, summary.done) == (["made/tiny/seed-0"], ["made/fast/seed-0"])
    assert "left open, process 7 on another works on it" in caplog.text
    assert "| made/tiny/seed-0 | held |" in (tmp_path / "out" / "benchmark.md").read_text()


def test_a_cell_that_failed_before_its_first_checkpoint_takes_a_mended_plan(clips_folder, run_plan, tmp_path):
    changes = {"methods": {"tiny": {"set": {"sampling.num_inference_steps": 1}}}, "evaluation": {"leakage": False}}
    plan = write_plan(tmp_path, {"made": clips_folder}, **{**changes, "methods": {"tiny": {"method": "nan-loss"}}})
    assert list(run_plan(plan, tmp_path / "out").failed) == ["made/tiny/seed-0"]
    write_plan(tmp_path, {"made": clips_folder}, **changes)
    assert run_plan(plan, tmp_path / "out").done == ["made/tiny/seed-0"]


def test_a_run_that_was_killed_while_it_laid_out_its_folder_begins_anew(clips_folder, run_plan, tmp_path):
    plan = write_plan(tmp_path, {"made": clips_folder}, methods=ONE, evaluation={"leakage": False})
    run = BenchmarkFolder(tmp_path / "out").cell("made/tiny/seed-0").run
    (run / "checkpoints").mkdir(parents=True)
    assert run_plan(plan, tmp_path / "out").done == ["made/tiny/seed-0"]


def test_leakage_without_scikit_learn_is_refused_before_any_work(clips_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(runner_module.importlib.util, "find_spec", lambda name: None)
    plan = load_plan(write_plan(tmp_path, {"made": clips_folder}, methods=ONE))
    with pytest.raises(MissingExtraError, match=r"evaluation\.leakage: false"):
        check_plan(plan, cells_of(plan), BenchmarkFolder(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
