"""Ablations change what they say and nothing else; what a bias is worth has the right sign."""

from __future__ import annotations

import numpy as np
import pytest

from divid.benchmark.ablation import FULL, Variant, ablation_plan, variants_of
from divid.benchmark.numbers import worth_of
from divid.benchmark.plan import cells_of, dump_plan, load_plan
from divid.errors import ConfigError
from divid.recipes import flatten, load_recipe

EXPECTED = {
    "residual": {"model.tokens.use_residual": True},
    "shared-training-noise": {"model.diffusion.shared_training": True},
    "shared-sampling-noise": {"model.diffusion.shared_sampling": False},
    "scale-input": {"model.diffusion.scale_input": False},
    "cross-attention": {"model.denoiser.conditioning": "adagn"},
    "norms": {"model.denoiser.conditioning": "both"},
    "static-first": {"model.tokens.static_source": "first"},
    "static-average": {"model.tokens.static_source": "average"},
    "static-whole": {"model.tokens.static_source": "whole"},
    "bottleneck": {"model.bottleneck.kind": "none"},
    "bottleneck-channel": {"model.bottleneck.kind": "channel"},
    "bottleneck-start": {"model.bottleneck.start": 0.0},
    "dynamic-invariance": {"model.tokens.dynamic_invariance": 0.0},
    "static-invariance": {"model.tokens.static_invariance": 0.0},
    "static-invariance-frame": {"model.tokens.static_invariance_frame": "same"},
    "learning-rate-decay-start": {"training.learning_rate_decay_start": 0.0},
    "motion-augmentation-colours": {"model.tokens.motion_augmentation_colours": 0.0},
    "motion-augmentation-sideways": {"model.tokens.motion_augmentation_sideways": 0.0},
    "motion-augmentation-upwards": {"model.tokens.motion_augmentation_upwards": 0.0},
    "motion-augmentation-proportions": {"model.tokens.motion_augmentation_proportions": 0.0},
    "motion-augmentation-proportions-start": {"model.tokens.motion_augmentation_proportions_start": 0.0},
    "motion-augmentation-target": {"model.tokens.motion_augmentation_target": "sideways"},
    "timestep-shift": {"model.diffusion.timestep_shift": 1.0},
    "huber": {"model.diffusion.huber_width": 0.1},
    "static-flip": {"model.tokens.static_flip": 0.5},
    "motion-augmentation": {"model.tokens.motion_augmentation": 0.0},
    "motion-augmentation-start": {"model.tokens.motion_augmentation_start": 0.0},
    "motion-augmentation-ramp": {"model.tokens.motion_augmentation_ramp": 0.0},
    "back-translation": {"model.tokens.back_translation": 0.0},
    "back-translation-start": {"model.tokens.back_translation_start": 0.0},
    "data-augmentation": {"data.augmentation": 0.5},
    "orthogonality-memory": {"model.tokens.orthogonality_memory": 512},
    "canvas": {"model.denoiser.canvas_channels": 0},
    "canvas-source": {"model.denoiser.canvas_source": "both"},
    "canvas-warp": {"model.denoiser.canvas_warp": True},
    "canvas-modulation": {"model.denoiser.canvas_source": "modulated"},
    "orthogonality": {"model.tokens.orthogonality_weight": 0.0},
    "token-dropout": {"model.tokens.static_dropout": 0.0, "model.tokens.dynamic_dropout": 0.0},
}


def test_every_variant_resolves_to_what_it_says_and_to_nothing_else():
    plan, variants = ablation_plan("puppets-cpu", ["data/puppets"], 2, overrides={"training.num_steps": 7})
    assert set(variants) == set(EXPECTED)
    cells = {cell.method: flatten(cell.recipe) for cell in cells_of(plan) if cell.seed == 1}
    full = cells.pop(FULL)
    assert full == flatten(load_recipe("puppets-cpu", {"training.num_steps": 7, "seed": 1}).resolve())
    for name, flat in cells.items():
        assert {key: flat[key] for key in flat if flat[key] != full[key]} == EXPECTED[name], name


