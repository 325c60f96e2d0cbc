"""`train`: from a recipe and prepared data sets to a run folder with an exported model."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.warnings import PossibleUserWarning
from torch import distributed, nn

from divid.config import ModelConfig, Recipe, tell
from divid.data.clips import ClipDataset
from divid.data.module import ClipDataModule, max_frame_spacing
from divid.distillation.consistency import ConsistencyModel
from divid.distillation.options import ConsistencyConfig
from divid.errors import ConfigError, DatasetError, TrainingStopped, nearest
from divid.export import load_model, resolve_model, save_model
from divid.methods import METHODS
from divid.models.layout import channels_last
from divid.models.sequence_model import SequenceModel
from divid.precision import warn_of_emulation
from divid.randomness import derive_seed
from divid.training.callbacks import AveragedWeights, MetricsLog, ProgressReport, Stopper
from divid.training.checkpoints import LAST, AtomicCheckpointIO, Checkpoints, check_fits, find_checkpoint, read_checkpoint
from divid.training.initial import take_weights
from divid.training.metrics import MetricsFile, last_values, plot_loss
from divid.training.module import TrainingModule
from divid.training.planning import choose_precision, compile_if_wanted, describe_plan, refuse_or_log, shortened, take_probe
from divid.training.run_folder import RunFolder, describe_run
from divid.training.sharding import ShardedStrategy, is_in_process_group
from divid.training.validation import Validation

logger = logging.getLogger("divid")


@dataclass
class _Job:
    """A run that is ready to start."""

    recipe: Recipe
    data: ClipDataModule
    held_out: Any
    model: nn.Module
    device: str
    world_size: int

    @property
    def shards_weights(self) -> bool:
        """Whether several processes share the weights out."""
        return self.recipe.training.shard_weights and self.world_size > 1


def train(
    recipe: Recipe,
    data: Sequence[Path | str],
    out: Path | str,
    *,
    resume: bool = False,
    device: str = "auto",
    devices: int = 1,
    progress: bool = True,
) -> Path:
    """Train a method and export it.

    Args:
        recipe: What to train, and how.
        data: Prepared data sets; several are joined.
        out: The run's folder: new or empty, or with `resume` the one to go on with.
        resume: Go on from the newest checkpoint, to the same loss curve as if never broken off.
        device: `auto`, `cpu` or `cuda`.
        devices: Number of processes, each with a GPU of its own or a share of the CPU. Under torchrun its number counts instead.
        progress: Show progress on the standard error output.

    Returns:
        The run's folder; `model` in it is the exported pipeline.

    Raises:
        ConfigError: The recipe does not fit the data, the device or the run that is resumed.
        OutputError: The folder cannot be used or written.
        DatasetError: The data cannot be used.
        TrainingError: Training cannot start or go on.
        TrainingStopped: A signal ended it before its time; a checkpoint is saved.
    """
    folder, paths = RunFolder(Path(out)), [Path(path) for path in data]
    is_main = _is_main_process()
    if is_main:
        folder.check(resume, paths)
    job = _prepare(recipe, paths, device, devices)
    if resume:
        job.recipe = folder.check_resumed_recipe(job.recipe)
    has_checkpoint = resume and any(folder.checkpoints.glob("*.ckpt"))
    checkpoint_path, checkpoint = find_checkpoint(folder.checkpoints) if has_checkpoint else (None, None)
    if resume and not has_checkpoint:
        logger.warning("%s was broken off before its first checkpoint: beginning again from the first step", folder.path)
    job.recipe = _settle(job, may_shorten=not resume)
    if isinstance(job.model, SequenceModel):
        job.model.tell_num_train_steps(job.recipe.training.num_steps)
    module = TrainingModule(job.model, job.recipe)
    if checkpoint is not None:
        assert checkpoint_path is not None
        check_fits(checkpoint, module, checkpoint_path)
    if is_main:
        info = describe_run(job.recipe, paths, job.device)
        if resume:
            folder.check_resumed_data(info)
            info = folder.read_info()
        folder.create(job.recipe, info)
    stopper = Stopper(job.recipe.training.max_minutes)
    if checkpoint is not None:
        logger.info("going on from step %d", checkpoint["global_step"])
    if checkpoint is not None and _is_complete(checkpoint, job.recipe):
        module.load_state_dict(checkpoint["state_dict"])
    else:
        _fit(job, module, folder, stopper, checkpoint_path, checkpoint["global_step"] if checkpoint else 0, progress)
    if is_main:
        if stopper.signal is not None:
            raise TrainingStopped(
                f"stopped by {stopper.signal.name}, a checkpoint is saved: go on by divid train --out {folder.path} --resume",
                stopper.signal,
            )
        if job.shards_weights:
            job.model = _model_of(job.recipe, folder)
        _finish(job, folder)
    return folder.path


def plan(recipe: Recipe, data: Sequence[Path | str], *, device: str = "auto", devices: int = 1) -> str:
    """Describe a run without starting it: the resolved recipe, parameters, FLOPs a frame, memory and time from timed steps.

    Args:
        recipe: As for `train`.
        data: As for `train`.
        device: As for `train`.
        devices: As for `train`.

    Raises:
        ConfigError: As for `train`.
        DatasetError: As for `train`.
    """
    job = _prepare(recipe, [Path(path) for path in data], device, devices)
    model = job.model.to(job.device)
    batch = job.data.first_batch(job.device)
    part, times = take_probe(batch)
    job.recipe = replace(job.recipe, training=replace(job.recipe.training, precision=choose_precision(model, part, job.recipe)))
    if job.recipe.training.fit_minutes:
        job.recipe = shortened(model, part, job.recipe, times)
    return describe_plan(model, part, job.recipe, times)


def open_splits(paths: Sequence[Path], image_size: int, channels: int) -> tuple[Any, Any]:
    """Open the clips to train on and those held out.

    Args:
        paths: Prepared data sets.
        image_size: The model's.
        channels: The model's.

    Raises:
        DatasetError: There is nothing to train on, or it does not fit the model.
    """
    clips = ClipDataset.open(paths, split="train", image_size=image_size, channels=channels)
    try:
        return clips, ClipDataset.open(paths, split="test", image_size=image_size, channels=channels)
    except DatasetError:  # only that the split is empty: the same sets have just been opened
        logger.warning("no clip is held out (split 'test'): validation looks at training clips, its numbers are too good")
        return clips, clips


def _prepare(recipe: Recipe, paths: Sequence[Path], device: str, devices: int) -> _Job:
    """Check the recipe against device and data, and build the untrained model."""
    recipe = recipe.resolve()
    if recipe.method not in METHODS:
        raise ConfigError(f"method is {recipe.method!r}{nearest(recipe.method, METHODS)}")
    chosen = choose_device(device)
    world_size = int(os.environ.get("WORLD_SIZE", devices))
    if recipe.training.fit_minutes and world_size > 1:
        raise ConfigError(
            f"training.fit_minutes works in one process, here are {world_size}: set it to 0, and training.num_steps to what fits"
        )
    if recipe.training.batch_size % world_size:
        raise ConfigError(
            f"training.batch_size is {recipe.training.batch_size}, must be a multiple of the {world_size} processes: "
            "change it, or --devices"
        )
    if chosen == "cuda" and "WORLD_SIZE" not in os.environ and devices > torch.cuda.device_count():
        raise ConfigError(f"--devices is {devices}, but there are {torch.cuda.device_count()} GPUs: ask for fewer")
    assert recipe.model.image_size
    clips, held_out = open_splits(paths, recipe.model.image_size, recipe.model.channels)
    spacing = recipe.model.max_frame_spacing or max_frame_spacing(clips, recipe.data.frames_per_sequence)
    recipe = replace(recipe, model=tell(recipe.model, {"max_frame_spacing": spacing, "num_train_clips": len(clips)}))
    data = ClipDataModule(clips, recipe.seed, recipe.training.batch_size, recipe.data)
    torch.manual_seed(derive_seed(recipe.seed, "first weights"))
    try:
        model: Any = METHODS[recipe.method](recipe.model)
    except (AssertionError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"the recipe's model cannot be built ({reason}): change the keys under 'model'") from error
    if recipe.training.initial_model:
        take_weights(model, recipe.training.initial_model)
    if isinstance(model, ConsistencyModel):
        _find_teacher(model)
    return _Job(recipe, data, held_out, model.train(), chosen, world_size)


def _find_teacher(model: ConsistencyModel) -> None:
    assert isinstance(model.options, ConsistencyConfig)
    if not model.options.teacher:
        raise ConfigError("model.teacher is missing: name the model that a few-step student learns from, or use divid distill")
    model.learn_from(load_model(resolve_model(model.options.teacher))[0])  # type: ignore[arg-type]  # checked there


def choose_device(device: str) -> str:
    """Give `cpu` or `cuda`.

    Args:
        device: One of them, or `auto`: a GPU where there is one.

    Raises:
        ConfigError: It is another word, or there is no GPU.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device is {device!r}{nearest(device, ('auto', 'cpu', 'cuda'))}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device is cuda, but torch finds no GPU: take --device cpu, or install torch for CUDA")
    return device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")


