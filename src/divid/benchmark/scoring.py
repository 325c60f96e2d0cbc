"""The numbers of one cell, by the functions that `divid evaluate` calls, and the frames that its figure shows."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from safetensors.numpy import load_file, save_file
from torch import nn

from divid.arrays import video_to_frames
from divid.benchmark.plan import CellSpec, EvaluationOptions
from divid.config import SamplingConfig
from divid.data.clips import ClipDataset
from divid.data.module import middle_video
from divid.evaluation.codes import Told, device_of, encode_clips
from divid.evaluation.ground_truth import has_ground_truth, measure_ground_truth
from divid.evaluation.judge import Judge
from divid.evaluation.leakage import measure_leakage
from divid.evaluation.likeness import LikenessStudy
from divid.evaluation.pairs import PairList
from divid.evaluation.prior import PriorOptions, fit_prior
from divid.evaluation.quality import measure_reconstruction
from divid.evaluation.realism import FeatureNetwork
from divid.evaluation.sampled import SampledResult, measure_sampled
from divid.evaluation.swap import failure_sheet, measure_swaps
from divid.outputs import atomic_path
from divid.types import Codes, Disentangler, Video

FIGURE_PARTS = ("source", "target", "swap")


@dataclass(frozen=True)
class Clips:
    """The clips of a data set at the size of its methods.

    Args:
        train: What methods and judge are trained on.
        test: What they are judged on.
    """

    train: ClipDataset
    test: ClipDataset


@dataclass(frozen=True)
class Score:
    """What was measured in a cell.

    Args:
        numbers: As JSON has them: `psnr_db`, `swaps`, `parameters`, `sampling`, and what may not have been asked for and is None
            then: `leakage`, `sampled`, `likeness`, `ground_truth`.
        figure: uint8 frames P F H W C of the first pairs, by `FIGURE_PARTS`.
        failed_swaps: The first swaps that the judge did not accept; None if it accepted all.
    """

    numbers: dict[str, Any]
    figure: dict[str, np.ndarray]
    failed_swaps: Image | None = None


@torch.no_grad()
def score_cell(
    model: Disentangler,
    judge: Judge,
    clips: Clips,
    pairs: PairList,
    spec: CellSpec,
    options: EvaluationOptions,
    told: Told | None = None,
    network: FeatureNetwork | None = None,
) -> Score:
    """Measure a trained model.

    Args:
        model: On its device, in evaluation mode.
        judge: The data set's.
        clips: The data set's.
        pairs: The data set's.
        spec: The cell, whose recipe says how to sample.
        options: What to measure.
        told: Hears of the progress.
        network: Measures how real clips look; None: that is left out.

    Raises:
        ModelError: The model gives values that are not numbers.
        DatasetError: The clips lack labels.
    """
    _switch_sampling(model, spec)
    shared: dict[str, Any] = {"num_frames": spec.recipe.data.frames_per_sequence, "seed": options.seed, "told": told}
    sampling = spec.recipe.sampling
    swaps = measure_swaps(
        model, judge, clips.test, pairs, method=spec.method, train_clips=clips.train, sampling=sampling, **shared
    )  # first, since it says so in one line where values are not numbers
    study = None if network is None else LikenessStudy(network)
    watch = None if study is None else study.watch
    reconstruction = measure_reconstruction(model, clips.test, sampling=sampling, watch=watch, **shared)
    if study is not None:
        some = [(a, b) for a, b in pairs.numbers(clips.test)[: options.realism_pairs].tolist()]
        study.add_swaps(model, clips.test, some, sampling=sampling, **shared)
        study.add_training_clips(clips.train, num_frames=shared["num_frames"], device=device_of(model))
    sampled = _sample(model, judge, clips, spec, shared) if options.sampled else None
    truth = None
    if options.ground_truth and has_ground_truth(clips.test):
        truth = measure_ground_truth(model, clips.test, num_pairs=options.ground_truth_pairs, sampling=sampling, **shared)
    leakage = measure_leakage(model, clips.train, clips.test, **shared) if options.leakage else None
    figure, speed = _swap_some(model, clips.test, pairs, spec, options)
    numbers = {
        "psnr_db": asdict(reconstruction),
        "swaps": swaps.to_dict(),
        "leakage": None if leakage is None else leakage.to_dict(),
        "sampled": None if sampled is None else sampled.to_dict(),
        "likeness": None if study is None else study.result().to_dict(),
        "ground_truth": None if truth is None else truth.to_dict(),
        "parameters": sum(p.numel() for p in _module(model).parameters()),
        "sampling": speed,
    }
    failed = failure_sheet(swaps, clips.test, title=f"{spec.name}: swaps that the judge did not accept")
    return Score(without_nan(numbers), figure, failed)


def without_nan(value: Any) -> Any:
    """Give a JSON value with null for what is not a number.

    Args:
        value: Nested mappings and lists.
    """
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save_figure(path: Path, figure: Mapping[str, np.ndarray]) -> None:
    """Write the frames of a cell's figure.

    Args:
        path: A .safetensors file.
        figure: From `Score`.

    Raises:
        OutputError: It cannot be written.
    """
    with atomic_path(path) as temporary:
        save_file({name: np.ascontiguousarray(frames) for name, frames in figure.items()}, temporary)


def load_figure(path: Path) -> dict[str, np.ndarray]:
    """Read what `save_figure` wrote.

    Args:
        path: The file.
    """
    return load_file(path)


def _switch_sampling(model: Any, spec: CellSpec) -> None:
    """Give a trained model the cell's sharing of noise in sampling, the one option that training does not depend on."""
    wanted = getattr(spec.recipe.model, "diffusion", None)
    if wanted is not None and hasattr(model.options, "diffusion"):
        diffusion = replace(model.options.diffusion, shared_sampling=wanted.shared_sampling)
        model.options = replace(model.options, diffusion=diffusion)


