"""One of several processes that share a training step: SETTINGS RANK. The first one measures and writes `result.json`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from bench.measuring import Effort, measure
from bench.workload import MadeClips
from divid.config import Recipe
from divid.data.module import ClipBatch, ClipDataModule
from divid.models.divid import DividModel
from divid.precision import autocast
from divid.randomness import derive_seed
from divid.recipes import load_recipe
from divid.training.module import make_optimizer, training_losses


class Losses(nn.Module):
    """A model whose forward pass is its loss, as `DistributedDataParallel` needs it.

    Args:
        model: The model.
        recipe: Resolved.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.model, self.recipe = model, recipe

    def forward(self, batch: ClipBatch) -> Tensor:
        """Give the loss."""
        return training_losses(self.model, batch, self.recipe)["total"]


def main(arguments: list[str]) -> None:
    """Join the others, make steps, and report if this is the first process.

    Args:
        arguments: As above.
    """
    settings_path, rank = Path(arguments[0]), int(arguments[1])
    settings = json.loads(settings_path.read_text(encoding="utf-8"))
    recipe, device = load_recipe(settings_path.parent / "recipe.yaml").resolve(), settings["device"]
    torch.set_num_threads(settings["threads"])
    if device == "cuda":
        torch.cuda.set_device(rank)
    distributed.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=f"file://{settings_path.parent.resolve() / 'meeting'}",
        rank=rank,
        world_size=settings["count"],
    )
    step = make_step(recipe, device, rank, settings["count"])
    effort = Effort(**settings["effort"])
    # All must make equally many steps, so time decides nothing here.
    measured = measure(step, device, replace(effort, max_runs=effort.min_runs))
    if rank == 0:
        (settings_path.parent / "result.json").write_text(json.dumps(asdict(measured)), encoding="utf-8")
    distributed.barrier()
    distributed.destroy_process_group()


def make_step(recipe: Recipe, device: str, rank: int, count: int) -> Any:
    """Give a function that makes one training step on this process's share of the batch.

    Args:
        recipe: Resolved.
        device: `cpu` or `cuda`.
        rank: Number of this process.
        count: Number of processes.
    """
    torch.manual_seed(derive_seed("bench"))
    model = DividModel(recipe.model).to(device).train()  # type: ignore[arg-type]  # the bench has checked the method
    shared = DistributedDataParallel(Losses(model, recipe))
    optimizer = make_optimizer(shared, recipe.training)
    data = ClipDataModule(MadeClips(recipe, 2 * recipe.training.batch_size), recipe.seed, recipe.training.batch_size, recipe.data)
    data.load(device)
    batches = iter(data.loader(0, rank, count))

    def step() -> None:
        raw = next(batches)
        batch = data.to_clip_batch(raw._replace(frames=None if raw.frames is None else raw.frames.to(device)))
        with autocast(device, recipe.training.precision):
            total = shared(batch)
        total.backward()
        torch.nn.utils.clip_grad_norm_(shared.parameters(), recipe.training.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


if __name__ == "__main__":
    main(sys.argv[1:])