def _settle(job: _Job, *, may_shorten: bool) -> Recipe:
    """Move the model to its device, and settle precision, compilation and the number of steps by a real batch."""
    options = job.recipe.training
    if options.precision == "bf16":
        warn_of_emulation(job.device)
    if job.device == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if job.device == "cuda" and not job.shards_weights:  # else it would lie there whole
        channels_last(job.model.to("cuda"))
    may_compile = options.compile != "off" and any(hasattr(job.model, name) for name in ("compile_networks", "graph_networks"))
    if may_compile and job.shards_weights:
        refuse_or_log(options.compile, "weights that processes share out are gathered between the compiled parts")
        may_compile = False
    may_shorten = may_shorten and options.fit_minutes > 0
    if options.precision != "auto" and not may_compile and not may_shorten:
        return job.recipe
    rank = getattr(rank_zero_only, "rank", 0) or 0
    batch = job.data.first_batch(job.device, rank, job.world_size)._replace(step=0)
    precision = choose_precision(job.model, batch, job.recipe, job.world_size)
    recipe = replace(job.recipe, training=replace(options, precision=precision))
    if may_compile:
        compile_if_wanted(job.model, batch, recipe, job.world_size)
    return shortened(job.model, batch, recipe) if may_shorten else recipe


def _is_main_process() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0


