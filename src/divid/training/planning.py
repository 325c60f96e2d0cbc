"""What a run will cost, and the choices that a timed step settles: precision and compilation."""

from __future__ import annotations

import inspect
import logging
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from divid.config import ModelConfig, Precision, Recipe
from divid.data.module import ClipBatch
from divid.errors import ConfigError, first_line
from divid.flops import count_flops
from divid.precision import autocast, has_bf16_units
from divid.recipes import dump_recipe
from divid.training.module import make_optimizer, training_losses

logger = logging.getLogger("divid")

BYTES_A_WEIGHT = 5 * 4
"""Weight, gradient, two moments of AdamW (Muon has one) and the average, each in float32."""
PROBE_CLIPS = 4
"""Clips of a dry run's step on a CPU; memory and time of the whole batch are this many times larger."""
SHARE_FOR_STEPS = 0.9
"""Of the time that a training is to fit into; the rest is for log, validation, checkpoints and the export."""
MIN_STEPS_TO_COMPILE = 1000
"""Compiling takes a minute or more; shorter runs do not earn it back."""


@dataclass(frozen=True)
class RunCost:
    """What a run takes.

    Args:
        parameters: Number of weights of each part of the model.
        encoder_flops: Floating point operations to encode one frame.
        decoder_flops: The same to decode (denoise) one frame once, in training's forward pass.
        memory_bytes: Weights, optimiser, and what a step keeps for the backward pass.
        seconds_per_step: Measured.
        num_steps: Steps in all.
    """

    parameters: dict[str, int]
    encoder_flops: float
    decoder_flops: float
    memory_bytes: float
    seconds_per_step: float
    num_steps: int

    def describe(self) -> str:
        """Give the numbers in lines for a person."""
        parts = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in self.parameters.items() if count)
        minutes = self.seconds_per_step * self.num_steps / 60
        encoder, decoder = self.encoder_flops / 1e9, self.decoder_flops / 1e9
        step = f"{self.num_steps} steps of {self.seconds_per_step:.3f} s"
        lines = (
            f"parameters    {sum(self.parameters.values()) / 1e6:.2f} M ({parts})",
            f"forward pass  {encoder:.2f} GFLOP a frame encoded, {decoder:.2f} GFLOP a frame decoded",
            f"memory        about {self.memory_bytes / 2**30:.2f} GiB, besides the clips",
            f"time          about {minutes:.1f} min for {step}, besides validation",
        )
        return "\n".join(lines)


def timed_step(model: nn.Module, batch: ClipBatch, recipe: Recipe, precision: str) -> float:
    """Give the seconds that one training step takes; the weights stay as they are.

    Args:
        model: On the batch's device.
        batch: A real one.
        recipe: Resolved.
        precision: `fp32` or `bf16`.
    """
    _synchronise(batch.video)
    start = time.perf_counter()
    with autocast(batch.video.device.type, precision):
        total = training_losses(model, batch, recipe)["total"]
    total.backward()
    _synchronise(batch.video)
    seconds = time.perf_counter() - start
    model.zero_grad(set_to_none=True)
    return seconds


def choose_precision(model: nn.Module, batch: ClipBatch, recipe: Recipe, world_size: int = 1) -> Precision:
    """Settle `training.precision=auto`.

    Args:
        model: On the batch's device.
        batch: A real one.
        recipe: Resolved.
        world_size: Number of processes; they must agree, so with several nothing is timed.

    Returns:
        `bf16` or `fp32`.
    """
    if recipe.training.precision != "auto":
        return recipe.training.precision
    chosen: Precision
    device = batch.video.device.type
    if device == "cuda":
        chosen = "bf16" if has_bf16_units(device) else "fp32"
        logger.info("precision: %s, as this GPU %s it", chosen, "has" if chosen == "bf16" else "has no bf16 and needs")
        return chosen
    if not has_bf16_units(device):
        logger.info("precision: fp32, as this processor has no units for bf16")
        return "fp32"
    if world_size > 1:
        logger.info("precision: fp32, since several processes on a CPU take no timed steps")
        return "fp32"
    fp32, bf16 = (quickest_step(model, batch, recipe, precision) for precision in ("fp32", "bf16"))
    chosen = "bf16" if bf16 < fp32 else "fp32"
    logger.info("precision: %s, as a step takes %.3f s in fp32 and %.3f s in bf16", chosen, fp32, bf16)
    return chosen


def quickest_step(model: nn.Module, batch: ClipBatch, recipe: Recipe, precision: str) -> float:
    """Give the shorter of two timed steps, after one that warms up.

    Args:
        model: On the batch's device.
        batch: A real one.
        recipe: Resolved.
        precision: `fp32` or `bf16`.
    """
    timed_step(model, batch, recipe, precision)
    return min(timed_step(model, batch, recipe, precision) for _ in range(2))


