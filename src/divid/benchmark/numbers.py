"""From the cells' results to the numbers of the report, and what each bias of an ablation is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from divid.benchmark.ablation import FULL, Variant
from divid.benchmark.cells import BenchmarkFolder
from divid.benchmark.plan import CellSpec, Plan
from divid.benchmark.summaries import Measured, difference, mean_of, over_seeds, paired_difference
from divid.config import to_dict
from divid.data.schema import KINDS
from divid.evaluation.ground_truth import ROWS as GROUND_TRUTH_ROWS
from divid.evaluation.judge import TRUSTED_ACCURACY, Judge
from divid.evaluation.leakage import DIRECTIONS, LEAKS
from divid.evaluation.pairs import PairList
from divid.methods import METHODS

FORMAT = "divid-benchmark"
FORMAT_VERSION = 1
SHARES = (0.0, 1.0)
CLASS_SCORES = ("inception_score", "conditional_entropy", "marginal_entropy")
BOUNDS = {
    **dict.fromkeys([f"ground truth, {name}" for name in GROUND_TRUTH_ROWS], (0.0, math.inf)),
    **dict.fromkeys(("psnr_db", "perceptual", "frechet_frame", "frechet_clip"), (0.0, math.inf)),
    **dict.fromkeys(("flicker_ratio", "flicker_made", "flicker_real"), (0.0, math.inf)),
    **dict.fromkeys([f"{kind} kept, {name}" for kind in KINDS for name in CLASS_SCORES], (0.0, math.inf)),
    "ssim": (-1.0, 1.0),
    "normalised leakage": (-math.inf, 1.0),
}
"""Least and highest value of the measures that are no shares."""
ACCURACIES = ("static", "dynamic", "joint")
CONTROLS = ("real", "copy A", "copy B")
"""Rows of a swap test that are the same for every method."""
UNSEEN = "swap, unseen combinations"
RECONSTRUCTION = "joint, reconstructed"
"""Joint accuracy of the clips made from their own codes."""
UNSEEN_MEASURE = "joint, unseen"
"""Joint accuracy of the swaps whose combination of labels no training clip has."""

Result = Mapping[str, Any]
"""A cell's result.json."""


def collect(
    plan: Plan, cells: Sequence[CellSpec], folder: BenchmarkFolder, variants: Mapping[str, Variant] | None = None
) -> dict[str, Any]:
    """Give everything that the report says, as JSON has it.

    Args:
        plan: What was asked for.
        cells: All its cells.
        folder: Where they are.
        variants: Of an ablation.

    Raises:
        InputError: A result is damaged.
        ModelError: A judge is damaged.
    """
    results = {spec.name: folder.cell(spec.name).read_result() for spec in cells if folder.cell(spec.name).is_done}
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "kind": "benchmark" if variants is None else "ablation",
        "plan": to_dict(plan),
        "made": _provenance(list(results.values())),
        "data": {name: _describe_data(plan, name, cells, results, folder, variants) for name in plan.data},
        "cells": {spec.name: _describe_cell(spec, results, folder) for spec in cells},
    }