def test_added_biases_are_told_from_removed_ones():
    variants = variants_of(load_recipe("puppets-cpu").resolve())
    added = [name for name, variant in variants.items() if variant.is_added]
    biases = ["static-flip", "data-augmentation", "orthogonality-memory"]
    biases += ["motion-augmentation-target", "canvas-modulation", "canvas-warp"]
    assert added == ["residual", "shared-training-noise", "norms", "huber", *biases]
    assert (variants["orthogonality"].full, variants["orthogonality"].other) == ("0.1", "0")
    assert (variants["residual"].full, variants["residual"].other) == ("off", "on")


def test_only_the_sampling_switch_takes_the_full_recipes_model():
    plan, variants = ablation_plan("puppets-cpu", ["data/puppets"], 1)
    assert [name for name, variant in variants.items() if variant.is_sampling_only] == ["shared-sampling-noise"]
    trainers = {cell.method: cell.trainer for cell in cells_of(plan)}
    assert trainers.pop("shared-sampling-noise") == "puppets/full/seed-0"
    assert all(trainer == f"puppets/{method}/seed-0" for method, trainer in trainers.items())


def test_what_the_paper_recipe_lacks_is_left_out_or_switched_on():
    variants = variants_of(load_recipe("paper").resolve())
    assert "token-dropout" not in variants
    assert "scale-input" not in variants
    assert variants["shared-training-noise"].overrides == {"model.diffusion.shared_training": False}
    assert not variants["shared-training-noise"].is_added
    changed = variants_of(load_recipe("puppets-cpu", {"model.tokens.static_source": "whole"}).resolve())
    assert {"static-first", "static-random"} <= set(changed)
    assert "static-whole" not in changed
    for kind in ("channel", "rate"):
        others = variants_of(load_recipe("puppets-cpu", {"model.bottleneck.kind": kind}).resolve())
        without = others["bottleneck"]
        assert (dict(without.overrides), without.is_added) == ({"model.bottleneck.kind": "none"}, False)
        assert "bottleneck-rate" not in others
        assert ("bottleneck-channel" in others) == (kind == "rate")
    none = variants_of(load_recipe("puppets-cpu", {"model.bottleneck.kind": "none"}).resolve())
    prices = {"model.bottleneck.beta": 6e-6, "model.bottleneck.static_share": 0.25}
    assert dict(none["bottleneck-rate"].overrides) == {"model.bottleneck.kind": "rate", **prices}
    assert dict(none["bottleneck"].overrides) == {"model.bottleneck.kind": "channel"}
    assert none["bottleneck"].is_added


def test_what_the_recipe_lacks_of_equal_tokens_and_late_prices_is_switched_on_or_no_bias_of_it():
    off = {"model.tokens.dynamic_invariance": 0, "model.tokens.static_invariance": 0, "model.bottleneck.start": 0}
    variants = variants_of(load_recipe("puppets-cpu", {**off, "training.learning_rate_decay_start": 0}).resolve())
    assert dict(variants["dynamic-invariance"].overrides) == {"model.tokens.dynamic_invariance": 0.02}
    assert dict(variants["static-invariance"].overrides) == {"model.tokens.static_invariance": 0.01}
    assert variants["static-invariance"].is_added
    assert not {"static-invariance-frame", "bottleneck-start", "learning-rate-decay-start"} & set(variants)
    same = variants_of(load_recipe("puppets-cpu", {"model.tokens.static_invariance_frame": "same"}).resolve())
    assert same["static-invariance-frame"].is_added


def test_invariance_is_no_bias_of_a_recipe_that_shows_clips_as_they_are():
    names = set(variants_of(load_recipe("paper").resolve()))
    changes = {f"motion-augmentation-{what}" for what in ("colours", "sideways", "upwards")}
    assert not names & {"dynamic-invariance", "static-invariance", *changes}


