"""Muon: momentum whose matrices are made orthogonal, for kernels and matrices; AdamW for everything else."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.adamw import adamw

from divid.errors import first_line
from divid.precision import has_bf16_units
from divid.training.sharding import part_like, whole

logger = logging.getLogger("divid")

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of the iteration X <- a X + b (X X') X + c (X X')^2 X: steep at 0, and what is near 1 stays near 1."""
NUM_ITERATIONS = 4
SMALLEST_SIDE = 8
"""Matrices with a shorter side than this are left to AdamW."""
ADAM_RMS = 0.2
"""Root mean square of an AdamW update at rate 1, which Muon's are scaled to: one rate serves both."""
ADAM_BETAS = (0.9, 0.999)
EPSILON = 1e-8


def orthogonalise(matrices: Float[Tensor, "*count rows columns"]) -> Float[Tensor, "*count rows columns"]:
    """Bring the singular values of matrices near 1 (0.7 to 1.2) and keep their singular vectors: U S V' -> about U V'.

    Args:
        matrices: One, or several of one shape; of any scale. Zeros stay zeros.

    Source:
        Newton-Schulz iteration of Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), in bfloat16
        as there where the device has units for it; without them bfloat16 would be up to a hundred times slower than the float32
        that is taken. Differs: 4 iterations instead of 5; singular values below a two-hundredth of the norm stay smaller.
    """
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.reshape(-1, *matrices.shape[-2:]).to(torch.float32)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    x = x.bfloat16() if has_bf16_units(x.device.type) else x
    x = x.mT if is_tall else x
    through_gram = x.dtype == torch.float32 and x.shape[-1] >= 2 * x.shape[-2]
    x = _iterated_through_gram(x) if through_gram else _iterated(x)
    return (x.mT if is_tall else x).to(matrices).reshape(matrices.shape)


def _iterated(x: Tensor) -> Tensor:
    a, b, c = COEFFICIENTS
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _iterated_through_gram(x: Tensor) -> Tensor:
    """Do the same with products of the shorter side only: X X' and its polynomials commute, so one factor gathers them.

    X <- P X with P = a + b G + c G^2 and G = X X', so G <- P^2 G, and the end is the product of all P times the first X. A gram
    matrix holds squares of singular values: float32 has room for that, bfloat16 has not.
    """
    a, b, c = COEFFICIENTS
    gram, factor = x @ x.mT, None
    for iteration in range(NUM_ITERATIONS):
        step = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        step.diagonal(dim1=-2, dim2=-1).add_(a)
        factor = step if factor is None else step @ factor
        if iteration < NUM_ITERATIONS - 1:
            gram = step @ (step @ gram)
    return x if factor is None else factor @ x


def is_matrix(parameter: Tensor) -> bool:
    """Say whether Muon steps this parameter: a kernel or matrix that is not too thin.

    Args:
        parameter: A weight; kernels count as (output channels, everything else).
    """
    return parameter.ndim > 1 and min(parameter.shape[0], parameter.shape[1:].numel()) >= SMALLEST_SIDE


