"""What happens around the training step: averaged weights, log, progress, and stopping in good order."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, WeightAveraging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from divid.training.memory import memory_mib
from divid.training.metrics import as_numbers
from divid.training.module import TrainingModule
from divid.training.sharding import ShardedStrategy, share_out

logger = logging.getLogger("divid")


class AveragedWeights(WeightAveraging):
    """A moving average of the weights, with decay min(d, (1 + n) / (10 + n)) after n steps.

    With a fixed decay of 0.999 a third of the average would still be the first weights after 1,100 steps.

    Args:
        decay: d.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False, multi_avg_fn=self._average)
        self.highest_decay = decay
        self.decay = 0.0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Share the average out as the weights are, or put it on their device: it was copied when they were on the CPU."""
        assert self._average_model is not None
        average = self._average_model.module
        if isinstance(trainer.strategy, ShardedStrategy):
            assert isinstance(average, TrainingModule)
            share_out(average.model, trainer.strategy.mesh)
        average.to(pl_module.device)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the average into the checkpoint, whole."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if isinstance(trainer.strategy, ShardedStrategy):
            checkpoint["state_dict"] = trainer.strategy.gathered(checkpoint["state_dict"])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average."""
        n = trainer.global_step
        self.decay = min(self.highest_decay, (1 + n) / (10 + n))
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    @contextlib.contextmanager
    def swapped_in(self, module: TrainingModule) -> Iterator[None]:
        """Put the average in the module's place for the length of a `with` block.

        Args:
            module: The module that is trained.
        """
        self._swap_models(module)
        try:
            yield
        finally:
            if isinstance(module.model, FSDPModule):
                module.model.reshard()  # what is still gathered is the average
            self._swap_models(module)

    def _average(self, averaged: Sequence[Tensor], current: Sequence[Tensor], num_averaged: Tensor | int) -> None:
        torch._foreach_lerp_(list(averaged), list(current), 1 - self.decay)


