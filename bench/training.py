"""The training step, from plain to as it is: one lever after the other."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from bench.measuring import Measured, matmul_precision, measure
from bench.rows import Row
from bench.workload import Bench, MadeClips
from divid.config import Precision, Recipe
from divid.data.module import ClipBatch, ClipDataModule
from divid.flops import count_flops
from divid.models.cpu_blocks import as_in_diffusers
from divid.models.layout import channels_last
from divid.precision import autocast
from divid.training.module import make_optimizer, parameter_groups, training_losses
from divid.training.planning import compile_if_wanted, takes_graphs

MADE_CLIPS = 32
"""Clips in memory; the loader draws from them at random."""
AVERAGE_WEIGHT = 1e-3
"""Share of the new weights in the moving average."""


@dataclass(frozen=True)
class Setup:
    """How the same network is trained.

    Args:
        name: Name of the row.
        precision: `fp32` or `bf16`.
        frames_per_clip: Frames of each clip that the U-Net sees; 0: all.
        location: Where the clips are kept: `memory` (a loader on the host) or `device`.
        compile: As `training.compile`.
        is_plain: PyTorch's defaults for optimiser, memory layout and float32 products.
        has_plain_blocks: On a CPU: diffusers' code for the blocks of the U-Net and their attention.
    """

    name: str
    precision: Precision
    frames_per_clip: int
    location: Literal["memory", "device"]
    compile: Literal["auto", "graphs", "on", "off"]
    is_plain: bool
    has_plain_blocks: bool = False


class TrainingLoop:
    """Training steps as `divid train` makes them, the batch included; the trainer's log, checkpoints and validation are not.

    Args:
        bench: The settings.
        setup: How to train.
        recipe: Default: the bench's. Its precision, frames, location and compilation are the setup's.
        num_clips: Clips to draw from.
    """

    def __init__(self, bench: Bench, setup: Setup, recipe: Recipe | None = None, num_clips: int = MADE_CLIPS) -> None:
        recipe = recipe or bench.recipe
        changes = {"precision": setup.precision, "frames_per_clip": setup.frames_per_clip, "compile": setup.compile}
        data_options = replace(recipe.data, location=setup.location)
        self.recipe = replace(recipe, training=replace(recipe.training, **changes), data=data_options)  # type: ignore[arg-type]
        self.device, self.setup = bench.device, setup
        self.model: Any = bench.new_model(self.recipe).train()
        if setup.has_plain_blocks:
            as_in_diffusers(self.model.denoiser.unet)
            self.model.denoiser.unet.set_attn_processor(AttnProcessor2_0())
        if bench.device == "cuda" and not setup.is_plain:
            channels_last(self.model)
        self.data = ClipDataModule(MadeClips(recipe, num_clips), recipe.seed, recipe.training.batch_size, data_options)
        self.data.load(self.device)
        self._batches = iter(self.data.loader(0))
        options = recipe.training
        self.optimizer: torch.optim.Optimizer
        if setup.is_plain:
            self.optimizer = torch.optim.AdamW(parameter_groups(self.model, options.weight_decay), lr=options.learning_rate)
        else:
            self.optimizer = make_optimizer(self.model, options)
        self.is_compiled = False
        self._average = [p.detach().clone() for p in self.model.parameters()]

    def next_batch(self) -> ClipBatch:
        """Fetch a batch and put it on the device."""
        raw = next(self._batches)
        frames = None if raw.frames is None else raw.frames.to(self.device)
        return self.data.to_clip_batch(raw._replace(frames=frames))

    def step(self) -> None:
        """Make one step: batch, loss, gradient, clipping, optimiser, moving average."""
        batch = self.next_batch()
        with autocast(self.device, self.recipe.training.precision):
            total = training_losses(self.model, batch, self.recipe)["total"]
        total.backward()
        parameters = list(self.model.parameters())
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        torch.nn.utils.clip_grads_with_norm_(parameters, self.recipe.training.gradient_clip, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(self._average, parameters, AVERAGE_WEIGHT)

    def measure(self, bench: Bench) -> tuple[Measured, float]:
        """Time the step.

        Args:
            bench: The settings.

        Returns:
            What it took, and its counted operations.
        """
        with self.products():
            flops = count_flops(self.step)
            self.compile()
            return measure(self.step, self.device, bench.effort), flops

    def compile(self) -> None:
        """Compile the networks if the setup says so and it works here; `is_compiled` tells."""
        eager = self.model._train_denoiser
        if self.setup.compile != "off":
            compile_if_wanted(self.model, self.next_batch(), self.recipe)
        self.is_compiled = self.model._train_denoiser is not eager

    def products(self) -> contextlib.AbstractContextManager[None]:
        """Give the context in which float32 products are computed as the setup has it."""
        return matmul_precision(self.device, "highest" if self.setup.is_plain else "high")


def ladder(bench: Bench) -> list[Setup]:
    """Give the setups from the plain one to that of `divid train`, each with one lever more.

    Args:
        bench: The settings.
    """
    options = bench.recipe.training
    few, precision = options.frames_per_clip, options.precision
    location: Literal["memory", "device"] = "device" if bench.device == "cuda" else "memory"
    is_cpu = bench.device == "cpu"
    plain = "plain: float32, eager, all frames, loader on the host"
    steps = [Setup(plain, "fp32", 0, "memory", "off", is_plain=True, has_plain_blocks=is_cpu)]
    if is_cpu:
        steps.append(Setup("blocks of the U-Net as a CPU computes them soonest", "fp32", 0, "memory", "off", True))
    if 0 < few < bench.num_frames:
        steps.append(Setup(f"{few} of {bench.num_frames} frames through the U-Net", "fp32", few, "memory", "off", True))
    if precision == "bf16":
        steps.append(Setup("and bf16", precision, few, "memory", "off", True))
    last = "and Muon" if options.optimizer == "muon" else "and fused optimiser"
    if bench.device == "cuda":
        last += ", channels last, clips on the GPU"
    if options.compile != "off":
        last += ", as CUDA graphs" if takes_graphs(options.compile, bench.device) else ", compiled"
    return [*steps, Setup(f"{last} (as divid train)", precision, few, location, options.compile, False)]


def trained_setup(bench: Bench) -> Setup:
    """Give the setup of `divid train`.

    Args:
        bench: The settings.
    """
    return ladder(bench)[-1]


def training_rows(bench: Bench) -> Iterator[Row]:
    """Measure the training step with its batch, in seconds a clip.

    Args:
        bench: The settings.
    """
    reference: Row | None = None
    for setup in ladder(bench):
        loop, measured, flops = _measure_what_fits(bench, setup)
        batch_size, notes = loop.recipe.training.batch_size, []
        if batch_size != bench.recipe.training.batch_size:
            notes.append(f"{batch_size} clips a step, more do not fit")
        if setup.compile != "off" and not loop.is_compiled:
            notes.append("neither compiled nor graphed, which did not work here")
        row = bench.row(
            "train", setup.name, measured, "clip", batch_size, precision=setup.precision, reference=reference, flops=flops,
            note="; ".join(notes),
        )  # fmt: skip
        del loop
        reference = reference or row
        yield row


def _measure_what_fits(bench: Bench, setup: Setup) -> tuple[TrainingLoop, Measured, float]:
    """Measure with the recipe's batch, or with half of it, and so on, where a GPU's memory does not hold that."""
    batch_size = bench.recipe.training.batch_size
    while True:
        recipe = replace(bench.recipe, training=replace(bench.recipe.training, batch_size=batch_size))
        try:
            loop = TrainingLoop(bench, setup, recipe)
            return loop, *loop.measure(bench)
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
            batch_size //= 2
        gc.collect()
        torch.cuda.empty_cache()
