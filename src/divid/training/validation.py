"""What training shows of held-out clips: loss, reconstruction, swaps and the statistics of the tokens."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional

from divid.arrays import peak_signal_to_noise, video_to_frames
from divid.config import Recipe
from divid.data.module import ClipBatch, Clips, middle_video
from divid.randomness import make_generator
from divid.training.callbacks import AveragedWeights, Stopper, write_row
from divid.training.metrics import as_numbers
from divid.training.module import TrainingModule, training_losses
from divid.training.sharding import ShardedStrategy
from divid.types import Codes, Video
from divid.video import contact_sheet, write_image

logger = logging.getLogger("divid")

NUM_SAMPLED_CLIPS = 8
"""Clips that are reconstructed, and from which the swap pairs are taken."""
NUM_PAIRS = 4
LEAST_SPREAD = 0.01
"""Spread of a token over the clips, as a share of its size, under which it tells them apart no more."""


def token_statistics(codes: Codes) -> dict[str, Tensor]:
    """Describe tokens: mean norm, spread over the clips, and at equal widths cos(s, d)^2 beside its level for random pairs.

    Args:
        codes: Of several clips.
    """
    static, dynamic = codes.static.float(), codes.dynamic.float()
    values = {
        "static_norm": static.norm(dim=-1).mean(),
        "static_std": static.std(0, correction=0).mean(),
        "dynamic_norm": dynamic.norm(dim=-1).mean(),
        "dynamic_std": dynamic.std(0, correction=0).mean(),
    }
    if static.shape[-1] == dynamic.shape[-1]:
        values["squared_cosine"] = functional.cosine_similarity(static[:, None], dynamic, dim=-1).square().mean()
        values["squared_cosine_of_random_pairs"] = torch.tensor(1 / static.shape[-1])
    return values


def held_out_loss(model: nn.Module, video: Video, recipe: Recipe) -> dict[str, float]:
    """Give the mean terms of the objective, with the same noise at every call.

    Args:
        model: A `Disentangler`.
        video: Held-out clips.
        recipe: Resolved.
    """
    sums: dict[str, float] = {}
    for step, part in enumerate(video.split(recipe.training.batch_size)):
        slots = tuple(range(len(part)))
        terms = training_losses(model, ClipBatch(part, slots, slots, -1 - step), recipe)
        for name, value in as_numbers(terms).items():
            sums[name] = sums.get(name, 0.0) + value * len(part) / len(video)
    return sums


def warn_of_collapse(codes: Codes) -> None:
    """Warn of a token that is nearly the same for every clip: whatever the loss says, swaps then copy the motion's clip.

    Args:
        codes: Of several clips.
    """
    for name, token in (("static", codes.static), ("dynamic", codes.dynamic)):
        token = token.float()
        spread = token.std(0, correction=0).square().mean().sqrt() / token.square().mean().sqrt()
        if len(token) > 1 and not spread > LEAST_SPREAD:
            logger.warning(
                "the %s token has collapsed, it is nearly the same for every clip (it varies by %.1e of its size), and swaps "
                "will show it: start again with a lower training.learning_rate",
                name,
                float(spread),
            )


class Validation(Callback):
    """Every few steps, with the averaged weights: held-out loss, PSNR, token statistics and a swap sheet.

    It is no Lightning validation loop, whose place a checkpoint would have to restore: all of a step's values are written before
    the step's checkpoint, so a resumed run neither repeats nor misses one. Process 0 alone does it; where weights are shared out,
    the others take part in the sums, and show nothing.

    Args:
        clips: The held-out clips.
        recipe: Resolved.
        folder: The run's `samples`.
        average: The averaged weights.
        stopper: Tells whether this is the last step.
    """

    def __init__(self, clips: Clips, recipe: Recipe, folder: Path, average: AveragedWeights, stopper: Stopper) -> None:
        self.recipe, self.folder, self.average, self.stopper = recipe, folder, average, stopper
        order = torch.randperm(len(clips), generator=make_generator(recipe.seed, "held-out clips")).tolist()
        self.video = middle_video(clips, order[: max(1, recipe.training.num_validation_clips)], recipe.data.frames_per_sequence)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Validate if it is time to."""
        every, step = self.recipe.training.validate_every_steps, trainer.global_step
        is_last = step >= self.recipe.training.num_steps or self.stopper.is_time_up
        is_needed = trainer.is_global_zero or isinstance(trainer.strategy, ShardedStrategy)
        if (is_last or (every and step % every == 0)) and is_needed:
            assert isinstance(pl_module, TrainingModule)
            with self.average.swapped_in(pl_module):
                self.validate(trainer, pl_module)

    @torch.no_grad()
    def validate(self, trainer: pl.Trainer, module: TrainingModule) -> None:
        """Measure, log and draw.

        Args:
            trainer: Holds the loggers and the step.
            module: With the weights to judge.
        """
        module.eval()
        model: Any = module.model
        video = self.video.to(module.device)
        values = {f"validation/{name}": value for name, value in held_out_loss(model, video, self.recipe).items()}
        codes = model.encode(video)
        values |= {f"tokens/{name}": value for name, value in as_numbers(token_statistics(codes)).items()}
        few = video[:NUM_SAMPLED_CLIPS]
        made = self._decode(model, Codes(codes.static[: len(few)], codes.dynamic[: len(few)]))
        values["validation/psnr"] = float(peak_signal_to_noise(made, few).mean())
        swaps = self._swaps(model, codes, len(few) // 2)
        if trainer.is_global_zero:
            self._show(trainer, values, codes, few, swaps)
        module.train()

    def _decode(self, model: Any, codes: Codes) -> Video:
        return model.decode(codes, seeds=range(len(codes.static)), sampling=self.recipe.sampling)

    def _swaps(self, model: Any, codes: Codes, most: int) -> Video | None:
        num_pairs = min(NUM_PAIRS, most)
        if not num_pairs:
            return None
        return self._decode(model, Codes(codes.static[: 2 * num_pairs : 2], codes.dynamic[1 : 2 * num_pairs : 2]))

    def _show(self, trainer: pl.Trainer, values: dict[str, float], codes: Codes, video: Video, swaps: Tensor | None) -> None:
        warn_of_collapse(codes)
        write_row(trainer, values)
        logger.info(
            "step %d: validation loss %.4f, PSNR %.2f dB",
            trainer.global_step,
            values["validation/total"],
            values["validation/psnr"],
        )
        if swaps is None:
            return
        real = video_to_frames(video)
        rows = []
        for pair, swap in enumerate(video_to_frames(swaps)):
            rows += [("appearance A", real[2 * pair]), ("motion B", real[2 * pair + 1]), ("A's look, B's motion", swap)]
        sheet = contact_sheet(rows, title=f"step {trainer.global_step}")
        write_image(self.folder / f"step_{trainer.global_step:06d}.png", sheet)
        for target in trainer.loggers:
            if isinstance(target, TensorBoardLogger):
                picture = np.asarray(sheet.convert("RGB"))
                target.experiment.add_image("swaps", picture, trainer.global_step, dataformats="HWC")
