"""Project what training costs on machines that are not at hand: counted operations over an assumed share of a stated peak.

    python scripts/project_cost.py [--peak 989] [--share 0.25] [--efficiency 0.9] [--measured speed.json ...]

Prints two tables as Markdown (docs/scale.md has them), of which nothing is measured but the number of operations; with
`--measured`, files that `python -m bench` wrote, a third one comes first: the same jobs at the speed that those machines had.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from divid.config import ModelConfig
from divid.models.divid import DividModel

PRESETS = {"small": 4, "base": 4, "paper": 0}
"""Preset -> frames of a clip that the denoiser is trained on (0: all), as in the recipes for a GPU."""
FRAMES = 10
BACKWARD = 2.0
"""Operations of a backward pass over those of the forward pass."""
BYTES_A_WEIGHT = 5 * 4
"""Weight, gradient, two moments and the moving average, in float32."""
JOBS = {
    "UTD-MHAD: 30,000 steps of 64 clips": 30_000 * 64,
    "MEAD: 60,000 steps of 256 clips, 55 passes": 60_000 * 256,
    "a million clips, 10 passes": 10_000_000,
}
"""What is trained -> clips in all. MEAD is taken whole: some 280,000 clips."""


@dataclass(frozen=True)
class Cost:
    """What a preset takes.

    Args:
        parameters: Number of weights.
        flops: Operations to train on one clip.
    """

    parameters: int
    flops: float

    def clips_a_second(self, peak: float, share: float) -> float:
        """Give the speed of one GPU.

        Args:
            peak: Operations a second.
            share: Of the peak that is reached.
        """
        return peak * share / self.flops


def cost_of(preset: str, num_denoised: int, num_frames: int = FRAMES) -> Cost:
    """Count a preset's weights and the operations of training on one clip.

    Args:
        preset: Name.
        num_denoised: Frames of the clip that the denoiser is trained on; 0: all.
        num_frames: F.
    """
    with torch.device("meta"):
        model = DividModel(ModelConfig(preset=preset))  # type: ignore[arg-type]  # a name of PRESETS
        video = torch.empty(1, num_frames, *model.frame_shape)
        count = num_denoised or num_frames
        options = model.options.tokens
        assert options.static_dim and options.dynamic_dim
        noisy, t = torch.empty(count, *model.frame_shape), torch.zeros(count, dtype=torch.long)
        tokens = torch.empty(count, options.static_dim), torch.empty(count, options.dynamic_dim)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.encode(video)
            model.denoiser(noisy, t, *tokens)
    return Cost(sum(p.numel() for p in model.parameters()), (1 + BACKWARD) * counter.get_total_flops())


def measured_rows(path: Path) -> list[str]:
    """Give the lines of the table of measured speed: one for the step as `divid train` makes it.

    Args:
        path: A `speed.json` of `python -m bench` with the part `train`.

    Raises:
        SystemExit: It has no such part.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = [row for row in found["rows"] if row["part"] == "train"]
    if not rows:
        raise SystemExit(f"project_cost: {path} has no figures of training: run python -m bench --only train")
    row, recipe = rows[-1], found["recipe"]
    model = f"`{recipe['model.preset']}`, {recipe['model.image_size']}x{recipe['model.image_size']}"
    share = "" if row["peak_share"] is None else f"{100 * row['peak_share']:.0f} %"
    memory = "" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:.0f}"
    hours = " | ".join(f"{clips * row['seconds'] / 3600:.3g}" for clips in JOBS.values())
    return [f"| {model}, {row['precision']} | {1 / row['seconds']:.2f} | {share} | {memory} | {hours} |"]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Project what training costs.")
    parser.add_argument("--peak", type=float, default=989.0, help="of a GPU, in TFLOP/s (H100 SXM, bf16 without sparsity: 989)")
    parser.add_argument("--share", type=float, default=0.25, help="of the peak that training is assumed to reach")
    parser.add_argument("--efficiency", type=float, default=0.9, help="of several GPUs, assumed")
    parser.add_argument("--measured", type=Path, nargs="+", default=[], metavar="FILE", help="speed.json of python -m bench")
    args = parser.parse_args()
    if args.measured:
        print(
            "| measured here | clips a second | of the measured peak | peak MiB | "
            + " | ".join(f"hours for {job}" for job in JOBS)
            + " |"
        )
        print("|---|---|---|---|" + "---|" * len(JOBS))
        print("\n".join(line for path in args.measured for line in measured_rows(path)) + "\n")
    costs = {preset: cost_of(preset, count) for preset, count in PRESETS.items()}
    print("| preset | parameters | GFLOP a clip | weights, gradients, moments, average | clips a second and GPU, assumed |")
    print("|---|---|---|---|---|")
    for preset, cost in costs.items():
        speed = cost.clips_a_second(args.peak * 1e12, args.share)
        memory = cost.parameters * BYTES_A_WEIGHT / 2**30
        print(f"| `{preset}` | {cost.parameters / 1e6:.1f} M | {cost.flops / 1e9:.0f} | {memory:.2f} GiB | {speed:.0f} |")
    print("\n| GPU hours for | " + " | ".join(f"`{preset}`, 1 GPU | 8 GPUs | 64 GPUs" for preset in costs) + " |")
    print("|---|" + "---|---|---|" * len(costs))
    for job, clips in JOBS.items():
        cells = []
        for cost in costs.values():
            hours = clips / cost.clips_a_second(args.peak * 1e12, args.share) / 3600
            cells += [f"{hours:.2g}", *(f"{hours / (count * args.efficiency):.2g}" for count in (8, 64))]
        print(f"| {job} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