def optimizer_step(model: nn.Module, recipe: Recipe) -> float:
    """Give the seconds of the optimiser's part of a step, which does not grow with the clips; weights stay as they are.

    Args:
        model: The network, without gradients.
        recipe: Resolved.
    """
    optimizer = make_optimizer(model, replace(recipe.training, learning_rate=0.0, shard_optimizer=False))
    weights = [p for p in model.parameters() if p.requires_grad]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    seconds = []
    for _ in range(4):  # the first makes its state
        _synchronise(weights[0])
        start = time.perf_counter()
        optimizer.step()
        _synchronise(weights[0])
        seconds.append(time.perf_counter() - start)
    optimizer.zero_grad(set_to_none=True)
    return min(seconds[1:])


def seconds_a_step(model: nn.Module, batch: ClipBatch, recipe: Recipe, times: float = 1.0) -> float:
    """Give the mean time of a step over the run, by timed ones; what begins late, and costs more, is timed by itself.

    Args:
        model: On the batch's device.
        batch: A real one, or a part of it.
        recipe: Resolved, with its precision settled.
        times: How many times as many clips the whole batch has.
    """
    recipe = _recipe_of_part(recipe, batch, times)
    options, shares = recipe.training, {0.0}
    if isinstance(recipe.model, ModelConfig):
        shares |= set(recipe.model.late_starts().values())
    starts = sorted(share for share in shares if share < 1)
    seconds = optimizer_step(model, recipe)
    for start, end in zip(starts, [*starts[1:], 1.0], strict=True):
        there = batch._replace(step=math.ceil(start * options.num_steps))
        seconds += (end - start) * times * quickest_step(model, there, recipe, options.precision)
    return seconds


def _recipe_of_part(recipe: Recipe, batch: ClipBatch, times: float) -> Recipe:
    """Give the recipe of a part of a batch: levers that mix the clips of a batch (back-translation) look for no others."""
    if times <= 1:
        return recipe
    return replace(recipe, training=replace(recipe.training, batch_size=len(batch.video)))


def shortened(model: nn.Module, batch: ClipBatch, recipe: Recipe, times: float = 1.0) -> Recipe:
    """Give the recipe with as many of `training.num_steps` as fit into `training.fit_minutes`.

    Args:
        model: On the batch's device.
        batch: A real one, or a part of it.
        recipe: Resolved, with its precision settled.
        times: How many times as many clips the whole batch has.
    """
    options = recipe.training
    seconds = seconds_a_step(model, batch, recipe, times)
    fitting = int(SHARE_FOR_STEPS * 60 * options.fit_minutes / seconds)
    chosen = max(1, min(options.num_steps, fitting))
    logger.info("%d of %d steps fit into %g minutes, at %.3f s a step", chosen, options.num_steps, options.fit_minutes, seconds)
    return replace(recipe, training=replace(options, num_steps=chosen)).resolve()


def takes_graphs(wish: str, device: str, world_size: int = 1) -> bool:
    """Say whether `training.compile` asks for CUDA graphs.

    Args:
        wish: Its value; `auto` means graphs on one GPU.
        device: `cpu` or `cuda`.
        world_size: Processes of the training.
    """
    return wish == "graphs" or (wish == "auto" and device == "cuda" and world_size == 1)


def compile_if_wanted(model: Any, batch: ClipBatch, recipe: Recipe, world_size: int = 1) -> None:
    """Compile the model's networks, or record them as CUDA graphs, as `training.compile` says, and try one step.

    Args:
        model: On the batch's device; one without `compile_networks`, or `graph_networks`, stays as it is.
        batch: A real one.
        recipe: Resolved, with its precision settled.
        world_size: Processes of the training; graphs are for one.

    Raises:
        ConfigError: `on` or `graphs` was asked for and it does not work here.
    """
    wish, device = recipe.training.compile, batch.video.device.type
    has_graphs = takes_graphs(wish, device, world_size)
    method = "graph_networks" if has_graphs else "compile_networks"
    if wish == "off" or not hasattr(model, method):
        return
    reason = _why_no_graphs(device, world_size) if has_graphs else _why_not_compiled(recipe, device)
    if reason:
        refuse_or_log(wish, reason)
        return
    undo = _undo_of(model)
    try:
        if not has_graphs:
            logger.info("compiling the networks, which takes a minute or more")
        names = set(model.state_dict())
        getattr(model, method)()
        if set(model.state_dict()) != names:
            raise RuntimeError(f"{method} of this method renames its weights, so no checkpoint would fit")
        timed_step(model, batch, recipe, recipe.training.precision)
    except Exception as error:  # the compiler raises errors of many kinds
        undo()
        refuse_or_log(wish, first_line(error))


def _why_no_graphs(device: str, world_size: int) -> str | None:
    if device != "cuda":
        return "CUDA graphs need a GPU"
    return "CUDA graphs are recorded in trainings of one process only" if world_size > 1 else None


