"""Compare the `small` model with random weights on the CPU and on the GPU, in fp32 and in bf16."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from divid import Codes, DividModel, ModelConfig, SamplingConfig
from divid.randomness import Randomness, make_generator

FP32_TOLERANCE = 1e-3
"""Largest relative difference between CPU and GPU in fp32, with TF32 off."""


def relative_difference(value: Tensor, reference: Tensor) -> float:
    """Give the norm of the difference over the norm of the reference.

    Args:
        value: What is checked.
        reference: What it should be.
    """
    value, reference = value.detach().double().cpu(), reference.detach().double()
    return ((value - reference).norm() / reference.norm().clamp_min(1e-12)).item()


def results(model: DividModel, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Run every part once on the same inputs.

    Args:
        model: The model; it is moved to the device.
        device: `cpu` or `cuda`.
        dtype: fp32, or bf16 under autocast.
    """
    model = model.to(device)
    video = torch.rand(2, 6, *model.frame_shape, generator=make_generator("check", "video")) * 2 - 1
    sampling = SamplingConfig(num_inference_steps=4)
    with torch.no_grad(), torch.autocast(device, dtype, enabled=dtype != torch.float32):
        codes: Codes = model.encode(video.to(device))
        losses = model.losses(video.to(device), Randomness(0, 0, (0, 1), 2))
        sample = model.decode(codes, seeds=[0, 1], sampling=sampling)
    return {"static": codes.static, "dynamic": codes.dynamic, "sample": sample, **losses}


def main() -> int:
    """Print the table.

    Returns:
        The exit code.
    """
    if not torch.cuda.is_available():
        print("check: no CUDA device here")
        return 2
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    model = DividModel(ModelConfig(preset="small", channels=1)).eval()
    cpu = results(model, "cpu", torch.float32)
    gpu_fp32, gpu_bf16 = results(model, "cuda", torch.float32), results(model, "cuda", torch.bfloat16)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(f"{'':<14}{'fp32 GPU/CPU':>14}{'bf16 GPU/CPU':>14}")
    worst = 0.0
    for name, reference in cpu.items():
        # Training noise is drawn on the device, whose stream differs from the CPU's: the noisy terms only need the right size.
        is_exact = name not in ("simple", "total")
        differences = [relative_difference(value[name], reference) for value in (gpu_fp32, gpu_bf16)]
        worst = max(worst, differences[0]) if is_exact else worst
        print(f"{name:<14}{differences[0]:>14.2e}{differences[1]:>14.2e}{'' if is_exact else '   (other noise)'}")
    is_good = worst <= FP32_TOLERANCE
    print(f"check: {'good' if is_good else 'FAILED'}, largest fp32 difference {worst:.2e} (allowed {FP32_TOLERANCE:g})")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
