"""What is measured: the recipe, the clips, and the settings that all parts share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from bench.measuring import Effort, Measured, Peaks
from bench.rows import Row
from divid.allocator import keep_freed_memory
from divid.config import ModelConfig, Precision, Recipe, TrainingConfig
from divid.data.module import ClipDataModule
from divid.errors import ConfigError
from divid.model_parts import DenoiserConfig, EncoderConfig, TokenConfig
from divid.models.divid import DividModel
from divid.models.layout import channels_last
from divid.precision import has_bf16_units
from divid.presets import PresetName
from divid.randomness import derive_seed, make_generator
from divid.recipes import load_recipe
from divid.training.planning import choose_precision
from divid.types import Codes

PAPER_STEPS = 1000
"""Steps of the paper's sampler."""


class MadeClips:
    """Random clips in memory, as many frames each as a sequence has twice.

    Args:
        recipe: Gives size, channels and frames.
        count: Number of clips.
    """

    def __init__(self, recipe: Recipe, count: int) -> None:
        size, frames = recipe.model.image_size, 2 * recipe.data.frames_per_sequence
        assert size
        generator = np.random.default_rng(0)
        self._frames = generator.integers(0, 256, (count, frames, size, size, recipe.model.channels), dtype=np.uint8)

    def __len__(self) -> int:
        """Number of clips."""
        return len(self._frames)

    def num_frames(self, index: int) -> int:
        """Number of frames of a clip."""
        return self._frames.shape[1]

    def frames(self, index: int, positions: np.ndarray | None = None) -> np.ndarray:
        """Frames of a clip, uint8 F H W C."""
        return self._frames[index] if positions is None else self._frames[index][positions]


@dataclass
class Bench:
    """What every part is given.

    Args:
        recipe: Resolved, its precision settled.
        device: `cpu` or `cuda`.
        effort: How long a figure is measured.
        peaks: The machine's limits.
        folder: For files made on the way; removed at the end.
        out: Folder of the results.
        is_quick: The smallest run that shows every part at work.
        reference_steps: Steps of the paper's sampler that are really made; fewer than `PAPER_STEPS` are extrapolated.
        long_frames: Lengths of the long videos.
        long_steps: Solver steps of the long videos.
        long_size: Side of the long videos in pixels.
        model_folder: A trained model for the long videos; None: an untrained one, which costs the same.
        arguments: The command's options, for the results.
    """

    recipe: Recipe
    device: str
    effort: Effort
    peaks: Peaks
    folder: Path
    out: Path
    is_quick: bool = False
    reference_steps: int = PAPER_STEPS
    long_frames: tuple[int, ...] = ()
    long_steps: int = 4
    long_size: int = 64
    model_folder: Path | None = None
    arguments: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        """Precision of training: `fp32` or `bf16`."""
        return self.recipe.training.precision

    @property
    def sampling_precisions(self) -> tuple[Precision, ...]:
        """Precisions that encoding and sampling are worth measuring in: bf16 where the device has units for it."""
        return ("fp32", "bf16") if has_bf16_units(self.device) else ("fp32",)

    @property
    def num_frames(self) -> int:
        """Frames of a sequence."""
        return self.recipe.data.frames_per_sequence

    def row(
        self,
        part: str,
        name: str,
        measured: Measured,
        unit: str,
        num_units: float,
        *,
        precision: str = "fp32",
        reference: Row | None = None,
        flops: float | None = None,
        bytes_moved: float | None = None,
        note: str = "",
    ) -> Row:
        """Make a row out of a measurement.

        Args:
            part: The part.
            name: What was measured.
            measured: What it took.
            unit: What its time is told by, `clip` for instance.
            num_units: How many of these a run had.
            precision: In which it ran.
            reference: The row that it is held against; None: it is a reference itself.
            flops: Operations of a run.
            bytes_moved: Bytes that a run has to read and write, for parts that compute nothing.
            note: Anything else.
        """
        share = None
        has_peak = precision == "fp32" or has_bf16_units(self.device)  # an emulated matrix product is no limit to the rest
        if flops is not None and has_peak:
            share = flops / measured.seconds / self.peaks.flops_per_second(precision)
        elif bytes_moved is not None:
            share = bytes_moved / measured.seconds / self.peaks.bytes_per_second("fp32")
        seconds = measured.seconds / num_units
        return Row(
            part=part,
            name=name,
            unit=unit,
            seconds=seconds,
            fastest=measured.fastest / num_units,
            slowest=measured.slowest / num_units,
            num_runs=measured.num_runs,
            precision=precision,
            reference="" if reference is None else reference.name,
            ratio=1.0 if reference is None else reference.seconds / seconds,
            flops=None if flops is None else flops / num_units,
            bytes_moved=None if bytes_moved is None else bytes_moved / num_units,
            peak_share=share,
            peak_memory_mib=measured.peak_memory_mib,
            note=note,
        )

    def new_model(self, recipe: Recipe | None = None) -> DividModel:
        """Build the untrained model, always with the same weights.

        Args:
            recipe: Another recipe than the bench's own.
        """
        torch.manual_seed(derive_seed("bench"))
        model: Any = DividModel((recipe or self.recipe).model)  # type: ignore[arg-type]  # checked by make_recipe
        return model.to(self.device)

    def sampling_model(self, precision: str, recipe: Recipe | None = None) -> DividModel:
        """Build the model as the pipeline uses it: in evaluation mode, channels last, its weights in the precision.

        Args:
            precision: `fp32` or `bf16`.
            recipe: Another recipe than the bench's own.
        """
        keep_freed_memory()
        model = channels_last(self.new_model(recipe).eval())
        return model.to(torch.bfloat16) if precision == "bf16" else model


