"""Weights shared out among the processes (FSDP): each keeps its part, and a block's are gathered while it is at work."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

ENTRIES = ("losses", "encode", "decode")
"""Methods of a `Disentangler` that training and validation call, before which the weights outside all blocks are gathered."""


@runtime_checkable
class HasBlocks(Protocol):
    """A method with parts whose weights can be gathered one part at a time."""

    def blocks(self) -> list[nn.Module]:
        """Give them; each is called whole, and gives tensors, or tuples of them."""
        ...


def is_in_process_group() -> bool:
    """Tell whether this process has joined others."""
    return distributed.is_available() and distributed.is_initialized()


def local(value: Tensor) -> Tensor:
    """Give this process's part of a tensor; a tensor that is not shared out is a part by itself.

    Args:
        value: Of either kind.
    """
    return value.to_local() if isinstance(value, DTensor) else value


def whole(value: Tensor) -> Tensor:
    """Put a tensor together from all processes' parts; one that is not shared out comes back as it is.

    Args:
        value: Of either kind. All processes have to be here.
    """
    return value.full_tensor() if isinstance(value, DTensor) else value


def part_like(value: Tensor, like: Tensor) -> Tensor:
    """Share a tensor out as another one is, each process taking its part of what it has.

    Args:
        value: Whole, the same in all processes.
        like: Of the same shape; if it is not shared out, `value` comes back as it is.
    """
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def share_out(model: nn.Module, mesh: DeviceMesh) -> None:
    """Leave each process its part of a model's weights, on its device.

    Args:
        model: A `Disentangler`, the same in all processes; without `blocks`, all its weights are gathered at once.
        mesh: The processes.
    """
    for block in model.blocks() if isinstance(model, HasBlocks) else []:
        fully_shard(block, mesh=mesh)
    # What lies outside the blocks stays gathered from forward to backward: an entry may call another one.
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    for name in ENTRIES:
        register_fsdp_forward_method(model, name)


class ShardedStrategy(DDPStrategy):
    """As DDP, but weights, gradients and the optimiser's moments are shared out (`training.shard_weights`).

    Checkpoints hold whole tensors in the order that DDP's have: process 0 writes one file, and any number of processes, with
    or without sharding, goes on from it. Weights are loaded before they are shared out.

    Source:
        Zhao et al., "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel" (2023); here `fully_shard`.
    """

    @cached_property
    def mesh(self) -> DeviceMesh:
        """All processes, in one row."""
        return init_device_mesh(self.root_device.type, (self.world_size,))

    def model_to_device(self) -> None:
        """Share the trained model out."""
        assert self.lightning_module is not None
        model = self.lightning_module.model
        assert isinstance(model, nn.Module)
        share_out(model, self.mesh)
        super().model_to_device()

    def configure_ddp(self) -> None:
        """Wrap nothing: gradients are averaged where they are shared out."""

    def gathered(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Give a state with its tensors whole, on the CPU, in process 0; the others take part and keep their own.

        Args:
            values: Tensors and whatever else, in nested dicts.
        """
        result: dict[str, Any] = {}
        for name, value in values.items():
            if isinstance(value, Mapping):
                result[name] = self.gathered(value)
                continue
            full = whole(value) if isinstance(value, DTensor) else value
            result[name] = full.cpu() if full is not value and self.is_global_zero else value
        return result

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Give the whole weights."""
        return self.gathered(super().lightning_module_state_dict())

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Give the optimiser's whole state."""
        return self.gathered(super().optimizer_state(optimizer))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Share out the optimiser's whole state."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            numbers = [number for group in saved["param_groups"] for number in group["params"]]
            state = {
                number: {
                    name: part_like(value, weight) if value.shape == weight.shape else value
                    for name, value in saved["state"][number].items()
                }
                for number, weight in zip(numbers, weights, strict=True)
                if number in saved["state"]
            }
            optimizer.load_state_dict({**saved, "state": state})

    def teardown(self) -> None:
        """Free what Lightning holds; the parts stay where they are, for a part alone is of no use elsewhere."""
        assert self.cluster_environment is not None
        assert self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()
        self.checkpoint_io.teardown()