def test_late_levers_and_the_maps_source_are_biases_where_the_recipe_has_them():
    late = {f"model.tokens.motion_augmentation{key}": 0.5 for key in ("", "_start", "_ramp")}
    both = variants_of(load_recipe("paper", {"model.denoiser.canvas_channels": 8, **late}).resolve())
    assert (both["canvas-source"].is_added, dict(both["canvas-source"].overrides)) == (
        True,
        {"model.denoiser.canvas_source": "dynamic"},
    )
    assert dict(both["motion-augmentation-start"].overrides) == {"model.tokens.motion_augmentation_start": 0.0}
    assert dict(both["motion-augmentation-ramp"].overrides) == {"model.tokens.motion_augmentation_ramp": 0.0}
    assert "back-translation-start" not in both  # the lever itself is off
    key = "model.tokens.motion_augmentation_proportions"
    no_parts = variants_of(load_recipe("paper", {**late, f"{key}_start": 0.5}).resolve())
    assert "motion-augmentation-proportions-start" not in no_parts
    late_parts = variants_of(load_recipe("paper", {**late, key: 1.0, f"{key}_start": 0.5}).resolve())
    assert dict(late_parts["motion-augmentation-proportions-start"].overrides) == {f"{key}_start": 0.0}
    assert "canvas-source" not in variants_of(load_recipe("paper").resolve())


@pytest.mark.parametrize(
    ("full", "source", "modulation"),
    [
        ("both", ("dynamic", True), ("modulated", True)),
        ("dynamic", ("both", False), ("modulated", True)),
        ("modulated", ("both", False), ("dynamic", False)),
    ],
)
def test_each_source_of_the_map_is_compared_with_the_other_two(full, source, modulation):
    recipe = load_recipe("puppets-cpu", {"model.denoiser.canvas_channels": 8, "model.denoiser.canvas_source": full}).resolve()
    made = [variants_of(recipe)[name] for name in ("canvas-source", "canvas-modulation")]
    found = [(variant.overrides["model.denoiser.canvas_source"], variant.is_added) for variant in made]
    assert found == [source, modulation]


@pytest.mark.parametrize(
    ("full", "expected"),
    [
        ("cross_attention", {"cross-attention": ("adagn", False), "norms": ("both", True)}),
        ("both", {"cross-attention": ("adagn", False), "norms": ("cross_attention", False)}),
        ("adagn", {"cross-attention": ("cross_attention", True)}),
    ],
)
def test_each_way_of_the_tokens_is_taken_away_or_added(full, expected):
    variants = variants_of(load_recipe("puppets-cpu", {"model.denoiser.conditioning": full}).resolve())
    made = {name: variants[name] for name in ("cross-attention", "norms") if name in variants}
    assert {name: (one.overrides["model.denoiser.conditioning"], one.is_added) for name, one in made.items()} == expected


def test_a_recipe_whose_map_is_warped_loses_both_together():
    recipe = load_recipe("puppets-cpu", {"model.denoiser.canvas_warp": True}).resolve()
    without = variants_of(recipe)["canvas"].overrides
    assert dict(without) == {"model.denoiser.canvas_channels": 0, "model.denoiser.canvas_warp": False}


def test_an_even_draw_of_time_steps_is_the_other_of_a_shifted_one():
    variants = [variants_of(load_recipe("puppets-cpu", {"model.diffusion.timestep_shift": shift}).resolve()) for shift in (1, 4)]
    even, shifted = (made["timestep-shift"] for made in variants)
    assert (even.is_added, dict(even.overrides)) == (True, {"model.diffusion.timestep_shift": 6.0})
    assert (shifted.is_added, shifted.full, shifted.other) == (False, "4", "1")


def test_without_token_dropout_there_is_no_guidance():
    variant = variants_of(load_recipe("puppets-cpu", {"sampling.static_guidance": 2.0}).resolve())["token-dropout"]
    assert variant.overrides["sampling.static_guidance"] == 1.0
    assert "sampling.dynamic_guidance" not in variant.overrides
    assert "no guidance" in variant.other