def _swap_some(
    model: Disentangler, clips: ClipDataset, pairs: PairList, spec: CellSpec, options: EvaluationOptions
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Swap the first pairs twice: for the figure, and, warmed up by that, for the time it takes."""
    places = pairs.numbers(clips)[: options.figure_pairs]
    num_frames, device = spec.recipe.data.frames_per_sequence, next(_module(model).parameters()).device
    looks, moves = (middle_video(clips, places[:, side].tolist(), num_frames) for side in (0, 1))
    codes = model.encode(looks.to(device)).with_motion_of(model.encode(moves.to(device)))
    made, _ = _timed_decode(model, codes, options.seed, spec.recipe.sampling)
    _, seconds = _timed_decode(model, codes, options.seed, spec.recipe.sampling)
    frames = [video_to_frames(video) for video in (looks, moves, made)]
    speed = {
        "seconds_per_clip": seconds / len(places),
        "frames_per_second": len(places) * num_frames / max(seconds, 1e-9),
        "clips_at_once": len(places),
        "solver": spec.recipe.sampling.solver,
        "num_inference_steps": spec.recipe.sampling.num_inference_steps,
    }
    return dict(zip(FIGURE_PARTS, frames, strict=True)), speed


def _sample(model: Disentangler, judge: Judge, clips: Clips, spec: CellSpec, shared: dict[str, Any]) -> SampledResult:
    num_frames, seed, told = (shared[name] for name in ("num_frames", "seed", "told"))
    codes = encode_clips(model, clips.train, num_frames=num_frames, told=told, stage="encoding for the prior")
    prior = fit_prior(codes, PriorOptions(seed=seed), told=told)
    return measure_sampled(model, judge, prior, clips.test, method=spec.method, sampling=spec.recipe.sampling, **shared)


def _timed_decode(model: Disentangler, codes: Codes, seed: int, sampling: SamplingConfig) -> tuple[Video, float]:
    began = time.perf_counter()
    video = model.decode(codes, seeds=[seed + number for number in range(len(codes.static))], sampling=sampling)
    if video.is_cuda:
        torch.cuda.synchronize(video.device)
    return video, time.perf_counter() - began


def _module(model: Any) -> nn.Module:
    return model
