"""How cost grows: with frames, clips, size of the frames, and processes. The reference is the first of each row's kind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from bench.measuring import Measured, child_environment
from bench.rows import Row
from bench.sampling import measure_sampling, pass_flops
from bench.training import TrainingLoop, trained_setup
from bench.workload import Bench
from divid.config import Recipe, SamplingConfig
from divid.errors import DividError
from divid.recipes import dump_recipe

FRAME_FACTORS = (1, 2, 4, 8)
CLIP_FACTORS = (0.25, 0.5, 1)
SIZE_FACTORS = (0.5, 1, 2)
SAMPLING = SamplingConfig(num_inference_steps=2)
"""Enough to see how cost grows."""
PIXELS = 1000
NUM_PROCESSES = (1, 2)


def scaling_rows(bench: Bench) -> Iterator[Row]:
    """Measure sampling against frames and size, and the training step against clips.

    Args:
        bench: The settings.
    """
    yield from _by_frames(bench)
    yield from _by_clips(bench)
    yield from _by_size(bench)


def _by_frames(bench: Bench) -> Iterator[Row]:
    model = bench.sampling_model("fp32")
    reference: Row | None = None
    for factor in FRAME_FACTORS[:2] if bench.is_quick else FRAME_FACTORS:
        count = factor * bench.num_frames
        measured = measure_sampling(bench, model, count, SAMPLING, bench.effort)
        flops = pass_flops(model, count) * SAMPLING.num_inference_steps
        row = bench.row("scale", f"sampling, {count} frames", measured, "frame", count, reference=reference, flops=flops)
        reference = reference or row
        yield row


def _by_clips(bench: Bench) -> Iterator[Row]:
    largest, setup = bench.recipe.training.batch_size, trained_setup(bench)
    reference: Row | None = None
    for batch_size in sorted({max(1, int(largest * factor)) for factor in CLIP_FACTORS}):
        recipe = replace(bench.recipe, training=replace(bench.recipe.training, batch_size=batch_size))
        measured, flops = TrainingLoop(bench, setup, recipe).measure(bench)
        row = bench.row(
            "scale", f"training, batch of {batch_size}", measured, "clip", batch_size, precision=setup.precision,
            reference=reference, flops=flops,
        )  # fmt: skip
        reference = reference or row
        yield row


def _by_size(bench: Bench) -> Iterator[Row]:
    own = bench.recipe.model.image_size
    reference: Row | None = None
    assert own
    for factor in SIZE_FACTORS[:2] if bench.is_quick else SIZE_FACTORS:
        size = int(own * factor)
        recipe = replace(bench.recipe, model=replace(bench.recipe.model, image_size=size)).resolve()
        model = bench.sampling_model("fp32", recipe)
        measured = measure_sampling(bench, model, bench.num_frames, SAMPLING, bench.effort)
        flops = pass_flops(model, bench.num_frames) * SAMPLING.num_inference_steps
        pixels = bench.num_frames * size**2 / PIXELS
        row = bench.row("scale", f"sampling, {size}x{size}", measured, "1000 pixels", pixels, reference=reference, flops=flops)
        reference = reference or row
        yield row


def process_rows(bench: Bench) -> Iterator[Row]:
    """Measure the training step of one batch shared by several processes, each with its share of the cores or a GPU of its own.

    Args:
        bench: The settings.

    Raises:
        DividError: A process failed.
    """
    batch_size = bench.recipe.training.batch_size
    reference: Row | None = None
    for count in NUM_PROCESSES:
        if batch_size % count or (bench.device == "cuda" and count > torch.cuda.device_count()):
            continue
        threads = max(1, torch.get_num_threads() // count)
        measured = _run_processes(bench, count, threads)
        name = f"training, {count} process{'es' if count > 1 else ''} of {threads} thread{'s' if threads > 1 else ''}"
        note = "memory of the first process"
        row = bench.row(
            "processes", name, measured, "clip", batch_size, precision=bench.precision, reference=reference, note=note
        )
        reference = reference or row
        yield row


def _run_processes(bench: Bench, count: int, threads: int) -> Measured:
    """Start the processes and give what the first one measured."""
    folder = bench.folder / f"processes{count}"
    folder.mkdir(exist_ok=True)
    settings = folder / "settings.json"
    recipe: Recipe = bench.recipe
    (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    values = {"device": bench.device, "count": count, "threads": threads, "effort": vars(bench.effort)}
    settings.write_text(json.dumps(values), encoding="utf-8")
    environment = {**child_environment(), "OMP_NUM_THREADS": str(threads)}
    commands = [[sys.executable, "-m", "bench.process", str(settings), str(rank)] for rank in range(count)]
    logs = [(folder / f"{rank}.log").open("w", encoding="utf-8") for rank in range(count)]
    try:
        started = [
            subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            for command, log in zip(commands, logs, strict=True)
        ]
        codes = _wait(started)
    finally:
        for log in logs:
            log.close()
    for rank, code in enumerate(codes):
        if code:
            reason = _last_line(folder / f"{rank}.log")
            raise DividError(f"training process {rank} of {count} ended with exit code {code}: {reason}")
    return Measured(**json.loads((folder / "result.json").read_text(encoding="utf-8")))


def _wait(started: list[subprocess.Popen]) -> list[int]:
    """Wait for all processes; where one fails, the others would wait for it for ever, so they are ended."""
    codes: list[int | None] = [None] * len(started)
    while None in codes:
        for place, process in enumerate(started):
            if codes[place] is not None:
                continue
            try:
                codes[place] = process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                if any(codes):
                    process.terminate()
    return [code or 0 for code in codes]


def _last_line(path: Path) -> str:
    return (path.read_text(encoding="utf-8").strip().splitlines() or ["it said nothing"])[-1]
