"""Which run is sooner at a reference's loss: by hand-made curves, and from run folders."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from bench.curves import Curve, compare, main, read_curve
from divid.errors import InputError

SLOW = Curve("slow", [10, 20, 40], [0.9, 0.5, 0.2], seconds_a_step=6.0, clips_a_step=4)
FAST = Curve("fast", [10, 20, 40], [0.4, 0.2, 0.1], seconds_a_step=1.5, clips_a_step=8)


def write_run(folder, curve, recipe="method: divid\nmodel: {preset: tiny}\ntraining: {batch_size: %d}\n"):
    folder.mkdir()
    (folder / "recipe.yaml").write_text(recipe % curve.clips_a_step)
    lines = ["step,train/simple,speed/clips_per_second,validation/simple"]
    for step, loss in zip(curve.steps, curve.losses, strict=True):
        lines += [f"{step},{loss},{curve.clips_a_step / curve.seconds_a_step},", f"{step},,,{loss}"]
    lines.append(f"{curve.steps[-1]},0.1,{curve.clips_a_step / curve.seconds_a_step / 100},")  # a row that held a validation
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_time_and_clips_until_the_references_loss():
    reference, fast = compare(SLOW, [FAST])
    assert reference["minutes_to_reference"] == reference["minutes_in_all"] == 4.0
    assert (fast["minutes_to_reference"], fast["clips_to_reference"]) == (0.5, 160)
    assert fast["share_of_reference_time"] == pytest.approx(1 / 8)


def test_a_reference_that_had_its_last_loss_before_counts_until_then():
    wavering = Curve("wavering", [10, 20, 30, 40], [0.9, 0.15, 0.3, 0.2], seconds_a_step=6.0, clips_a_step=4)
    reference, fast = compare(wavering, [FAST])
    assert (reference["minutes_to_reference"], reference["minutes_in_all"]) == (2.0, 4.0)
    assert fast["share_of_reference_time"] == pytest.approx(0.25)


def test_a_reference_that_ends_with_no_number_is_refused():
    with pytest.raises(InputError, match="slow ends with a loss of nan: give a reference"):
        compare(replace(SLOW, losses=[0.9, 0.5, float("nan")]), [FAST])


def test_a_loss_that_was_not_reached_is_none():
    assert compare(FAST, [SLOW])[1]["share_of_reference_time"] is None


def test_from_run_folders(tmp_path, capsys):
    slow, fast = (write_run(tmp_path / curve.name, curve) for curve in (SLOW, FAST))
    assert read_curve(slow) == SLOW
    assert main(["--reference", str(slow), str(fast), str(slow), "--out", str(tmp_path / "out")]) == 0
    assert [row["share_of_reference_time"] for row in json.loads((tmp_path / "out/curves.json").read_text())["runs"]] == [
        1,
        0.125,
        1,
    ]
    assert "| fast | 1.500 | 1.0 | 0.10000 | 0.5 min, 160 clips | 12 % |" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "curves.png") as picture:
        assert picture.width > picture.height


def test_runs_that_cannot_be_read_are_named(tmp_path, capsys):
    assert main(["--reference", str(tmp_path), str(tmp_path)]) == 2
    assert "is no training run" in capsys.readouterr().err
    run = write_run(tmp_path / "run", SLOW)
    (run / "metrics.csv").write_text("step,train/simple\n1,0.5\n")
    assert main(["--reference", str(run), str(run)]) == 2
    assert "validate_every_steps" in capsys.readouterr().err
