"""Training a judge on real training clips, and measuring it on held-out ones."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from divid.arrays import frames_to_video
from divid.augmentation import augment_appearance
from divid.config import DataConfig
from divid.data.clips import ClipDataset, DatasetInfo
from divid.data.module import BatchPlan, middle_video
from divid.data.schema import KINDS
from divid.errors import ConfigError, DatasetError, TrainingError, nearest
from divid.evaluation.codes import Told
from divid.evaluation.judge import BATCH_CLIPS, Answers, HeldOut, Judge, JudgeConfig, class_numbers
from divid.evaluation.judge_networks import ARCHITECTURES, Architecture
from divid.plots import new_figure, save_figure
from divid.randomness import Randomness, derive_seed
from divid.types import Video

logger = logging.getLogger("divid")

WARMUP_SHARE = 0.05
GRADIENT_CLIP = 5.0
UNLABELLED = -1

SHIFT = 1 / 16
"""Largest shift of a clip, as a share of its side."""
BLUR = 1 / 32
"""Largest standard deviation of the blur, as a share of the side."""
NOISE = 0.15
"""Largest standard deviation of the noise, in a range of 2."""
CONTRAST = 0.2
BRIGHTNESS = 0.1
CHANGE_OF_LOOK = 1.5
"""Strength of the change of build, place and colours before the stream of a `two_stream` judge that sees motion."""


@dataclass(frozen=True)
class JudgeTraining:
    """How a judge is trained.

    Args:
        architecture: `gru`, `conv3d` or `two_stream`.
        num_frames: F, frames of a clip.
        num_steps: Optimiser steps.
        batch_size: Clips a step.
        learning_rate: Highest rate of AdamW; it warms up and decays along a cosine.
        weight_decay: Of AdamW.
        label_smoothing: Share of the target that is spread over all classes.
        max_minutes: Training is shortened to so many minutes; only then does the judge depend on the machine.
        seed: Of first weights, clips, frames and augmentation.
    """

    architecture: str = "gru"
    num_frames: int = 10
    num_steps: int = 1000
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    max_minutes: float = 10.0
    seed: int = 0

    def validate(self) -> JudgeTraining:
        """Check every value.

        Raises:
            ConfigError: One is outside its range.
        """
        if self.architecture not in ARCHITECTURES:
            raise ConfigError(f"architecture is {self.architecture!r}{nearest(self.architecture, ARCHITECTURES)}")
        for name, low, high in _RANGES:
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} of the judge is {getattr(self, name)}, must lie between {low} and {high}")
        return self


_RANGES = (
    ("num_frames", 2, 512), ("num_steps", 1, 10**7), ("batch_size", 2, 10**5), ("learning_rate", 1e-9, 1),
    ("weight_decay", 0, 10), ("label_smoothing", 0, 0.9), ("max_minutes", 0.01, 10**6), ("seed", 0, 2**63 - 1),
)  # fmt: skip


def train_judge(
    train: ClipDataset,
    test: ClipDataset,
    options: JudgeTraining | None = None,
    *,
    device: str = "cpu",
    told: Told | None = None,
) -> Judge:
    """Train a judge and measure it.

    Args:
        train: Real training clips; nothing that a model made.
        test: Real clips that are held out.
        options: How; default: all defaults.
        device: Where to train.
        told: Hears of the progress.

    Returns:
        The judge on its device, in evaluation mode, with its accuracy on the held-out clips.

    Raises:
        DatasetError: The clips lack labels, or a factor has one class only.
        TrainingError: The loss is not a number.
    """
    options = (options or JudgeTraining()).validate()
    config = judge_config(train.info, options)
    labels = class_numbers(train, config.classes)
    _check_labels(labels, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(options.seed, "first weights of the judge"))
        judge = Judge(config).to(device)
    began = time.monotonic()
    num_steps = _fit(judge, train, labels, options, told)
    judge.history = {**asdict(options), "num_steps_made": num_steps, "minutes": round((time.monotonic() - began) / 60, 2)}
    judge.held_out = measure_judge(judge, test)
    return judge


def judge_config(info: DatasetInfo, options: JudgeTraining) -> JudgeConfig:
    """Give the config of a judge for some clips.

    Args:
        info: Of the clips.
        options: Give architecture and frames.

    Raises:
        DatasetError: They have no static or no dynamic factor.
    """
    name = "+".join(Path(name).name for name in info.names)
    for kind in KINDS:
        if not info.factors[kind]:
            raise DatasetError(
                f"{name} has no {kind} factor, so there is nothing to judge: prepare it with labels of both kinds, "
                "as by --layout '{subject}/{action}' or --labels-csv"
            )
    return JudgeConfig(
        data=name,
        factors={kind: {factor: info.classes[factor] for factor in info.factors[kind]} for kind in KINDS},
        image_size=info.image_size,
        channels=info.channels,
        num_frames=options.num_frames,
        architecture=cast(Architecture, options.architecture),
    )


def measure_judge(judge: Judge, clips: ClipDataset) -> HeldOut:
    """Measure a judge on clips that have all their labels.

    Args:
        judge: On its device.
        clips: Real clips that it was not trained on.

    Raises:
        DatasetError: None of them has all its labels.
        ModelError: They do not fit the judge.
    """
    judge.check_fits(clips.info)
    labels = class_numbers(clips, judge.config.classes)
    labelled = np.flatnonzero(np.logical_and.reduce([numbers != UNLABELLED for numbers in labels.values()])).tolist()
    if not labelled:
        raise DatasetError(f"none of the {len(clips)} held-out clips has all its labels, so the judge cannot be measured on them")
    parts = [
        judge.answers(middle_video(clips, labelled[start : start + BATCH_CLIPS], judge.config.num_frames))
        for start in range(0, len(labelled), BATCH_CLIPS)
    ]
    answers = {name: np.concatenate([part[name] for part in parts]) for name in labels}
    return HeldOut.of(judge.config, answers, {name: numbers[labelled] for name, numbers in labels.items()})


def augment(video: Video, randomness: Randomness) -> Video:
    """Shift, blur, brighten and disturb clips, each in its own way, all frames of a clip alike but for the noise.

    A made clip is a little soft, noisy, off its place or its brightness; a judge that never saw such clips would judge that.

    Args:
        video: Real clips.
        randomness: The step's.
    """
    draws = randomness.uniform("augmentation", (6,)).to(video.device)
    size = video.shape[-1]
    video = shift(video, (draws[:, :2] * 2 - 1) * SHIFT)
    video = blur(video, draws[:, 2] * BLUR * size)
    gain = 1 + CONTRAST * (draws[:, 3] * 2 - 1)
    offset = BRIGHTNESS * (draws[:, 4] * 2 - 1)
    noise = randomness.normal("noise", video.shape[1:], video.device)
    level = NOISE * draws[:, 5]
    gain, offset, level = (values[:, None, None, None, None] for values in (gain, offset, level))
    return ((video + 1) * gain - 1 + offset + level * noise).clamp(-1, 1)


def shift(video: Video, by: Float[Tensor, "batch 2"]) -> Video:
    """Move clips by parts of a pixel; the edge is repeated.

    Args:
        video: Clips.
        by: How far to the left and up, as a share of the side.
    """
    theta = torch.eye(2, 3, device=video.device).repeat(len(video), 1, 1)
    theta[:, :, 2] = 2 * by
    layers = video.flatten(1, 2)
    grid = functional.affine_grid(theta, list(layers.shape), align_corners=False)
    moved = functional.grid_sample(layers, grid, padding_mode="border", align_corners=False)
    return moved.unflatten(1, video.shape[1:3])


def blur(video: Video, sigma: Float[Tensor, " batch"]) -> Video:
    """Blur clips by a Gaussian of their own; the edge is repeated.

    Args:
        video: Clips.
        sigma: Standard deviations in pixels; 0 leaves a clip as it is.
    """
    radius = max(1, math.ceil(2 * float(sigma.max())))
    offsets = torch.arange(-radius, radius + 1, device=video.device)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-3)[:, None]).square())
    kernel = (kernel / kernel.sum(1, keepdim=True))[:, None, :, None]
    clips = len(video)
    layers = functional.pad(video.flatten(1, 2).transpose(0, 1), (radius,) * 4, mode="replicate")  # a clip is a channel
    layers = functional.conv2d(functional.conv2d(layers, kernel, groups=clips), kernel.transpose(2, 3), groups=clips)
    return layers.transpose(0, 1).unflatten(1, video.shape[1:3])


def plot_confusion(counts: Sequence[Sequence[int]], classes: Sequence[str], title: str, path: Path) -> None:
    """Draw how often each class (row) was taken for each class (column) as a PNG.

    Args:
        counts: From `HeldOut.confusion`.
        classes: Their names.
        title: Heading.
        path: The picture.

    Raises:
        OutputError: It cannot be written.
    """
    numbers = np.array(counts)
    side = min(16.0, 3.0 + 0.3 * len(classes))
    figure = new_figure(side, side)
    axes = figure.add_subplot(xlabel="judged", ylabel="true", title=title)
    axes.imshow(numbers / numbers.sum(axis=1, keepdims=True).clip(min=1), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=7)
    axes.set_yticks(range(len(classes)), classes, fontsize=7)
    for row, column in np.argwhere(numbers > 0).tolist():
        colour = "white" if numbers[row, column] > numbers[row].sum() / 2 else "black"
        axes.text(column, row, str(numbers[row, column]), ha="center", va="center", fontsize=6, color=colour)
    save_figure(figure, path)


def _check_labels(labels: Answers, config: JudgeConfig) -> None:
    for name, numbers in labels.items():
        seen = np.unique(numbers[numbers != UNLABELLED])
        if len(seen) < 2:
            what = f"only the class {config.classes[name][seen[0]]!r}" if len(seen) else "no label"
            raise DatasetError(
                f"the training clips of {config.data} have {what} of {name!r}: a judge needs two classes of every factor, so "
                "prepare data that have them"
            )
        missing = [label for number, label in enumerate(config.classes[name]) if number not in seen]
        if missing:
            logger.warning("no training clip has the class %r of %r, so the judge cannot learn it", missing[0], name)


def _fit(judge: Judge, clips: ClipDataset, labels: Answers, options: JudgeTraining, told: Told | None) -> int:
    """Train; gives the number of steps that were made."""
    device = next(judge.parameters()).device
    lengths = tuple(clips.num_frames(index) for index in range(len(clips)))
    drawing = DataConfig(frames_per_sequence=options.num_frames, min_frames=options.num_frames)
    plan = BatchPlan(options.seed, options.batch_size, lengths, drawing)
    targets = {name: torch.from_numpy(numbers).to(device) for name, numbers in labels.items()}
    optimizer = torch.optim.AdamW(judge.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    judge.train()
    began, step, progress = time.monotonic(), 0, 0.0
    while progress < 1:
        randomness = Randomness(options.seed, step, plan.slots(), options.batch_size)
        indices = list(plan.indices(step))
        frames = [clips.frames(index, row) for index, row in zip(indices, plan.positions(step), strict=True)]
        real = frames_to_video(np.stack(frames)).to(device)
        moving = None
        if judge.config.architecture == "two_stream":
            moving = augment(augment_appearance(real, randomness, CHANGE_OF_LOOK, "look of what moves"), randomness)
        scores = judge(augment(real, randomness), moving)
        loss = _loss(scores, {name: numbers[indices] for name, numbers in targets.items()}, options.label_smoothing)
        if not torch.isfinite(loss):
            raise TrainingError(f"the judge's loss is not a number in step {step + 1}: train it with another --seed")
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(progress + 1 / options.num_steps, options.learning_rate)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(judge.parameters(), GRADIENT_CLIP)
        optimizer.step()
        step += 1
        progress = max(step / options.num_steps, (time.monotonic() - began) / (60 * options.max_minutes))
        if told:
            told("training the judge", min(options.num_steps, round(progress * options.num_steps)), options.num_steps)
    judge.eval()
    if step < options.num_steps:
        logger.warning(
            "the judge was trained for %d of %d steps in its %g minutes: another machine will give another judge",
            step, options.num_steps, options.max_minutes,
        )  # fmt: skip
    return step


def _loss(logits: Mapping[str, Tensor], targets: Mapping[str, Tensor], smoothing: float) -> Tensor:
    """Give the cross-entropy of all factors, over the clips that are labelled there."""
    terms = []
    for name, scores in logits.items():
        summed = functional.cross_entropy(
            scores, targets[name], ignore_index=UNLABELLED, label_smoothing=smoothing, reduction="sum"
        )
        terms.append(summed / (targets[name] != UNLABELLED).sum().clamp_min(1))
    return torch.stack(terms).sum()


def _learning_rate(progress: float, highest: float) -> float:
    return highest * min(1.0, progress / WARMUP_SHARE) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
