"""Sampling by solver and steps, and the encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from bench.measuring import Effort, Measured, measure
from bench.rows import Row
from bench.workload import PAPER_STEPS, Bench, random_codes
from divid.arrays import frames_to_video
from divid.config import Precision, SamplingConfig, SolverName
from divid.flops import count_flops
from divid.models.divid import DividModel
from divid.pipeline import ENCODE_CHUNK_FRAMES, DividPipeline

SOLVERS: tuple[SolverName, ...] = ("dpmsolver++", "unipc", "ddim")
STEPS = (2, 4, 8, 16)
BF16_STEPS = (4, 8)
"""Steps of the rows in bf16, with the first solver."""


def pass_flops(model: DividModel, num_frames: int) -> float:
    """Count the operations of one pass of the denoiser.

    Args:
        model: The model.
        num_frames: Frames in the pass.
    """
    codes = random_codes(model, num_frames)
    x_t = torch.zeros(num_frames, *model.frame_shape).to(codes.static)
    t = torch.zeros(num_frames, dtype=torch.long, device=codes.static.device)
    with torch.no_grad():
        return count_flops(lambda: model.predict(x_t, t, codes.static.expand(num_frames, -1), codes.dynamic[0]))


def measure_sampling(bench: Bench, model: DividModel, num_frames: int, sampling: SamplingConfig, effort: Effort) -> Measured:
    """Time drawing one clip from its tokens.

    Args:
        bench: The settings.
        model: The model.
        num_frames: Frames of the clip.
        sampling: Solver and steps.
        effort: How often.
    """
    codes = random_codes(model, num_frames)
    return measure(lambda: model.decode(codes, seeds=[0], sampling=sampling), bench.device, effort)


def without_warmup(effort: Effort) -> Effort:
    """Give an effort for a model that has run before.

    Args:
        effort: The usual one.
    """
    return replace(effort, num_warmups=0, min_runs=min(2, effort.min_runs))


def paper_sampling(bench: Bench) -> SamplingConfig:
    """Give the paper's sampler with as many steps as are really made.

    Args:
        bench: The settings.
    """
    return SamplingConfig(solver="ddpm", num_inference_steps=bench.reference_steps)


def extrapolate(measured: Measured, num_steps: int, total_steps: int) -> Measured:
    """Scale the time of some sampler steps to that of all: every step is the same pass of the same network.

    Args:
        measured: The steps made.
        num_steps: How many.
        total_steps: How many there would be.
    """
    factor = total_steps / num_steps
    seconds, fastest, slowest = (value * factor for value in (measured.seconds, measured.fastest, measured.slowest))
    return replace(measured, seconds=seconds, fastest=fastest, slowest=slowest)


def extrapolation_note(bench: Bench) -> str:
    """Say how the paper's sampler was measured: empty where all steps were made.

    Args:
        bench: The settings.
    """
    made = bench.reference_steps
    return "" if made == PAPER_STEPS else f"extrapolated from {made} of {PAPER_STEPS} steps"


def sampling_rows(bench: Bench) -> Iterator[Row]:
    """Measure drawing one clip of a sequence's length, without encoding it, in seconds a clip.

    Args:
        bench: The settings.
    """
    model, count = bench.sampling_model("fp32"), bench.num_frames
    flops, effort = pass_flops(model, count), without_warmup(bench.effort)
    measure_sampling(bench, model, count, SamplingConfig(num_inference_steps=2), replace(effort, min_runs=1, max_runs=1))
    measured = measure_sampling(bench, model, count, paper_sampling(bench), effort)
    reference = bench.row(
        "sample",
        f"the paper's sampler: ddpm, {PAPER_STEPS} steps",
        extrapolate(measured, bench.reference_steps, PAPER_STEPS),
        "clip",
        1,
        flops=flops * PAPER_STEPS,
        note=extrapolation_note(bench),
    )
    yield reference
    plans: dict[Precision, tuple[tuple[SolverName, ...], tuple[int, ...]]]
    plans = {"fp32": (SOLVERS, STEPS), "bf16": (SOLVERS[:1], BF16_STEPS)}
    for precision in bench.sampling_precisions:
        solvers, numbers = plans[precision]
        for solver in solvers:
            for steps in numbers[:1] if bench.is_quick else numbers:
                sampling = SamplingConfig(solver=solver, num_inference_steps=steps, precision=precision)
                measured = measure_sampling(bench, model, count, sampling, bench.effort if steps == numbers[0] else effort)
                yield bench.row(
                    "sample", f"{solver}, {steps} steps", measured, "clip", 1, precision=precision, reference=reference,
                    flops=flops * steps,
                )  # fmt: skip


def encoding_rows(bench: Bench) -> Iterator[Row]:
    """Measure the way from frames to tokens, in seconds a frame.

    Args:
        bench: The settings.
    """
    model, count = bench.sampling_model("fp32"), bench.num_frames
    shape = (max(ENCODE_CHUNK_FRAMES, count), *model.frame_shape[1:], model.frame_shape[0])
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    @torch.no_grad()
    def encode_clip() -> None:
        model.encode(frames_to_video(frames[:count]).to(bench.device))

    flops = count_flops(encode_clip)
    measured = measure(encode_clip, bench.device, bench.effort)
    name = f"plain: float32, one clip of {count} frames at a time"
    reference = bench.row("encode", name, measured, "frame", count, flops=flops)
    yield reference
    for precision in bench.sampling_precisions:
        pipeline = DividPipeline(bench.sampling_model(precision))
        measured = measure(lambda pipeline=pipeline: pipeline.encode_frames(frames), bench.device, bench.effort)  # type: ignore[misc]
        flops = count_flops(lambda pipeline=pipeline: pipeline.encode_frames(frames))  # type: ignore[misc]
        yield bench.row(
            "encode", f"as divid swap: {len(frames)} frames at a time", measured, "frame", len(frames), precision=precision,
            reference=reference, flops=flops,
        )  # fmt: skip