class Muon(torch.optim.Optimizer):
    """Step kernels and matrices by orthogonal momentum, vectors and thin matrices by AdamW.

    The update of a matrix is U V' of its Nesterov momentum U S V', scaled to the size of AdamW's updates, so that learning rates
    and weight decay carry over from AdamW. (`torch.optim.Muon`, in PyTorch from 2.9 on, takes matrices only, not kernels.)

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate of both.
        weight_decay: Decoupled, of both.
        momentum: Of the matrices.
        has_graph: On a GPU, record how momenta are made orthogonal as a CUDA graph, and replay it: over a thousand short kernels
            are launched at once. Updates are the same but for rounding; in one process only.

    Source:
        Jordan et al., "Muon" (2024); the scale is that of Liu et al., "Muon is Scalable for LLM Training" (2025).
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, weight_decay: float = 0.01, momentum: float = 0.95, *, has_graph: bool = False
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.has_graph = has_graph
        self._recorded: dict[int, RecordedUpdates] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step of every parameter that has a gradient.

        Args:
            closure: Computes the loss again, with gradients; its value is returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for number, group in enumerate(self.param_groups):
            with_gradient = [p for p in group["params"] if p.grad is not None]
            matrices = [p for p in with_gradient if is_matrix(p)]
            others = [p for p in with_gradient if not is_matrix(p)]
            if matrices:
                self._step_matrices(matrices, group, number)
            if others:
                self._step_others(others, group)
        return loss

    def _step_matrices(self, parameters: list[Tensor], group: dict[str, Any], number: int) -> None:
        momenta = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            momenta.append(state["momentum_buffer"])
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        directions = torch._foreach_lerp(gradients, momenta, group["momentum"])
        updates = self._replayed(directions, number) if self.has_graph and self._is_on_gpu(parameters) else None
        if updates is not None:
            torch._foreach_add_(parameters, updates, alpha=-group["lr"])
            return
        for place, update in _updates(directions):
            parameter = parameters[place]
            parameter.add_(part_like(update.view(parameter.shape), parameter), alpha=-group["lr"])

    def _is_on_gpu(self, parameters: list[Tensor]) -> bool:
        return parameters[0].is_cuda

    def _replayed(self, directions: Sequence[Tensor], number: int) -> list[Tensor] | None:
        """Give the updates by a CUDA graph, which is recorded first where that has not been done; None where it cannot be."""
        recorded = self._recorded.get(number)
        if recorded is None or not recorded.fits(directions):
            try:
                recorded = self._recorded[number] = RecordedUpdates(directions)
            except RuntimeError as error:
                self.has_graph = False
                logger.warning("the optimiser's step is not recorded as a CUDA graph: %s", first_line(error))
                return None
        return recorded(directions)

    def _step_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        means, squares, steps = [], [], []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state.update(exp_avg=torch.zeros_like(parameter), exp_avg_sq=torch.zeros_like(parameter), step=torch.zeros(()))
            means.append(state["exp_avg"])
            squares.append(state["exp_avg_sq"])
            steps.append(state["step"])
        gradients = [p.grad for p in parameters if p.grad is not None]
        beta1, beta2 = ADAM_BETAS
        is_fused = parameters[0].device.type == "cpu"  # step counts are kept there, and one kernel has to find all in one place
        adamw(
            parameters, gradients, means, squares, [], steps, foreach=not is_fused, fused=is_fused, amsgrad=False, beta1=beta1,
            beta2=beta2, lr=group["lr"], weight_decay=group["weight_decay"], eps=EPSILON, maximize=False,
        )  # fmt: skip


class RecordedUpdates:
    """The updates of matrices as a function of their momenta, recorded as a CUDA graph.

    Args:
        momenta: On a GPU; of the shapes and types that will come.
    """

    def __init__(self, momenta: Sequence[Tensor]) -> None:
        self._inputs = [momentum.clone() for momentum in momenta]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            self._compute()  # what libraries set up at their first call is not recorded
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = self._compute()

    def fits(self, momenta: Sequence[Tensor]) -> bool:
        """Say whether these have the shapes and types of the recorded ones.

        Args:
            momenta: Others.
        """
        return [(m.shape, m.dtype) for m in momenta] == [(m.shape, m.dtype) for m in self._inputs]

    def __call__(self, momenta: Sequence[Tensor]) -> list[Tensor]:
        """Give the updates at rate 1; the next call overwrites them.

        Args:
            momenta: Of the recorded shapes.
        """
        torch._foreach_copy_(self._inputs, list(momenta))
        self._graph.replay()
        return self._outputs

    def _compute(self) -> list[Tensor]:
        updates = list(self._inputs)
        for place, update in _updates(self._inputs):
            updates[place] = update.view(self._inputs[place].shape)
        return updates


def _updates(momenta: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Give the place of each momentum with its update at rate 1, as a matrix; all matrices of one shape are taken at once.

    Momenta that are shared out among processes are put together for it: a part of a matrix has other singular vectors.
    """
    by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, momentum in enumerate(momenta):
        by_shape[momentum.shape[0], momentum.shape[1:].numel()].append(place)
    for shape, places in by_shape.items():
        matrices = torch.stack([whole(momenta[place]).flatten(1) for place in places])
        yield from zip(places, orthogonalise(matrices) * (ADAM_RMS * max(shape) ** 0.5), strict=True)