def make_recipe(
    name: str | None,
    preset: PresetName,
    device: str,
    *,
    batch_size: int | None = None,
    image_size: int | None = None,
    is_quick: bool = False,
) -> Recipe:
    """Give the recipe that is measured, resolved.

    Args:
        name: A recipe's name or file; None: the preset with the options' defaults.
        preset: Size of the model.
        device: `cpu` or `cuda`.
        batch_size: Clips a step; None: the recipe's, or for a preset 64 on a GPU and 4 on a CPU.
        image_size: Side of the frames in pixels; None: the model's own.
        is_quick: Take the smallest model instead.

    Raises:
        ConfigError: The recipe is unknown, wrong, or of another method than `divid`.
    """
    if is_quick:
        recipe = _quick_recipe()
    elif name is not None:
        recipe = load_recipe(name)
    else:
        training = TrainingConfig(batch_size=64 if device == "cuda" else 4, compile="auto" if device == "cuda" else "off")
        recipe = Recipe(model=ModelConfig(preset=preset), training=training)
    if recipe.method != "divid":
        raise ConfigError(f"the bench measures the method divid, and the recipe {name} trains {recipe.method}: give another one")
    if batch_size is not None:
        recipe = replace(recipe, training=replace(recipe.training, batch_size=batch_size))
    if image_size is not None:
        recipe = replace(recipe, model=replace(recipe.model, image_size=image_size))
    location: Literal["memory", "device"] = "device" if device == "cuda" else "memory"
    # Every step as long as the longest: a time that depends on the step's draw cannot be compared.
    data = replace(recipe.data, min_frames=recipe.data.frames_per_sequence, location=location, num_workers=0)
    return replace(recipe, data=data).resolve()


def settle_precision(bench: Bench, wish: Precision) -> Recipe:
    """Give the recipe with its precision decided, as training decides it.

    Args:
        bench: With the recipe as it is so far.
        wish: `auto`, `fp32` or `bf16`.
    """
    training = replace(bench.recipe.training, precision=wish)
    recipe = replace(bench.recipe, training=training)
    clips = MadeClips(recipe, recipe.training.batch_size)
    data = ClipDataModule(clips, recipe.seed, recipe.training.batch_size, recipe.data)
    precision = choose_precision(bench.new_model(recipe).train(), data.first_batch(bench.device), recipe)
    return replace(recipe, training=replace(training, precision=precision))


def random_codes(model: DividModel, num_frames: int) -> Codes:
    """Give tokens of one clip: what they hold does not change the cost of decoding them.

    Args:
        model: Gives widths, device and precision.
        num_frames: Frames of the clip.
    """
    tokens, like = model.options.tokens, next(model.parameters())
    assert tokens.static_dim and tokens.dynamic_dim
    generator = make_generator("bench", "codes")
    static = torch.randn(1, tokens.static_dim, generator=generator)
    return Codes(static, torch.randn(1, num_frames, tokens.dynamic_dim, generator=generator)).to(like)


def _quick_recipe() -> Recipe:
    """Give a recipe so small that every part takes a second or less."""
    model = ModelConfig(
        image_size=16,
        frames_per_sequence=4,
        encoder=EncoderConfig(base_channels=8, multipliers=(1, 2), static_hidden=16, lstm_hidden=16, attention_heads=2),
        tokens=TokenConfig(static_dim=16, dynamic_dim=8),
        denoiser=DenoiserConfig(channels=(8, 16), attention_levels=(1,), attention_heads=2, attention_width=16, norm_groups=8),
    )
    recipe = Recipe(model=model, training=TrainingConfig(batch_size=2, frames_per_clip=2, compile="off"))
    return replace(recipe, data=replace(recipe.data, frames_per_sequence=4, min_frames=4))