def _why_not_compiled(recipe: Recipe, device: str) -> str | None:
    if recipe.training.compile == "auto" and recipe.training.num_steps < MIN_STEPS_TO_COMPILE:
        return f"under {MIN_STEPS_TO_COMPILE} steps it does not pay"
    has_compiler = device != "cpu" or any(shutil.which(name) for name in ("c++", "g++", "clang++"))
    return None if has_compiler else "there is no C++ compiler (g++ or clang++)"


def _undo_of(model: Any) -> Callable[[], None]:
    """Give what takes compiled or graphed parts away again that are put into a model from now on."""
    eager = {name: value for name, value in vars(model).items() if callable(value)}
    parts = set(model._modules)

    def undo() -> None:
        for module in model.modules():
            module._compiled_call_impl = None
        for name in set(model._modules) - parts:
            del model._modules[name]
        for name in [name for name, value in vars(model).items() if callable(value) and name not in eager]:
            delattr(model, name)
        vars(model).update(eager)
        model.zero_grad(set_to_none=True)

    return undo


def refuse_or_log(wish: str, reason: str) -> None:
    """Say why nothing is compiled.

    Args:
        wish: `training.compile`.
        reason: Why not.

    Raises:
        ConfigError: `on` or `graphs` was asked for.
    """
    if wish in ("on", "graphs"):
        raise ConfigError(f"training.compile={wish} does not work here, {reason}: set training.compile=auto or off")
    logger.info("not compiled: %s", reason)


def take_probe(batch: ClipBatch) -> tuple[ClipBatch, float]:
    """Take a few clips of a batch on a CPU, so that a dry run of a step that would not fit into memory is no such step.

    Args:
        batch: A real one.

    Returns:
        The clips, and how many times as many the batch has. On a GPU, where time does not grow with the clips, the batch itself.
    """
    count = len(batch.video)
    if batch.video.device.type != "cpu" or count <= PROBE_CLIPS:
        return batch, 1.0
    few = ClipBatch(batch.video[:PROBE_CLIPS], batch.slots[:PROBE_CLIPS], batch.indices[:PROBE_CLIPS], batch.step)
    return few, count / PROBE_CLIPS


def estimate_cost(model: nn.Module, batch: ClipBatch, recipe: Recipe, times: float = 1.0) -> RunCost:
    """Measure what a run costs, by one clip's operations and a timed step.

    Args:
        model: On the batch's device.
        batch: A real one, or a part of it.
        recipe: Resolved, with its precision settled.
        times: How many times as many clips the whole batch has.
    """
    one = ClipBatch(batch.video[:1], batch.slots[:1], batch.indices[:1], batch.step)
    num_frames = one.video.shape[1]
    takes_few = "num_decoded_frames" in inspect.signature(model.losses).parameters  # type: ignore[arg-type]
    num_denoised = min(recipe.training.frames_per_clip or num_frames, num_frames) if takes_few else num_frames
    with torch.no_grad():
        encoder = count_flops(lambda: model.encode(one.video))  # type: ignore[operator]
        everything = count_flops(lambda: training_losses(model, one, recipe))
    parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    parameters["other"] = sum(p.numel() for p in model.parameters()) - sum(parameters.values())
    kept = _bytes_kept_for_backward(model, batch, _recipe_of_part(recipe, batch, times))
    return RunCost(
        parameters=parameters,
        encoder_flops=encoder / num_frames,
        decoder_flops=max(0.0, everything - encoder) / num_denoised,
        memory_bytes=sum(parameters.values()) * BYTES_A_WEIGHT + times * kept,
        seconds_per_step=seconds_a_step(model, batch, recipe, times),
        num_steps=recipe.training.num_steps,
    )


def describe_plan(model: nn.Module, batch: ClipBatch, recipe: Recipe, times: float = 1.0) -> str:
    """Give what `--dry-run` prints: the resolved recipe and the cost.

    Args:
        model: On the batch's device.
        batch: A real one, or a part of it.
        recipe: Resolved, with its precision settled.
        times: How many times as many clips the whole batch has.
    """
    cost = estimate_cost(model, batch, recipe, times)
    text = f"{dump_recipe(recipe)}\n{cost.describe()}"
    there = _total_memory(batch.video.device)
    if cost.memory_bytes < there:
        return text
    return (
        f"{text}\nTOO LARGE     this machine has {there / 2**30:.1f} GiB: lower training.batch_size or training.frames_per_clip, "
        "or take a smaller recipe (puppets-cpu)"
    )


def _total_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _bytes_kept_for_backward(model: nn.Module, batch: ClipBatch, recipe: Recipe) -> int:
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        autocast(batch.video.device.type, recipe.training.precision),
    ):
        total = training_losses(model, batch, recipe)["total"]
    num_bytes = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del total
    return num_bytes


def _synchronise(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
