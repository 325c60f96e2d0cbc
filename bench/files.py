"""What begins or ends with files: the data path, a whole swap, and swaps of long videos."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench.measuring import Measured, child_environment, measure
from bench.rows import Row
from bench.sampling import extrapolation_note, measure_sampling, paper_sampling, without_warmup
from bench.workload import PAPER_STEPS, Bench
from divid.config import Precision, SamplingConfig
from divid.data.clips import ClipDataset
from divid.data.module import ClipDataModule
from divid.data.prepare import prepare
from divid.data.sources import SourceOptions
from divid.errors import DividError
from divid.export import save_model
from divid.pipeline import DividPipeline
from divid.video import VideoWriter

SWAP_STEPS = (2, 4, 8)
FPS = 25.0
VIDEO_SCALE = 4
"""Side of the videos that are swapped, over the model's."""
NUM_PUPPETS = 32
"""Clips of the prepared data set that the loaders read."""
WRITTEN_AT_ONCE = 100


def data_rows(bench: Bench) -> Iterator[Row]:
    """Measure the way from a prepared data set to a batch on the device, in seconds a clip.

    Args:
        bench: The settings.
    """
    model, folder = bench.recipe.model, bench.folder / "puppets"
    assert model.image_size
    options = SourceOptions(image_size=model.image_size, channels=model.channels, num_clips=4 if bench.is_quick else NUM_PUPPETS)
    prepare("puppets", None, folder, options=options, num_processes=1)
    clips = ClipDataset.open(folder)
    reference: Row | None = None
    locations: list[tuple[str, Literal["disk", "memory", "device"]]] = [
        ("plain: a loader on the host reads the file", "disk"),
        ("clips in memory", "memory"),
    ]
    if bench.device == "cuda":
        locations.append(("clips on the GPU", "device"))
    batch_size = bench.recipe.training.batch_size
    for name, location in locations:
        data = ClipDataModule(clips, bench.recipe.seed, batch_size, replace(bench.recipe.data, location=location))
        data.load(bench.device)
        batches = iter(data.loader(0))

        def fetch(data: ClipDataModule = data, batches: Iterator[Any] = batches) -> None:
            raw = next(batches)
            data.to_clip_batch(raw._replace(frames=None if raw.frames is None else raw.frames.to(bench.device)))

        measured = measure(fetch, bench.device, bench.effort)
        pixels = batch_size * bench.num_frames * model.image_size**2 * model.channels
        row = bench.row(
            "data", name, measured, "clip", batch_size, reference=reference, bytes_moved=pixels * (1 + 4), note="uint8 to float32"
        )
        reference = reference or row
        yield row


def swap_rows(bench: Bench) -> Iterator[Row]:
    """Measure a swap from two video files to a third, the model being loaded, in seconds a swap.

    Args:
        bench: The settings.
    """
    size = bench.recipe.model.image_size
    assert size
    paths = [bench.folder / f"{name}.mp4" for name in ("appearance", "motion")]
    for path in paths:
        write_test_video(path, bench.num_frames, size * VIDEO_SCALE)
    reference = _paper_swap(bench, paths)
    yield reference
    own_steps = bench.recipe.sampling.num_inference_steps
    pipeline = DividPipeline(bench.sampling_model("fp32"))
    plans: dict[Precision, list[int]] = {"fp32": sorted({*SWAP_STEPS, own_steps}), "bf16": list(SWAP_STEPS)}
    for precision in bench.sampling_precisions:
        numbers = plans[precision]
        for steps in numbers[:1] if bench.is_quick else numbers:
            sampling = replace(bench.recipe.sampling, num_inference_steps=steps, precision=precision)
            measured = _measure_swap(bench, pipeline, paths, sampling)
            name = f"{sampling.solver}, {steps} steps, {bench.num_frames} frames"
            yield bench.row("swap", name, measured, "swap", 1, precision=precision, reference=reference)


def _measure_swap(bench: Bench, pipeline: DividPipeline, paths: list[Path], sampling: SamplingConfig) -> Measured:
    swap = functools.partial(pipeline.swap, paths[0], paths[1], bench.folder / "swap.mp4", sampling=sampling)
    return measure(swap, bench.device, bench.effort)


def _paper_swap(bench: Bench, paths: list[Path]) -> Row:
    """Measure the swap with the paper's sampler; steps that are not made are added at the price of those that are."""
    model, sampling = bench.sampling_model("fp32"), paper_sampling(bench)
    measured = _measure_swap(bench, DividPipeline(model), paths, sampling)
    missing = PAPER_STEPS - bench.reference_steps
    if missing:
        steps = measure_sampling(bench, model, bench.num_frames, sampling, without_warmup(bench.effort))
        rest = steps.seconds / bench.reference_steps * missing
        seconds, fastest, slowest = (value + rest for value in (measured.seconds, measured.fastest, measured.slowest))
        measured = replace(measured, seconds=seconds, fastest=fastest, slowest=slowest)
    name = f"the paper's sampler: ddpm, {PAPER_STEPS} steps, {bench.num_frames} frames"
    return bench.row("swap", name, measured, "swap", 1, note=extrapolation_note(bench))


def long_rows(bench: Bench) -> Iterator[Row]:
    """Measure swaps whose motion is a long video, each in a process of its own, in seconds a frame.

    Args:
        bench: The settings.

    Raises:
        DividError: A process failed.
    """
    folder = bench.model_folder
    if folder is None:
        folder = bench.folder / "model"
        save_model(bench.new_model().cpu(), bench.recipe.sampling, folder, {"title": "untrained"})
    reference: Row | None = None
    for num_frames in bench.long_frames:
        video = bench.folder / f"{num_frames}.mp4"
        write_test_video(video, num_frames, bench.long_size)
        told = _run_swap(bench, folder, video)
        video.unlink()
        measured = Measured(told["seconds"], told["seconds"], told["seconds"], 1, told["peak_memory_mib"])
        name = f"{num_frames} frames of {bench.long_size}x{bench.long_size}, {bench.long_steps} steps"
        note = f"{1000 * told['processor_seconds'] / num_frames:.3g} ms of processor time a frame"
        row = bench.row("long", name, measured, "frame", num_frames, reference=reference, note=note)
        reference = reference or row
        yield row


def _run_swap(bench: Bench, model: Path, video: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.long_swap", str(model), str(video), str(bench.folder / "long.mp4")]
    command += [str(bench.long_steps), bench.device]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=child_environment())
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise DividError(f"the swap of {video.name} ended with exit code {done.returncode}: {reason}")
    return json.loads(done.stdout.splitlines()[-1])


def write_test_video(path: Path, num_frames: int, size: int) -> None:
    """Write a video of a square that wanders over a shaded ground, a few frames at a time.

    Args:
        path: `.mp4`.
        num_frames: Its length.
        size: Its height and width.
    """
    shades = np.linspace(0, 160, size)[:, None] + np.linspace(0, 80, size)
    ground = shades.astype(np.uint8)[..., None].repeat(3, axis=-1)
    side = max(2, size // 4)
    with VideoWriter(path, fps=FPS) as writer:
        for start in range(0, num_frames, WRITTEN_AT_ONCE):
            frames = np.stack([ground] * min(WRITTEN_AT_ONCE, num_frames - start))
            for place, frame in enumerate(frames, start=start):
                top, left = ((size - side) // 2 * (1 + np.sin(place * np.array([0.21, 0.13])))).astype(int)
                frame[top : top + side, left : left + side] = (255, 200, 60)
            writer.write(frames)