def measures_of(result: Result) -> dict[str, Measured]:
    """Give the numbers of one cell that the tables show, by name, with their intervals.

    Args:
        result: The cell's.
    """
    swap = result["swaps"]["rows"]["swap"]
    measures = {name: Measured.of_rate(swap[name]) for name in ACCURACIES}
    if UNSEEN in result["swaps"]["rows"]:
        measures[UNSEEN_MEASURE] = Measured.of_rate(result["swaps"]["rows"][UNSEEN]["joint"])
    if result["leakage"] is not None:
        read = {direction: _direction(result["leakage"]["directions"][direction]) for direction in DIRECTIONS}
        measures["leakage"] = mean_of([read[direction] for direction in LEAKS])
        measures.update({str(direction): measured for direction, measured in read.items()})
        alone = {name: result["leakage"][f"{name}_leakage"] for name in ("normalised", "strict")}
        measures.update({f"{name} leakage": Measured(value, math.nan, math.nan) for name, value in alone.items()})
    measures[RECONSTRUCTION] = Measured.of_rate(result["swaps"]["rows"]["reconstruction"]["joint"])
    measures["psnr_db"] = Measured.of_estimate(result["psnr_db"]["model"])
    if result.get("likeness") is not None:
        measures.update({name: Measured.of_estimate(result["likeness"][name]) for name in ("ssim", "perceptual")})
        frechet = result["likeness"]["frechet"]["swap"]
        measures.update({f"frechet_{of}": Measured(frechet[of], math.nan, math.nan) for of in ("frame", "clip")})
        flicker = result["likeness"].get("flicker", {})
        for name, part in (("flicker_ratio", "ratio"), ("flicker_made", "made_levels"), ("flicker_real", "real_levels")):
            if flicker.get(part) is not None:
                measures[name] = Measured(flicker[part], math.nan, math.nan)
    if result.get("ground_truth") is not None:
        measures["nearest to the ground truth"] = Measured.of_rate(result["ground_truth"]["is_nearest"])
        rows = result["ground_truth"]["psnr_db"]
        measures.update({f"ground truth, {name}": Measured.of_estimate(row) for name, row in rows.items()})
    if result.get("sampled") is not None:
        rows = result["sampled"]["rows"]
        measures.update({f"{kind} kept": Measured.of_rate(rows[f"{kind} kept"][kind]) for kind in KINDS})
        measures.update(_class_scores(result["sampled"]))
    return measures


def _direction(values: Mapping[str, Any]) -> Measured:
    return mean_of([Measured(factor["accuracy"], factor["low"], factor["high"]) for factor in values["factors"].values()])


def _class_scores(sampled: Mapping[str, Any]) -> dict[str, Measured]:
    """Give inception score, H(y|x) and H(y) of what is kept, averaged over the factors, while the rest is sampled."""
    means: dict[str, Measured] = {}
    for kind in KINDS:
        scores = [sampled["rows"][f"{kind} kept"]["scores"][name] for name, of in sampled["factors"].items() if of == kind]
        entropies = [(score["conditional_entropy"], score["marginal_entropy"]) for score in scores]
        values = {
            "inception_score": [math.exp(marginal - conditional) for conditional, marginal in entropies],
            "conditional_entropy": [conditional for conditional, _ in entropies],
            "marginal_entropy": [marginal for _, marginal in entropies],
        }
        means |= {f"{kind} kept, {name}": Measured(sum(of) / len(of), math.nan, math.nan) for name, of in values.items()}
    return means


def _new_notes(result: Result) -> list[str]:
    return [note for note in result["sampled"]["notes"] if note not in result["swaps"]["notes"]]


def _bounds(name: str) -> tuple[float, float]:
    return BOUNDS.get(name, SHARES)


def _describe_data(
    plan: Plan,
    data: str,
    cells: Sequence[CellSpec],
    results: Mapping[str, Result],
    folder: BenchmarkFolder,
    variants: Mapping[str, Variant] | None,
) -> dict[str, Any]:
    of_method: dict[str, dict[int, Result]] = {method: {} for method in plan.methods}
    for spec in cells:
        if spec.data == data and spec.name in results:
            of_method[spec.method][spec.seed] = results[spec.name]
    done = {method: seeds for method, seeds in of_method.items() if seeds}
    first = next((result for seeds in done.values() for result in seeds.values()), None)
    described: dict[str, Any] = {
        "path": plan.data[data].path,
        "recipe": plan.data[data].recipe,
        "judge": _describe_judge(folder, data),
        "num_pairs": None if first is None else first["swaps"]["num_pairs"],
        "notes": [] if first is None else first["swaps"]["notes"],
        "controls": {} if first is None else {name: first["swaps"]["rows"][name] for name in CONTROLS},
        "chance": None if first is None else first["swaps"]["chance"],
        "leakage_chance": None if first is None else _leakage_chance(first),
        "feature_network": None if first is None or not first.get("likeness") else first["likeness"]["network"],
        "ground_truth_pairs": None if first is None or not first.get("ground_truth") else first["ground_truth"]["num_pairs"],
        "sampled_notes": [] if first is None or not first.get("sampled") else _new_notes(first),
        "still_psnr_db": None if first is None else first["psnr_db"]["mean_frame"]["mean"],
        "methods": {method: _describe_method(plan, method, list(seeds.values())) for method, seeds in done.items()},
    }
    clips = _clips_of_pairs(folder, data) if done else np.empty((0, 2), dtype=np.int64)
    if variants is None:
        described["differences"] = [
            {"method": one, "other": other, **differences(done[one], done[other], clips)} for one, other in combinations(done, 2)
        ]
    else:
        full, tried = done.get(FULL, {}), {name: variant for name, variant in variants.items() if name in done}
        described["worth"] = {name: worth_of(variant, full, done[name], clips) for name, variant in tried.items()}
    return described


