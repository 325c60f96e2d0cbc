"""Where the time goes: the operations that take most of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from bench.measuring import Effort, measure, synchronise
from bench.training import TrainingLoop, trained_setup
from bench.workload import Bench, random_codes
from divid.config import SamplingConfig

TOP = 15
NUM_RUNS = 3
SAMPLING = SamplingConfig(num_inference_steps=4)

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # silence: otherwise the profiler tells when it starts and stops


@dataclass(frozen=True)
class Operation:
    """One kind of operation, on a GPU one kernel.

    Args:
        name: As PyTorch calls it.
        calls: Calls a run.
        milliseconds: Its own time a run, what it calls not counted.
        share: Of the time of all operations.
    """

    name: str
    calls: float
    milliseconds: float
    share: float


@dataclass(frozen=True)
class Profile:
    """What a run of something spends its time on.

    Args:
        name: What ran.
        milliseconds: Time of a run that nobody watched.
        busy_share: Time in which the GPU computed, over the time of the run; None on a CPU.
        operations: The longest ones, longest first.
    """

    name: str
    milliseconds: float
    busy_share: float | None
    operations: tuple[Operation, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return asdict(self)

    def describe(self) -> str:
        """Give it in lines for a person."""
        busy = "" if self.busy_share is None else f", the GPU computed in {100 * self.busy_share:.1f} % of it"
        lines = [f"{self.name}: {self.milliseconds:.1f} ms{busy}"]
        for operation in self.operations:
            share, milliseconds = f"{100 * operation.share:5.1f} %", f"{operation.milliseconds:10.2f} ms"
            lines.append(f"  {share}  {milliseconds}  {operation.calls:8.0f} x  {operation.name[:90]}")
        return "\n".join(lines)


def make_profiles(bench: Bench) -> list[Profile]:
    """Watch the training step of `divid train` and the drawing of one clip.

    Args:
        bench: The settings.
    """
    loop = TrainingLoop(bench, trained_setup(bench))
    with loop.products():
        loop.compile()
        training = watch("training step", loop.step, bench.device, bench.effort)
    model = bench.sampling_model("fp32")
    codes = random_codes(model, bench.num_frames)
    name = f"sampling, {bench.num_frames} frames, {SAMPLING.num_inference_steps} steps of {SAMPLING.solver}"
    sampling = watch(name, lambda: model.decode(codes, seeds=[0], sampling=SAMPLING), bench.device, bench.effort)
    return [training, sampling]


def watch(name: str, function: Callable[[], Any], device: str, effort: Effort) -> Profile:
    """Time a function unwatched, then see what it does.

    Args:
        name: What it is.
        function: What runs.
        device: `cpu` or `cuda`.
        effort: How long the unwatched runs take.
    """
    measured = measure(function, device, effort)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=activities) as profiler:
        for _ in range(NUM_RUNS):
            function()
        synchronise(device)
    kind = DeviceType.CUDA if device == "cuda" else DeviceType.CPU
    events = [event for event in profiler.key_averages() if event.device_type == kind and not event.is_user_annotation]
    times = {
        event.key: (event.count, event.self_device_time_total if device == "cuda" else event.self_cpu_time_total)
        for event in events
    }
    total = sum(microseconds for _, microseconds in times.values())
    longest = sorted(times.items(), key=lambda item: -item[1][1])[:TOP]
    operations = tuple(
        Operation(key, count / NUM_RUNS, microseconds / NUM_RUNS / 1000, microseconds / max(total, 1e-9))
        for key, (count, microseconds) in longest
    )
    busy = total / NUM_RUNS / 1e6 / measured.seconds if device == "cuda" else None
    return Profile(name, measured.seconds * 1000, busy, operations)
