"""Solver settings where what each gives is known: methods that are right from so many steps on."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from divid.config import SamplingConfig
from divid.data.clips import ClipDataset
from divid.errors import ConfigError, ModelError
from divid.evaluation.pairs import PairList
from divid.evaluation.solvers import Setting, measure_solvers, parse_settings, plot_solvers, solver_table
from divid.types import Codes
from labelled_clips import NUM_FRAMES, Broken, CopyA, KnowingJudge, LabelCodes, judge_config, prepare_clips

SECONDS_A_STEP = 0.004


class RightFromTwoSteps(LabelCodes):
    """Swaps as it should, but with a single step does another action; every step takes its time."""

    def decode(self, codes, *, seeds, sampling, first_frame=0, callback=None):
        time.sleep(SECONDS_A_STEP * sampling.num_inference_steps)
        wrong = Codes(codes.static, (codes.dynamic + 1) % 3)
        return super().decode(codes if sampling.num_inference_steps > 1 else wrong, seeds=seeds)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp("solved")
    return ClipDataset.open(prepare_clips(root / "recordings", root / "set"), split="test")


@pytest.fixture(scope="module")
def pairs(clips):
    return PairList.draw(clips, 30)


def settings(*texts, model="model"):
    return parse_settings(texts, model, SamplingConfig())


def measure(models, chosen, clips, pairs, **options):
    return measure_solvers(models, chosen, clips, pairs, num_frames=NUM_FRAMES, **options)


def test_settings_are_read():
    read = settings("ddpm:200", "dpmsolver++:1,4@trailing")
    assert [(setting.model, setting.sampling) for setting in read] == [
        ("model", SamplingConfig(solver="ddpm", num_inference_steps=200)),
        ("model", SamplingConfig(solver="dpmsolver++", num_inference_steps=1, spacing="trailing")),
        ("model", SamplingConfig(solver="dpmsolver++", num_inference_steps=4, spacing="trailing")),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ddmp:3", "no solver 'ddmp'"),
        ("ddpm", "write SOLVER:STEPS"),
        ("ddpm:a", "write SOLVER:STEPS"),
        ("ddpm:", "write SOLVER:STEPS"),
        ("ddpm:0", "num_inference_steps is 0"),
        ("ddim:4@", "no spacing ''"),
        ("ddim:4@even", "no spacing 'even', only trailing and power"),
    ],
)
def test_bad_settings_are_named(text, message):
    with pytest.raises(ConfigError, match=message):
        settings(text)


def test_time_accuracy_and_change_are_told_beside_the_first(clips, pairs):
    judge = KnowingJudge(judge_config(clips))
    chosen = [*settings("ddpm:20", "ddim:2,1"), *settings("ddim:5", model="copy")]

    class Copy(CopyA):
        def decode(self, codes, *, seeds, sampling, first_frame=0, callback=None):
            return super().decode(codes, seeds=seeds)

    rows = measure({"model": RightFromTwoSteps(), "copy": Copy()}, chosen, clips, pairs, judge=judge)
    assert [row.accuracies["joint"].rate for row in rows] == [1.0, 1.0, 0.0, 0.0]
    assert [row.accuracies["static"].rate for row in rows] == [1.0] * 4
    assert [row.change[0] for row in rows] == [0.0, 0.0, -1.0, -1.0]
    assert rows[1].change[1] < 0 < rows[1].change[2]
    assert rows[2].change[2] < -0.6
    assert rows[0].seconds >= 20 * SECONDS_A_STEP / 16
    assert rows[0].speedup == 1
    assert rows[1].speedup > 3
    assert rows[1].speedup == pytest.approx(rows[0].seconds / rows[1].seconds)


def test_reconstructions_have_their_psnr(clips, pairs):
    """Codes that are the labels give back every clip but for the trial's mark of 3 grey levels; another action is far off."""
    rows = measure({"model": RightFromTwoSteps()}, settings("ddim:2,1"), clips, pairs, num_clips=4)
    assert rows[0].psnr > 35
    assert rows[1].psnr < 15
    assert not rows[0].accuracies
    assert rows[0].change is None


def test_every_setting_has_the_same_seeds(clips, pairs):
    model = LabelCodes()
    measure({"model": model}, settings("ddim:1,2"), clips, pairs, num_clips=3, seed=7)
    half = len(model.seen_seeds) // 2
    assert model.seen_seeds[:half] == model.seen_seeds[half:] == [*range(7, 10), *range(7, 7 + len(pairs))]


def test_values_that_are_no_numbers_end_it(clips, pairs):
    with pytest.raises(ModelError, match="model ddim 2"):
        measure({"model": Broken()}, settings("ddim:2"), clips, pairs, num_clips=3)


def test_nothing_to_measure(clips, pairs):
    with pytest.raises(ConfigError, match="no solver"):
        measure({}, [], clips, pairs)


def test_table_and_curves(clips, pairs, tmp_path):
    judge = KnowingJudge(judge_config(clips))
    rows = measure({"model": RightFromTwoSteps()}, settings("ddpm:4", "ddim:1"), clips, pairs, judge=judge)
    header, cells = solver_table(rows)
    assert {len(line) for line in cells} == {len(header)}
    assert [line[header.index("spacing")] for line in cells] == ["trailing", "power"]
    assert cells[0][header.index("joint %")] == "100.0"
    assert cells[0][-1] == ""
    assert cells[1][-1].startswith("-100.0 (-100.0 to ")
    plot_solvers([*rows, replace(rows[0], frechet=None)], tmp_path / "curves.png", "title")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > picture.height
        assert np.asarray(picture.convert("L")).std() > 5
    values = rows[1].to_dict()
    assert (values["model"], values["solver"], values["steps"], values["frechet"]) == ("model", "ddim", 1, None)
    assert math.isclose(values["joint_change"][0], -1)


def test_names_hold_model_solver_steps_and_spacing():
    sampling = SamplingConfig(solver="consistency", num_inference_steps=2, spacing="trailing")
    assert Setting("student", sampling).name == "student consistency 2, trailing"