def _is_complete(checkpoint: dict[str, Any], recipe: Recipe) -> bool:
    options = recipe.training
    seconds = checkpoint.get("callbacks", {}).get("Stopper", {}).get("seconds", 0.0)
    is_time_up = options.max_minutes > 0 and seconds >= options.max_minutes * 60
    return is_time_up or checkpoint["global_step"] >= options.num_steps


def _fit(
    job: _Job,
    module: TrainingModule,
    folder: RunFolder,
    stopper: Stopper,
    checkpoint: Path | None,
    first_step: int,
    progress: bool,
) -> None:
    """Run Lightning's loop; the module holds the averaged weights afterwards, or this process's part of them."""
    options = job.recipe.training
    average = AveragedWeights(options.ema_decay)
    callbacks: list[pl.Callback] = [
        average,
        MetricsLog(options.log_every_steps, options.num_steps),
        stopper,
        Validation(job.held_out, job.recipe, folder.samples, average, stopper),
        Checkpoints(folder.checkpoints, options.checkpoint_minutes, options.num_steps),
    ]
    if progress:
        callbacks.append(ProgressReport(options.num_steps, options.max_minutes))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", job.world_size))
    with _quiet_lightning():
        trainer = pl.Trainer(
            accelerator="gpu" if job.device == "cuda" else "cpu",
            devices=local,
            num_nodes=max(1, job.world_size // local),
            strategy=_strategy(job),
            precision="bf16-mixed" if options.precision == "bf16" else "32-true",
            max_steps=options.num_steps,
            logger=_loggers(folder, first_step) if _is_main_process() else False,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            limit_val_batches=0,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=True,
            use_distributed_sampler=False,
            default_root_dir=folder.path,
        )
        is_group_ours = not is_in_process_group()
        try:
            trainer.fit(module, datamodule=job.data, ckpt_path=checkpoint, weights_only=True)
        except SystemExit as stop:  # what Lightning makes of a second Ctrl-C
            raise KeyboardInterrupt from stop
        if is_group_ours and is_in_process_group():
            _leave_process_group()
    if stopper.is_time_up and _is_main_process():
        _warn_of_levers_that_never_began(job.recipe, trainer.global_step)


def _leave_process_group() -> None:
    """Part from the other processes together: one that has ended breaks connections that another still listens to."""
    distributed.barrier()
    distributed.destroy_process_group()


def _warn_of_levers_that_never_began(recipe: Recipe, step: int) -> None:
    if not isinstance(recipe.model, ModelConfig):
        return
    for lever, start in recipe.model.late_starts().items():
        first = start * recipe.training.num_steps
        if step < first:
            logger.warning(
                "time was up after %d steps and model.%s begins at step %d: swaps will be poor; set training.num_steps "
                "to what the time allows, or training.fit_minutes instead of training.max_minutes",
                step,
                lever,
                math.ceil(first),
            )


def _strategy(job: _Job) -> Any:
    if job.shards_weights:
        return ShardedStrategy()
    return "ddp" if job.world_size > 1 else "auto"


def _loggers(folder: RunFolder, first_step: int) -> list[Any]:
    return [
        MetricsFile(folder.metrics, first_step),
        TensorBoardLogger(
            folder.path,
            name="",
            version="tensorboard",
            default_hp_metric=False,
            purge_step=first_step + 1,
        ),
    ]


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advice and advertisements off the screen; its errors come through."""
    names = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=PossibleUserWarning)  # advice on the number of workers, for one
            warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric")
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module")  # of writing into a block's output; nothing does
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")  # a copy a step, no more
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _model_of(recipe: Recipe, folder: RunFolder) -> nn.Module:
    """Put a run's averaged weights together again, out of its last checkpoint."""
    model: Any = METHODS[recipe.method](recipe.model)
    TrainingModule(model, recipe).load_state_dict(read_checkpoint(folder.checkpoints / LAST)["state_dict"])
    return model


def _finish(job: _Job, folder: RunFolder) -> None:
    plot_loss(folder.metrics, folder.samples / "loss.png")
    newest = last_values(folder.metrics)
    model: Any = job.model.cpu().eval()
    info = folder.read_info()
    whose = "training clips'" if job.held_out is job.data.clips else "held-out"
    steps, psnr = int(newest.get("step", 0)), newest.get("validation/psnr", math.nan)
    numbers = {
        "steps": steps,
        f"{whose} PSNR in dB": round(psnr, 2),
        f"{whose} loss": round(newest.get("validation/total", math.nan), 5),
    }
    card = {
        "title": f"divid: {job.recipe.method}, {job.recipe.model.image_size}x{job.recipe.model.image_size}",
        "Data": [Path(item["path"]).name for item in info["data"]],
        "Numbers": numbers,
        "Made with": {key: info[key] for key in ("git_commit", "seed", "device", "versions")},
        "Limits": "Sizes, subjects and motions far from the training clips come out badly.",
    }
    save_model(model, job.recipe.sampling, folder.model, card)
    logger.info("trained %d steps, %s PSNR %.2f dB", steps, whose, psnr)
    logger.info("model: %s   pictures: %s   curves: tensorboard --logdir %s", folder.model, folder.samples, folder.path)
    logger.info("try: divid swap --model %s --appearance A.mp4 --motion B.mp4 --out C.mp4", folder.model)
