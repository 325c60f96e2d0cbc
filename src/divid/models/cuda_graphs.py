"""A network's training pass as CUDA graphs: recorded once for every shape, then replayed in one launch."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import Tensor, nn

from divid.errors import first_line

logger = logging.getLogger("divid")

MOST_SHAPES = 8
"""Shapes of the inputs for which graphs are kept; a graph holds the memory of a whole pass."""
WARM_UP_RUNS = 3


class _Alone(nn.Module):
    """Calls a network; `torch.cuda.make_graphed_callables` puts its own pass in this module's place, not in the network's."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Any:
        """Call it."""
        return self.network(*inputs)


class GraphedByShape:
    """Call a network; in training on a GPU forward and backward pass are recorded as CUDA graphs and replayed.

    A small network has thousands of short kernels a step, and a GPU waits while Python launches them one by one. A graph of them
    is launched at once. It computes what the network computes, by the same kernels: nothing is compiled. One graph is recorded
    when inputs of a new shape first come; whatever cannot be replayed is computed as it always was: without gradients, in
    evaluation, on a CPU, a shape that could not be recorded (which is logged), and a second pass before the first one's gradient
    has been taken.

    Args:
        network: Its weights must keep their places in memory (optimisers and `load_state_dict` write in place). Takes tensors
            and gives one tensor.

    Source:
        `torch.cuda.make_graphed_callables` (PyTorch).
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._passes: dict[Any, Any] = {}
        self._waiting: set[Any] = set()

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Call the network.

        Args:
            inputs: Its arguments.
        """
        if not (torch.is_grad_enabled() and self.network.training and self._is_on_gpu(inputs)):
            return self.network(*inputs)
        is_mixed = torch.is_autocast_enabled("cuda")
        kinds = tuple((tuple(value.shape), value.dtype, value.requires_grad) for value in inputs)
        key = kinds, torch.get_autocast_dtype("cuda") if is_mixed else None
        if key not in self._passes and len(self._passes) < MOST_SHAPES:
            self._passes[key] = self._record(inputs)
        replay = self._passes.get(key)
        if replay is None or key in self._waiting:
            return self.network(*inputs)
        output = replay(*inputs)
        if output.requires_grad:
            self._waiting.add(key)  # its memory holds what the backward pass needs
            output.register_hook(lambda _: self._waiting.discard(key))
        return output

    def __deepcopy__(self, memo: dict[int, Any]) -> GraphedByShape:
        """Copy the network without what was recorded of it: a graph works on the weights of one network."""
        return type(self)(copy.deepcopy(self.network, memo))

    def _is_on_gpu(self, inputs: tuple[Tensor, ...]) -> bool:
        return all(value.is_cuda for value in inputs)

    def _record(self, inputs: tuple[Tensor, ...]) -> Any:
        """Give a function that replays the pass; None where it cannot be recorded."""
        samples = tuple(value.detach().clone().requires_grad_(value.requires_grad) for value in inputs)
        dtype, is_mixed = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        # PyTorch warns, once a process, that gradients come from another stream than they are gathered in: so graphs work.
        set_warning = getattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch", None)  # younger than torch 2.6
        if set_warning is not None:
            set_warning(False)
        try:
            with torch.autocast("cuda", dtype, enabled=is_mixed, cache_enabled=False):
                return torch.cuda.make_graphed_callables(
                    _Alone(self.network).train(), samples, num_warmup_iters=WARM_UP_RUNS, allow_unused_input=True
                )
        except RuntimeError as error:
            logger.warning("%s is not recorded as a CUDA graph: %s", type(self.network).__name__, first_line(error))
            return None
