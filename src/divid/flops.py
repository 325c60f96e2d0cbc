"""How many floating point operations something takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


def count_flops(function: Callable[[], Any]) -> float:
    """Count the floating point operations of matrix products, convolutions and attention in one run, forward and backward.

    A multiplication and an addition are two. Norms, activations, the optimiser and fused recurrent layers are not counted, and
    nothing inside a compiled graph is: count before compiling.

    Args:
        function: What is counted.
    """
    with FlopCounterMode(display=False, custom_mapping=_on_a_cpu()) as counter:
        function()
    return float(counter.get_total_flops())


def _on_a_cpu() -> dict[Any, Any]:
    """Give the formulas of what PyTorch's counter does not know: attention on a CPU, and oneDNN's linear layer."""
    operations: Any = torch.ops
    formulas = {
        operations.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        operations.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    if hasattr(operations.mkldnn, "_linear_pointwise"):
        formulas[operations.mkldnn._linear_pointwise] = _linear
    return formulas


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


def _linear(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    return 2 * math.prod(x) * weight[0]