def test_only_some_and_its_plan_reads_back(tmp_path):
    plan, variants = ablation_plan("puppets-cpu", ["data/puppets"], 1, only=["residual"])
    assert list(variants) == ["residual"]
    assert list(plan.methods) == [FULL, "residual"]
    (tmp_path / "plan.yaml").write_text(dump_plan(plan))
    assert load_plan(tmp_path / "plan.yaml") == plan


@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        (("puppets-cpu", ["a"], 1), {"only": ["residul"]}, "did you mean 'residual'?"),
        (("puppets-cpu", ["a"], 0), {}, "--seeds is 0"),
        (("puppets-cpu", ["x/a", "y/a"], 1), {}, "two folders 'a'"),
        (("dbse", ["a"], 1), {}, "the biases are those of 'divid'"),
        (("pupets-cpu", ["a"], 1), {}, "did you mean 'puppets-cpu'?"),
    ],
)
def test_bad_ablations_are_errors(arguments, options, expected):
    with pytest.raises(ConfigError) as caught:
        ablation_plan(*arguments, **options)
    assert expected in str(caught.value)


def made_up(share, psnr=20.0):
    rate = {"rate": share, "num": 100, "wilson": [share - 0.1, share + 0.1], "bootstrap": [share - 0.1, share + 0.1]}
    right = "".join("01"[i < 100 * share] for i in range(100))
    return {
        "swaps": {
            "rows": {"swap": {"static": rate, "dynamic": rate, "joint": rate}, "reconstruction": {"joint": rate}},
            "outcomes": {"static": right, "dynamic": right},
        },
        "leakage": None,
        "psnr_db": {"model": {"mean": psnr, "low": psnr - 1, "high": psnr + 1, "num_clips": 9}},
    }


CLIPS = np.stack([np.arange(100), np.arange(100)[::-1]], axis=1)


def variant(is_added):
    return Variant("x", "a bias", is_added, "on", "off", {"model.tokens.use_residual": False})


def test_worth_is_with_the_bias_minus_without_it():
    full, other = {0: made_up(0.6, 22.0), 1: made_up(0.8)}, {0: made_up(0.5), 1: made_up(0.5), 2: made_up(0.1)}
    removed = worth_of(variant(False), full, other, CLIPS)
    assert removed["seeds"] == [0, 1]
    assert removed["measures"]["joint"]["values"] == pytest.approx([0.1, 0.3])
    assert removed["measures"]["joint"]["mean"] == pytest.approx(0.2)
    assert removed["measures"]["psnr_db"]["mean"] == pytest.approx(1.0)
    added = worth_of(variant(True), full, other, CLIPS)
    assert added["measures"]["joint"]["mean"] == pytest.approx(-0.2)
    assert added["measures"]["joint"]["low"] == pytest.approx(-removed["measures"]["joint"]["high"])


def test_the_interval_of_one_seeds_difference_has_both_sides_parts():
    psnr = worth_of(variant(False), {0: made_up(0.6, 22.0)}, {0: made_up(0.5, 20.0)}, CLIPS)["measures"]["psnr_db"]
    assert (psnr["low"], psnr["high"]) == pytest.approx((2 - 2**0.5, 2 + 2**0.5))


def test_swaps_are_compared_pair_by_pair():
    """Ten pairs of a hundred change, all for the better: that is more than nothing, though both shares are uncertain by more."""
    joint = worth_of(variant(False), {0: made_up(0.6)}, {0: made_up(0.5)}, CLIPS)["measures"]["joint"]
    assert joint["mean"] == pytest.approx(0.1)
    assert 0 < joint["low"] < joint["mean"] < joint["high"] < 0.1 + 0.1 * 2**0.5


def test_without_a_seed_in_common_nothing_is_said():
    worth = worth_of(variant(False), {0: made_up(0.6)}, {1: made_up(0.5)}, CLIPS)
    assert (worth["seeds"], worth["measures"]) == ([], {})