def _describe_judge(folder: BenchmarkFolder, data: str) -> dict[str, Any] | None:
    if not folder.data(data).has_judge:
        return None
    judge = Judge.load(folder.data(data).judge)
    held_out = judge.held_out
    return {
        "architecture": judge.config.architecture,
        "is_trusted": judge.is_trusted,
        "least": TRUSTED_ACCURACY,
        "held_out": None if held_out is None else {name: getattr(held_out, name).to_dict() for name in ACCURACIES},
        "training": judge.history,
    }


def _leakage_chance(result: Result) -> dict[str, float] | None:
    if result["leakage"] is None:
        return None
    chance: dict[str, float] = {direction: result["leakage"]["directions"][direction]["chance"] for direction in DIRECTIONS}
    return {"leakage": sum(chance[direction] for direction in LEAKS) / len(LEAKS), **chance}


def _describe_method(plan: Plan, method: str, results: Sequence[Result]) -> dict[str, Any]:
    measures = [measures_of(result) for result in results]
    names = [name for name in measures[0] if all(name in of_seed for of_seed in measures)]
    summaries = {name: over_seeds([of_seed[name] for of_seed in measures], _bounds(name)) for name in names}
    return {
        "label": plan.methods[method].label,
        "model_of": plan.methods[method].model_of,
        "cells": [result["cell"] for result in results],
        "seeds": [result["seed"] for result in results],
        "num_pairs": results[0]["swaps"]["num_pairs"],
        "measures": {name: summary.to_dict() for name, summary in summaries.items()},
        "reconstruction": results[0]["swaps"]["rows"]["reconstruction"],
        "factors": _describe_factors(results),
        "parameters": results[0]["parameters"],
        "training_seconds": _mean(results, lambda result: result["training"]["seconds"]),
        "training_steps": results[0]["training"]["steps"],
        "sampling_seconds_per_clip": _mean(results, lambda result: result["sampling"]["seconds_per_clip"]),
        "sampling_frames_per_second": _mean(results, lambda result: result["sampling"]["frames_per_second"]),
        "sampling": {
            **{key: results[0]["sampling"][key] for key in ("solver", "num_inference_steps", "clips_at_once")},
            "is_one_pass": getattr(METHODS.get(plan.methods[method].method), "decodes_in_one_pass", False),
        },
    }


def _describe_factors(results: Sequence[Result]) -> dict[str, Any]:
    """Give how each factor fares in the swaps, over the seeds: in all of them, and by the class that is wanted."""
    of_seeds = [result["swaps"].get("factors", {}) for result in results]
    names = [name for name in of_seeds[0] if all(name in factors for factors in of_seeds)]
    return {name: _describe_factor([factors[name] for factors in of_seeds]) for name in names}


