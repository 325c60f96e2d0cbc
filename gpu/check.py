"""Compare a model with random weights on the CPU and on the GPU, in fp32 and in bf16: tokens, one pass of the denoiser, samples.
On a GPU also say where a training step makes the CPU wait for it, and whether steps that are replayed as CUDA graphs are the
same steps, and how quick they are.

    python gpu/check.py [--device cuda] [--preset small]

Weights, clips, noise and the tokens that are decoded are the same everywhere. Exit code 0: fp32 is within tolerance; 1: it is
not; 2: there is no such device.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from divid import Codes, DividModel, ModelConfig, SamplingConfig
from divid.config import Precision, SolverName, TrainingConfig
from divid.model_parts import TokenConfig
from divid.precision import autocast
from divid.presets import PresetName
from divid.randomness import Randomness, make_generator
from divid.training.module import make_optimizer

FP32_TOLERANCE = 1e-3
"""Largest relative difference between CPU and GPU in fp32, with TF32 off."""
SOLVERS: tuple[SolverName, ...] = ("ddpm", "ddim", "dpmsolver++", "unipc")
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
NUM_STEPS = 3
NUM_TIMED_STEPS = 10
BATCH_SIZE, BATCH_FRAMES, BATCH_DENOISED = 32, 10, 4
"""Of the steps that are compared as CUDA graphs."""
NUM_CLIPS, NUM_FRAMES = 2, 3


@dataclass(frozen=True)
class Inputs:
    """What every device and precision is given.

    Args:
        video: Clips.
        codes: Tokens, not those of the clips.
        x_t: Noisy frames, one for each dynamic token.
        t: Their steps, from the first to the last.
    """

    video: Tensor
    codes: Codes
    x_t: Tensor
    t: Tensor

    @classmethod
    def draw(cls, model: DividModel) -> Inputs:
        """Draw them on the CPU.

        Args:
            model: Gives sizes and number of steps.
        """
        tokens, count = model.options.tokens, NUM_CLIPS * NUM_FRAMES
        assert tokens.static_dim and tokens.dynamic_dim

        def normal(name: str, *shape: int) -> Tensor:
            return torch.randn(*shape, generator=make_generator("check", name))

        codes = Codes(
            normal("static", NUM_CLIPS, tokens.static_dim), normal("dynamic", NUM_CLIPS, NUM_FRAMES, tokens.dynamic_dim)
        )
        t = torch.linspace(0, model.options.diffusion.num_train_timesteps - 1, count).long()
        video = normal("video", NUM_CLIPS, NUM_FRAMES, *model.frame_shape).tanh()
        return cls(video, codes, normal("noise", count, *model.frame_shape), t)


def relative_difference(value: Tensor, reference: Tensor) -> float:
    """Give the norm of the difference over the norm of the reference.

    Args:
        value: What is checked.
        reference: What it should be.
    """
    value, reference = value.detach().double().cpu(), reference.detach().double().cpu()
    return ((value - reference).norm() / reference.norm().clamp_min(1e-12)).item()


@torch.no_grad()
def results(model: DividModel, inputs: Inputs, device: str, precision: Precision) -> dict[str, Tensor]:
    """Run every part once.

    Args:
        model: The model; it is moved to the device.
        inputs: The same for all.
        device: `cpu` or `cuda`.
        precision: `fp32` or `bf16`.
    """
    model = model.to(device)
    static, dynamic = inputs.codes.static[:, None].expand(-1, NUM_FRAMES, -1).flatten(0, 1), inputs.codes.dynamic.flatten(0, 1)
    with autocast(device, precision):
        codes = model.encode(inputs.video.to(device))
        noisy = (value.to(device) for value in (inputs.x_t, inputs.t, static, dynamic))
        values = {"static tokens": codes.static, "dynamic tokens": codes.dynamic, "denoiser": model.predict(*noisy)}
    for solver in SOLVERS:
        sampling = SamplingConfig(solver=solver, num_inference_steps=NUM_STEPS, precision=precision)
        values[f"sample, {solver}"] = model.decode(inputs.codes, seeds=list(range(NUM_CLIPS)), sampling=sampling)
    return values


def host_waits(model: DividModel, video: Tensor) -> list[str]:
    """Give the places at which a training step makes the CPU wait for the GPU, which then stands still until it is told more.

    Args:
        model: On the GPU.
        video: The batch's clips, there.
    """
    randomness = Randomness(0, 0, tuple(range(len(video))), len(video))
    model.losses(video, randomness, num_decoded_frames=2)["total"].backward()  # what happens once only
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            model.losses(video, randomness, num_decoded_frames=2)["total"].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [f"{Path(entry.filename).name}:{entry.lineno}" for entry in seen if "synchroniz" in str(entry.message)]


@dataclass(frozen=True)
class Steps:
    """What some training steps gave.

    Args:
        losses: Of each step.
        weights: All weights after them, in one row.
        milliseconds: Median time of a step afterwards.
    """

    losses: Tensor
    weights: Tensor
    milliseconds: float


def train(model: DividModel, video: Tensor, compile: Literal["graphs", "off"], precision: Precision) -> Steps:
    """Make some steps of `divid train` with a model on the GPU, the same whenever this is called, and time some more.

    Args:
        model: On the GPU.
        video: The batch's clips, there.
        compile: As `training.compile`.
        precision: `fp32` or `bf16`.
    """
    model = copy.deepcopy(model).train()
    model.to(memory_format=torch.channels_last)
    if compile == "graphs":
        model.graph_networks()
    optimizer = make_optimizer(model, TrainingConfig(optimizer="muon", learning_rate=1e-3, compile=compile))
    losses, times = [], []
    for step in range(NUM_STEPS + NUM_TIMED_STEPS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        randomness = Randomness(0, step, tuple(range(len(video))), len(video))
        with autocast("cuda", precision):
            loss = model.losses(video, randomness, num_decoded_frames=BATCH_DENOISED)["total"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        if step < NUM_STEPS:
            losses.append(loss.detach())
            weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    return Steps(torch.stack(losses), weights, 1000 * statistics.median(times[NUM_STEPS:]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table.

    Args:
        arguments: What follows the script's name; default: the process's own.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="gpu/check.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="what is compared with the CPU")
    parser.add_argument("--preset", default="small", choices=get_args(PresetName), help="size of the model")
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("check: no CUDA device here")
        return 2
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    levers = TokenConfig(static_source="random", motion_augmentation=1.0, back_translation=0.5, back_translation_start=0.0)
    model = DividModel(ModelConfig(preset=args.preset, channels=1, tokens=levers)).eval()
    inputs = Inputs.draw(model)
    cpu = results(model, inputs, "cpu", "fp32")
    fp32, bf16 = results(model, inputs, args.device, "fp32"), results(model, inputs, args.device, "bf16")
    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, preset {args.preset}; relative differences")
    print(f"{'':<20}{'fp32 to CPU':>14}{'bf16 to fp32':>14}")
    worst = 0.0
    for part, reference in cpu.items():
        difference = relative_difference(fp32[part], reference)
        worst = max(worst, difference)
        print(f"{part:<20}{difference:>14.2e}{relative_difference(bf16[part], fp32[part]):>14.2e}")
    if args.device == "cuda":
        waits = host_waits(model.train(), inputs.video.to(args.device))
        print(f"a training step makes the CPU wait {len(waits)} times: {', '.join(waits) or 'nowhere'}")
        for precision in PRECISIONS:
            video = torch.randn(BATCH_SIZE, BATCH_FRAMES, *model.frame_shape, generator=make_generator("check", "batch")).tanh()
            plain, again, graphed = (train(model, video.to("cuda"), word, precision) for word in ("off", "off", "graphs"))
            first = torch.cat([p.detach().flatten() for p in model.parameters()])
            for name, other in (("as CUDA graphs", graphed), ("plainly again", again)):
                loss = relative_difference(other.losses, plain.losses)
                update = relative_difference(other.weights - first, plain.weights - first)
                print(
                    f"{NUM_STEPS} steps of {BATCH_SIZE} clips in {precision} {name}: losses differ by {loss:.2e}, "
                    f"what the weights changed by {update:.2e}, {other.milliseconds:.1f} ms a step"
                )
                worst = max(worst, loss) if precision == "fp32" else worst
    is_good = worst <= FP32_TOLERANCE
    print(f"check: {'good' if is_good else 'FAILED'}, largest fp32 difference {worst:.2e} (allowed {FP32_TOLERANCE:g})")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
