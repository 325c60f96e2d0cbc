"""The training step of any method, as a Lightning module."""

from __future__ import annotations

import inspect
import math
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from divid.augmentation import augment_appearance
from divid.config import Recipe, TrainingConfig
from divid.data.module import ClipBatch
from divid.errors import TrainingError
from divid.models.token_memory import TokenMemory
from divid.randomness import Randomness, derive_seed
from divid.training.muon import Muon
from divid.training.sharding import is_in_process_group, whole


def learning_rate(step: int, options: TrainingConfig) -> float:
    """Give the rate of an optimiser step: linear warm-up, then constant or a cosine to 0 at `num_steps`.

    Args:
        step: Number of the step, from 0.
        options: The highest rate, the shape, and where the cosine begins.

    Source:
        A constant rate before the decay: Hu et al., "MiniCPM" (2024), warmup-stable-decay.
    """
    rate = options.learning_rate * min(1.0, (step + 1) / max(1, options.warmup_steps))
    if options.learning_rate_schedule == "constant":
        return rate
    start = options.learning_rate_decay_start
    progress = (step / options.num_steps - start) / (1 - start)
    return rate * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, progress))))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters into those that decay and those that do not: norms, biases and other vectors.

    Args:
        model: The network.
        weight_decay: Of the first group.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def make_optimizer(model: nn.Module, options: TrainingConfig) -> torch.optim.Optimizer:
    """Make Muon, with a CUDA graph as far as `compile` allows that, or AdamW in its fused form.

    Args:
        model: The network.
        options: `optimizer`, its rate and decay, and whether processes share its state.

    Source:
        `training.shard_optimizer`: Rajbhandari et al., "ZeRO" (2020), stage 1.
    """
    groups = parameter_groups(model, options.weight_decay)
    optimizer: Any = Muon if options.optimizer == "muon" else torch.optim.AdamW
    is_distributed = is_in_process_group()
    has_graph = options.compile in ("auto", "graphs") and not is_distributed
    extra: dict[str, Any] = {"has_graph": has_graph} if options.optimizer == "muon" else {"fused": True}
    if options.shard_optimizer and is_distributed:
        from torch.distributed.optim import ZeroRedundancyOptimizer

        return ZeroRedundancyOptimizer(groups, optimizer_class=optimizer, lr=options.learning_rate, **extra)
    return optimizer(groups, lr=options.learning_rate, **extra)


def training_losses(model: nn.Module, batch: ClipBatch, recipe: Recipe) -> dict[str, Tensor]:
    """Give the terms of the objective on a batch.

    Args:
        model: A `Disentangler`; its `losses` may take `num_decoded_frames`.
        batch: This process's clips.
        recipe: Gives the seed, the global batch and the frames that are denoised.
    """
    randomness = Randomness(recipe.seed, batch.step, batch.slots, recipe.training.batch_size)
    losses: Any = model.losses
    if "num_decoded_frames" in inspect.signature(losses).parameters:
        return losses(batch.video, randomness, num_decoded_frames=recipe.training.frames_per_clip)
    return losses(batch.video, randomness)


@runtime_checkable
class Remembers(Protocol):
    """A method whose objective looks at the tokens of earlier steps."""

    token_memory: TokenMemory | None

    def remember(self) -> None:
        """Keep the tokens of the last step."""
        ...


def augmented(batch: ClipBatch, recipe: Recipe) -> ClipBatch:
    """Change the look of a training batch's clips as `data.augmentation` says; held-out clips never pass here.

    Args:
        batch: This process's clips.
        recipe: Gives the strength, the seed and the global batch.
    """
    randomness = Randomness(recipe.seed, batch.step, batch.slots, recipe.training.batch_size)
    return batch._replace(video=augment_appearance(batch.video, randomness, recipe.data.augmentation, "data augmentation"))


class TrainingModule(pl.LightningModule):
    """A method with its objective and optimiser.

    Args:
        model: A `Disentangler` that is also an `nn.Module`.
        recipe: Resolved.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.terms: dict[str, Tensor] = {}
        self.logged_loss = math.nan  # of all processes, at the last logged step
        self.num_frames_seen = 0
        self._last_check: tuple[int, Flag] | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimiser; its rate is set before every step, so there is no scheduler state to restore."""
        return make_optimizer(self.model, self.recipe.training)

    def on_train_batch_start(self, batch: ClipBatch, batch_idx: int) -> None:
        """Set the rate of this step, and seed what a method may draw without asking for our generators (nn.Dropout)."""
        assert batch.step == self.global_step, f"got the batch of step {batch.step} in step {self.global_step}"
        torch.manual_seed(derive_seed(self.recipe.seed, batch.step, self.global_rank, "global generator"))
        for group in self._optimizer().param_groups:
            group["lr"] = learning_rate(batch.step, self.recipe.training)

    def training_step(self, batch: ClipBatch, batch_idx: int) -> Tensor:
        """Give the loss to minimise."""
        terms = training_losses(self.model, augmented(batch, self.recipe), self.recipe)
        if isinstance(self.model, Remembers):
            self.model.remember()
        self.terms = {name: value.detach() for name, value in terms.items()}
        self.num_frames_seen = batch.video.shape[1]
        return terms["total"]

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient, keep its norm for the log, and stop before a step with a gradient that is not a number."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.recipe.training.gradient_clip > 0:
            torch.nn.utils.clip_grads_with_norm_(self.parameters(), self.recipe.training.gradient_clip, norm)
        norm = whole(norm)
        self.terms["gradient_norm"] = norm
        is_finite = torch.isfinite(norm) & torch.isfinite(self.terms["total"])
        before, self._last_check = self._last_check, (self.global_step, Flag(is_finite))
        if self.device.type == "cpu":
            self.check_finite()
        elif before is not None:
            _raise_unless_finite(*before)  # a GPU is asked about the step before, while it works on this one

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put what the method remembers of earlier steps into the checkpoint."""
        if isinstance(self.model, Remembers) and self.model.token_memory is not None:
            checkpoint["token_memory"] = self.model.token_memory.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it up again."""
        if isinstance(self.model, Remembers) and self.model.token_memory is not None:
            self.model.token_memory.restore(checkpoint["token_memory"])

    def check_finite(self) -> None:
        """Check the newest step's loss and gradient.

        Raises:
            TrainingError: One is infinite or not a number.
        """
        if self._last_check is not None:
            _raise_unless_finite(*self._last_check)

    def current_learning_rate(self) -> float:
        """Give the rate that the last step used."""
        return self._optimizer().param_groups[0]["lr"]

    def _optimizer(self) -> torch.optim.Optimizer:
        return self.trainer.optimizers[0]


class Flag:
    """A yes or no that a GPU will have found out; asking waits for that alone, and not for what the GPU was told to do after it.

    Args:
        value: One element.
    """

    def __init__(self, value: Tensor) -> None:
        self._event: Any = None
        self._value = value
        if value.is_cuda:
            self._value = torch.empty((), dtype=torch.bool, pin_memory=True)
            self._value.copy_(value, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def __bool__(self) -> bool:
        """Wait for the answer and give it."""
        if self._event is not None:
            self._event.synchronize()
        return bool(self._value)


def _raise_unless_finite(step: int, is_finite: Flag) -> None:
    if not is_finite:
        raise TrainingError(
            f"the loss or its gradient is infinite or not a number in step {step + 1}: the last good checkpoint is kept; "
            "start again with a lower training.learning_rate, or with training.precision=fp32"
        )