def _describe_factor(of_seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    labels = [label for label in of_seeds[0]["classes"] if all(label in factor["classes"] for factor in of_seeds)]
    classes = {label: _describe_share([factor["classes"][label] for factor in of_seeds]) for label in labels}
    kept = _describe_share([factor["kept"] for factor in of_seeds])
    return {"kind": of_seeds[0]["kind"], "kept": kept, "classes": classes}


def _describe_share(rates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"num": rates[0]["num"], **over_seeds([Measured.of_rate(rate) for rate in rates], SHARES).to_dict()}


def worth_of(
    variant: Variant, full: Mapping[int, Result], other: Mapping[int, Result], clips: Int[np.ndarray, "pairs 2"]
) -> dict[str, Any]:
    """Give what a bias adds to every number: with it minus without it, seed by seed, and swap accuracies pair by pair.

    Args:
        variant: What was tried.
        full: Results of the full recipe by seed.
        other: Results of the variant by seed.
        clips: Numbers of the clips of the pairs that all were tested on.

    Returns:
        The variant, the seeds that both have, and under `measures` the differences, as JSON has them.
    """
    with_it, without = (other, full) if variant.is_added else (full, other)
    return {**variant.to_dict(), **differences(with_it, without, clips)}


def differences(one: Mapping[int, Result], other: Mapping[int, Result], clips: Int[np.ndarray, "pairs 2"]) -> dict[str, Any]:
    """Give every number of one method minus that of another, seed by seed, and swap accuracies pair by pair.

    Args:
        one: Results of the first by seed.
        other: Results of what is taken from it by seed.
        clips: Numbers of the clips of the pairs that both were tested on.

    Returns:
        The seeds that both have, and under `measures` the differences, as JSON has them.
    """
    seeds = sorted(one.keys() & other.keys())
    of_seeds = [_gains(one[seed], other[seed], clips) for seed in seeds]
    names = [name for name in (of_seeds[0] if of_seeds else ()) if all(name in gains for gains in of_seeds)]
    summaries = {name: over_seeds([gains[name] for gains in of_seeds]) for name in names}
    return {"seeds": seeds, "measures": {name: summary.to_dict() for name, summary in summaries.items()}}


def _gains(one_result: Result, other_result: Result, clips: Int[np.ndarray, "pairs 2"]) -> dict[str, Measured]:
    one, other = measures_of(one_result), measures_of(other_result)
    gains = {name: difference(one[name], other[name]) for name in one if name in other}
    right, others_right = _right_answers(one_result), _right_answers(other_result)
    return {**gains, **{name: paired_difference(right[name], others_right[name], clips) for name in ACCURACIES}}


def _right_answers(result: Result) -> dict[str, Bool[np.ndarray, " pairs"]]:
    outcomes = result["swaps"]["outcomes"]
    right = {kind: np.array([answer == "1" for answer in outcomes[kind]]) for kind in KINDS}
    return {**right, "joint": right["static"] & right["dynamic"]}


def _clips_of_pairs(folder: BenchmarkFolder, data: str) -> Int[np.ndarray, "pairs 2"]:
    pairs = PairList.load(folder.data(data).pairs).pairs
    return np.unique(np.array(pairs), return_inverse=True)[1].reshape(len(pairs), 2)


def _describe_cell(spec: CellSpec, results: Mapping[str, Result], folder: BenchmarkFolder) -> dict[str, Any]:
    cell = folder.cell(spec.name)
    state, remark = cell.state()
    described: dict[str, Any] = {"data": spec.data, "method": spec.method, "seed": spec.seed, "state": state, "remark": remark}
    result = results.get(spec.name)
    if result is None:
        return described
    measures = {name: [m.value, *_ends(m)] for name, m in measures_of(result).items()}
    failed = cell.failed_swaps.relative_to(folder.path).as_posix() if cell.failed_swaps.is_file() else None
    kept = ("parameters", "training", "sampling", "made")
    return {**described, "measures": measures, "failed_swaps": failed, **{key: result[key] for key in kept}}


def _ends(measured: Measured) -> list[float | None]:
    return [end if end == end else None for end in (measured.low, measured.high)]


def _provenance(results: Sequence[Result]) -> dict[str, Any]:
    made = [result["made"] for result in results]
    kept = {name: list(dict.fromkeys(str(item[key]) for item in made)) for name, key in (
        ("commands", "command"), ("commits", "git_commit"), ("machines", "machine"), ("devices", "device"),
    )}  # fmt: skip
    kept["trained_by"] = list(dict.fromkeys(str(result["training"].get("git_commit")) for result in results))
    began, ended = min((item["began"] for item in made), default=None), max((item["ended"] for item in made), default=None)
    return {**kept, "began": began, "ended": ended, "versions": made[-1]["versions"] if made else {}}


def _mean(results: Sequence[Result], value: Callable[[Result], float]) -> float:
    return sum(value(result) for result in results) / len(results)