class MetricsLog(Callback):
    """Logs every term of the loss, the gradient's norm, the rate, speed and memory, each with the number of the step just made.

    Args:
        every_steps: Steps between two rows; the first and the last step have one too.
        num_steps: Steps in all.
    """

    def __init__(self, every_steps: int, num_steps: int) -> None:
        self.every_steps, self.num_steps = every_steps, num_steps
        self._since, self._clips, self._frames = time.monotonic(), 0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._since, self._clips, self._frames = time.monotonic(), 0, 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a row if it is time to."""
        assert isinstance(pl_module, TrainingModule)
        batch_size = pl_module.recipe.training.batch_size
        self._clips += batch_size
        self._frames += batch_size * pl_module.num_frames_seen
        step = trainer.global_step
        if step % self.every_steps and step not in (1, self.num_steps):
            return
        terms = pl_module.terms
        if trainer.world_size > 1:
            terms = {name: trainer.strategy.reduce(value.clone(), reduce_op="mean") for name, value in terms.items()}
        values = {f"train/{name}": value for name, value in as_numbers(terms).items()}
        pl_module.logged_loss = values["train/total"]
        seconds = max(time.monotonic() - self._since, 1e-9)
        speed = {
            "speed/clips_per_second": self._clips / seconds,
            "speed/frames_per_second": self._frames / seconds,
            "speed/memory_mib": memory_mib(pl_module.device),
        }
        write_row(trainer, {**values, "train/learning_rate": pl_module.current_learning_rate(), **speed})
        self._since, self._clips, self._frames = time.monotonic(), 0, 0


def write_row(trainer: pl.Trainer, values: dict[str, float]) -> None:
    """Hand values to every logger under the number of the step just made (Lightning's own counter slips by one on resuming).

    Args:
        trainer: Holds the loggers and the step.
        values: Numbers by name.
    """
    for target in trainer.loggers:
        target.log_metrics(values, step=trainer.global_step)


class Stopper(Callback):
    """Ends training between two steps: on SIGTERM or Ctrl-C, and when its time is up; the checkpoint callback then saves.

    A second signal ends the process at once.

    Args:
        max_minutes: Time for training over all resumed runs together; 0 for no limit.
    """

    def __init__(self, max_minutes: float) -> None:
        self.max_seconds = max_minutes * 60
        self.signal: signal.Signals | None = None
        self.is_time_up = False
        self._seconds_before = 0.0
        self._started_at = time.monotonic()
        self._handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    @property
    def seconds(self) -> float:
        """Time spent in training so far, resumed runs included."""
        return self._seconds_before + time.monotonic() - self._started_at

    def state_dict(self) -> dict[str, float]:
        """Keep the time spent in the checkpoint."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Take up the time spent from the checkpoint."""
        self._seconds_before = state_dict["seconds"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock and take over the signals (from Lightning too, whose own answer to SIGTERM saves nothing)."""
        self._started_at = time.monotonic()
        for number in self._handlers:
            with contextlib.suppress(ValueError):  # not in the main thread: then nobody sends us signals
                signal.signal(number, self._on_signal)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if a signal came or the time is up."""
        self.is_time_up = bool(self.max_seconds) and self.seconds >= self.max_seconds
        if trainer.world_size > 1 and self.max_seconds:  # process 0's clock counts, for what all do when time is up
            self.is_time_up = trainer.strategy.reduce_boolean_decision(self.is_time_up and trainer.is_global_zero, all=False)
        should_stop = self.is_time_up or self.signal is not None
        if trainer.world_size > 1:
            should_stop = trainer.strategy.reduce_boolean_decision(should_stop, all=False)
        if should_stop:
            trainer.should_stop = True

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back to who had them before training, which is not Lightning: its answer would outlive it."""
        for number, handler in self._handlers.items():
            with contextlib.suppress(ValueError):
                signal.signal(number, handler)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self.teardown(trainer, pl_module, "fit")

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        logger.warning("%s: finishing this step and saving a checkpoint; once more ends at once", self.signal.name)


class ProgressReport(Callback):
    """Shows step, loss, speed and time left: a bar on a terminal, else a line every half minute.

    Of several processes it shows the loss of all of them, as it was logged last.

    Args:
        num_steps: Steps in all.
        max_minutes: Limit of time, 0 for none; the time left is the shorter one.
    """

    def __init__(self, num_steps: int, max_minutes: float) -> None:
        self.num_steps, self.max_seconds = num_steps, max_minutes * 60
        self.console = Console(stderr=True)
        columns = (
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.4f}"),
            TextColumn("{task.fields[speed]:.2f} steps/s"), TimeRemainingColumn(elapsed_when_finished=True),
        )  # fmt: skip
        self.bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self._task = self.bar.add_task("training", total=num_steps, loss=float("nan"), speed=0.0)
        self._began = self._shown = (0.0, 0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar, from the step on that was resumed."""
        self._began = self._shown = (time.monotonic(), trainer.global_step)
        if trainer.is_global_zero:
            self.bar.update(self._task, completed=trainer.global_step)
            self.bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show where training stands."""
        now, step = time.monotonic(), trainer.global_step
        pause = 0.5 if self.console.is_terminal else 30.0
        if not trainer.is_global_zero or (now - self._shown[0] < pause and step < self.num_steps):
            return
        assert isinstance(pl_module, TrainingModule)
        loss = pl_module.logged_loss if trainer.world_size > 1 else float(pl_module.terms["total"])
        speed = (step - self._began[1]) / max(now - self._began[0], 1e-9)
        self._shown = (now, step)
        self.bar.update(self._task, completed=step, loss=loss, speed=speed)
        if not self.console.is_terminal:
            left = (self.num_steps - step) / speed
            if self.max_seconds:
                left = min(left, self.max_seconds - (now - self._began[0]))
            minutes = max(0.0, left / 60)
            self.console.print(f"step {step}/{self.num_steps}  loss {loss:.4f}  {speed:.2f} steps/s  {minutes:.1f} min left")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the bar away."""
        self.bar.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Take the bar away."""
        self.bar.stop()
