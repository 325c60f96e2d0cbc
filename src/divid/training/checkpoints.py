"""Checkpoints of a run: written whole or not at all, the one before kept, bad ones never."""

from __future__ import annotations

import logging
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from divid.errors import ModelError, OutputError, TrainingError, first_line
from divid.training.module import TrainingModule
from divid.training.sharding import local

logger = logging.getLogger("divid")

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
TEMPORARY_ENDING = ".tmp"


class AtomicCheckpointIO(CheckpointIO):
    """Writing by a temporary name and two renames; the file that stood there becomes `previous.ckpt`.

    Lightning's own way passes by the system's temporary folder, which is not atomic between disks.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            OutputError: It cannot be written (a full disk, for one); the older ones are as they were.
        """
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_ENDING}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                os.replace(path, path.with_name(PREVIOUS))
            os.replace(temporary, path)
        except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
            raise OutputError(
                f"checkpoint {path} cannot be written ({error}): free some space, then go on with --resume"
            ) from None
        finally:
            temporary.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: str | Path, map_location: Callable | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; nothing in it is executed.

        Raises:
            ModelError: It is damaged or not one of ours.
        """
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to main memory; nothing in it is executed.

    Args:
        path: The file.

    Raises:
        ModelError: It is damaged or not one of ours.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = first_line(error)
        raise ModelError(f"checkpoint {path} cannot be read ({reason}): delete it to go on from an older one") from None
    if not isinstance(checkpoint, dict) or not {"state_dict", "current_model_state", "global_step", "loops"} <= checkpoint.keys():
        raise ModelError(f"{path} is not a checkpoint of a divid training run: point --out at a run folder")
    return checkpoint


def find_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Give the newest readable checkpoint of a run, path and content.

    Args:
        folder: The run's `checkpoints`.

    Raises:
        TrainingError: There is none.
        ModelError: None can be read.
    """
    paths = [folder / name for name in (LAST, PREVIOUS) if (folder / name).is_file()]
    if not paths:
        raise TrainingError(f"there is no checkpoint in {folder} to resume from: train without --resume into a new --out")
    for path in paths[:-1]:
        try:
            return path, read_checkpoint(path)
        except ModelError as error:
            logger.warning("%s; going on from %s", error, PREVIOUS)
    return paths[-1], read_checkpoint(paths[-1])


def check_fits(checkpoint: dict[str, Any], module: torch.nn.Module, path: Path) -> None:
    """Check that a checkpoint holds this architecture's weights, all of them numbers.

    Args:
        checkpoint: From `read_checkpoint`.
        module: What it shall be loaded into.
        path: Where it is from, for the message.

    Raises:
        ModelError: A weight is missing, too many, of another shape, or not a number.
    """
    for weights in (checkpoint["current_model_state"], checkpoint["state_dict"]):
        expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
        got = {name: tuple(value.shape) for name, value in weights.items()}
        wrong = sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))
        if wrong:
            name = wrong[0]
            raise ModelError(
                f"checkpoint {path} is of another architecture: {name} has shape {got.get(name, 'none')}, expected "
                f"{expected.get(name, 'none')}, {len(wrong)} weights differ: resume with the recipe that the run began with"
            )
        bad = [name for name, value in weights.items() if not torch.isfinite(value).all()]
        if bad:
            raise ModelError(
                f"checkpoint {path} holds values that are not numbers in {bad[0]}: delete it to go on from an older one"
            )


class Checkpoints(Checkpoint):
    """Saves the run every few minutes and whenever training is about to end.

    Lightning runs callbacks of this kind after all others, so what they log for a step is on disk before the step's checkpoint.

    Args:
        folder: The run's `checkpoints`.
        minutes: Time between two.
        num_steps: Steps in all; the last one is always saved.
    """

    def __init__(self, folder: Path, minutes: float, num_steps: int) -> None:
        self.folder, self.minutes, self.num_steps = folder, minutes, num_steps
        self._saved_at = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time to."""
        is_due = time.monotonic() - self._saved_at >= self.minutes * 60
        if trainer.world_size > 1:
            is_due = trainer.strategy.broadcast(is_due)
        if is_due or trainer.should_stop or trainer.global_step >= self.num_steps:
            self.save(trainer, pl_module)

    def save(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save now, unless the weights have gone bad.

        Raises:
            TrainingError: The last step, or a weight, is infinite or not a number.
            OutputError: The file cannot be written.
        """
        assert isinstance(pl_module, TrainingModule)
        pl_module.check_finite()
        is_finite = all(bool(torch.isfinite(local(p)).all()) for p in pl_module.parameters())
        if trainer.world_size > 1:
            is_finite = trainer.strategy.reduce_boolean_decision(is_finite)
        if not is_finite:
            raise TrainingError(
                f"a weight is infinite or not a number after step {trainer.global_step}: the last good checkpoint is kept; "
                "start again with a lower training.learning_rate"
            )
        trainer.save_checkpoint(self.folder / LAST)
        self._saved_at = time.monotonic()
