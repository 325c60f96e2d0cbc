"""From clips to training batches: everything about a batch is a function of (seed, step, place in the global batch).

So training starts anywhere, on any number of processes, and meets the same clips and frames.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from divid.arrays import frames_to_video
from divid.config import DataConfig
from divid.data.clips import middle_positions, stretch_positions
from divid.errors import ConfigError, DatasetError
from divid.randomness import Randomness, make_generator, to_device
from divid.types import Video

logger = logging.getLogger("divid")

PackedFrames = UInt8[Tensor, "batch frames height width channels"]


class Clips(Protocol):
    """What training needs of a `divid.data.clips.ClipDataset`."""

    def __len__(self) -> int:
        """Number of clips."""
        ...

    def num_frames(self, index: int) -> int:
        """Number of frames of a clip."""
        ...

    def frames(self, index: int, positions: np.ndarray | None = None) -> np.ndarray:
        """Frames of a clip, uint8 F H W C."""
        ...


class ClipBatch(NamedTuple):
    """What a training step gets.

    Args:
        video: This process's clips.
        slots: Their places in the global batch.
        indices: Their numbers in the data set.
        step: The optimiser step that the batch belongs to.
    """

    video: Video
    slots: tuple[int, ...]
    indices: tuple[int, ...]
    step: int


class RawBatch(NamedTuple):
    """A batch as the loader gives it: bytes, or only their positions where the clips stay on the device."""

    frames: PackedFrames | None
    positions: Int[Tensor, "batch frames"]
    slots: tuple[int, ...]
    indices: tuple[int, ...]
    step: int


def max_frame_spacing(clips: Clips, frames_per_sequence: int) -> int:
    """Give the widest usual distance between neighbouring frames of a training sequence: the 95th percentile over the clips.

    Args:
        clips: The training clips.
        frames_per_sequence: F.
    """
    lengths = np.array([clips.num_frames(index) for index in range(len(clips))])
    return max(1, int(np.ceil(np.percentile(lengths / frames_per_sequence, 95))))


def middle_video(clips: Clips, indices: list[int], num_frames: int) -> Video:
    """Give whole clips for evaluation: the frame in the middle of each of F equal stretches.

    Args:
        clips: Any clips.
        indices: Which ones.
        num_frames: F.
    """
    frames = [clips.frames(index, middle_positions(clips.num_frames(index), num_frames)) for index in indices]
    return frames_to_video(np.stack(frames))


@functools.lru_cache(maxsize=64)
def _epoch_order(num_clips: int, *parts: int | str) -> np.ndarray:
    return torch.randperm(num_clips, generator=make_generator(*parts)).numpy()


@dataclass(frozen=True)
class BatchPlan:
    """Which clips and frames a step trains on.

    Slot i of step k is the (k B + i)-th clip in the sequence of all epochs, each epoch in an order of its own. With S shards the
    slots are cut into S equal parts, each of which has an S-th of the clips, and goes through its epochs by itself. Balanced, the
    data sets take turns along that sequence, each in epochs of its own.

    Args:
        seed: The run's seed.
        batch_size: B, clips a step over all processes.
        lengths: Number of frames of every clip.
        options: How frames are drawn.
        rank: Number of this process.
        world_size: Number of processes.
        sets: Number of the data set that each clip is from; empty: of one.

    Raises:
        ConfigError: The batch cannot be split evenly over the processes or shards, or there are fewer clips than shards.
    """

    seed: int
    batch_size: int
    lengths: tuple[int, ...]
    options: DataConfig
    rank: int = 0
    world_size: int = 1
    sets: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.batch_size % self.world_size:
            raise ConfigError(
                f"training.batch_size is {self.batch_size}, must be a multiple of the {self.world_size} processes "
                "it is shared by: change it, or --devices"
            )
        if len(self.lengths) < self.options.num_shards:
            raise ConfigError(
                f"data.num_shards is {self.options.num_shards}, but there are only {len(self.lengths)} clips to deal out"
            )

    def slots(self) -> tuple[int, ...]:
        """Give this process's contiguous share of the places in the global batch."""
        share = self.batch_size // self.world_size
        return tuple(range(self.rank * share, (self.rank + 1) * share))

    def indices(self, step: int) -> tuple[int, ...]:
        """Give the clips of this process's slots.

        Args:
            step: The optimiser step.
        """
        return tuple(self._clip(step, slot) for slot in self.slots())

    def owned(self) -> Int[np.ndarray, " clips"]:
        """Give the clips that this process will ever ask for, in ascending order."""
        shards = sorted({self._shard(slot) for slot in self.slots()})
        return np.sort(np.concatenate([members for shard in shards for members in self._members[shard]]))

    @functools.cached_property
    def _members(self) -> list[list[np.ndarray]]:
        """The clips of each shard, by data set if these take turns."""
        everything, num_shards = np.arange(len(self.lengths)), self.options.num_shards
        groups = [everything]
        if self.options.balance and self.sets:
            numbers = np.array(self.sets)
            groups = [everything[numbers == number] for number in np.unique(numbers)]
        return [[part for group in groups if len(part := group[shard::num_shards])] for shard in range(num_shards)]

    def _shard(self, slot: int) -> int:
        return slot * self.options.num_shards // self.batch_size

    def _clip(self, step: int, slot: int) -> int:
        shard, share = self._shard(slot), self.batch_size // self.options.num_shards
        groups = self._members[shard]
        place, turn = divmod(step * share + slot - shard * share, len(groups))
        epoch, place = divmod(place, len(groups[turn]))
        what = [*(("shard", shard) if self.options.num_shards > 1 else ()), *(("set", turn) if len(groups) > 1 else ())]
        order = _epoch_order(len(groups[turn]), self.seed, "epoch", epoch, *what)
        return int(groups[turn][order[place]])

    def positions(self, step: int) -> Int[np.ndarray, "batch frames"]:
        """Give the frames of each clip: one at random from each of F equal stretches of a random part of the recording.

        Args:
            step: The optimiser step; its F lies between `min_frames` and `frames_per_sequence`.
        """
        options, randomness = self.options, Randomness(self.seed, step, self.slots(), self.batch_size)
        choices = options.frames_per_sequence - options.min_frames + 1
        count = options.min_frames + int(randomness.step_uniform("sequence length") * choices)
        offsets = randomness.uniform("frame offsets", (count,)).double().numpy()
        part = randomness.uniform("span", (2,)).double().numpy()
        spans = options.min_span + part[:, 0] * (1 - options.min_span)
        rows = [
            stretch_positions(
                self.lengths[index], count, offsets[i], start=float(part[i, 1] * (1 - spans[i])), span=float(spans[i])
            )
            for i, index in enumerate(self.indices(step))
        ]
        return np.stack(rows).astype(np.int64)


class ResidentClips:
    """All frames of some clips in one tensor, in memory or on a device.

    Args:
        clips: Where to load from.
        device: Where to keep them.
        indices: The clips to load; default: all.

    Raises:
        ConfigError: They do not fit there.
    """

    def __init__(
        self, clips: Clips, device: torch.device | str = "cpu", indices: Int[np.ndarray, " clips"] | None = None
    ) -> None:
        chosen = list(range(len(clips))) if indices is None else indices.tolist()
        lengths = [clips.num_frames(index) for index in chosen]
        offsets = torch.full((len(clips),), torch.iinfo(torch.int64).min)  # far outside of the frames, where no clip is
        offsets[chosen] = torch.tensor([0, *itertools.accumulate(lengths)][:-1])
        self.offsets = offsets.to(device)
        first = clips.frames(chosen[0])
        _check_room(sum(lengths) * first[0].nbytes, torch.device(device))
        packed = np.empty((sum(lengths), *first.shape[1:]), dtype=np.uint8)
        start = 0
        for index, length in zip(chosen, lengths, strict=True):
            packed[start : start + length] = clips.frames(index)
            start += length
        self.frames = torch.from_numpy(packed).to(device)

    def gather(self, indices: tuple[int, ...], positions: Int[Tensor, "batch frames"]) -> PackedFrames:
        """Give some frames of some clips.

        Args:
            indices: The clips.
            positions: The frames of each.
        """
        device = self.frames.device
        starts = self.offsets[to_device(torch.tensor(indices), device)]
        return self.frames[starts[:, None] + to_device(positions, device)]


class _StepBatches(Dataset):
    """The batches of a run by step number."""

    def __init__(self, clips: Clips, plan: BatchPlan, resident: ResidentClips | None) -> None:
        self.clips, self.plan, self.resident = clips, plan, resident

    def __getitem__(self, step: int) -> RawBatch:
        indices = self.plan.indices(step)
        positions = self.plan.positions(step)
        frames = None
        if self.plan.options.location == "disk":
            rows = [self.clips.frames(index, row) for index, row in zip(indices, positions, strict=True)]
            frames = torch.from_numpy(np.stack(rows))
        elif self.plan.options.location == "memory":
            assert self.resident is not None
            frames = self.resident.gather(indices, torch.from_numpy(positions))
        return RawBatch(frames, torch.from_numpy(positions), self.plan.slots(), indices, step)


class _StepsFrom(Sampler[int]):
    """The step numbers from a given one on, without end and so without a length: the trainer counts steps, not epochs."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start)


def _as_it_is(batch: Any) -> Any:
    return batch


class ClipDataModule(pl.LightningDataModule):
    """Training batches for Lightning, from the step on at which the trainer stands.

    Args:
        clips: The training clips.
        seed: The run's seed.
        batch_size: Clips a step over all processes.
        options: How clips are kept and frames drawn.

    Raises:
        DatasetError: There are no clips.
    """

    def __init__(self, clips: Clips, seed: int, batch_size: int, options: DataConfig) -> None:
        super().__init__()
        if not len(clips):
            raise DatasetError("there are no clips to train on: prepare a data set whose split 'train' is not empty")
        self.clips, self.seed, self.batch_size, self.options = clips, seed, batch_size, options
        self.lengths = tuple(clips.num_frames(index) for index in range(len(clips)))
        self.sets = tuple(getattr(clips, "set_numbers", ()))  # clips of no data set are of one
        self._resident: ResidentClips | None = None

    def load(self, device: torch.device | str, rank: int = 0, world_size: int = 1) -> None:
        """Load the clips of a process to where the options want them; does nothing the second time, or for clips left on disk.

        Args:
            device: The device that trains.
            rank: Number of this process.
            world_size: Number of processes.
        """
        if self._resident is None and self.options.location != "disk":
            owned = self._plan(rank, world_size).owned()
            self._resident = ResidentClips(self.clips, device if self.options.location == "device" else "cpu", owned)

    def loader(self, start: int, rank: int = 0, world_size: int = 1) -> DataLoader:
        """Make an endless loader of raw batches.

        Args:
            start: The first step.
            rank: Number of this process.
            world_size: Number of processes.
        """
        batches, workers = self._batches(rank, world_size), self.options.num_workers
        return DataLoader(batches, batch_size=None, sampler=_StepsFrom(start), num_workers=workers, collate_fn=_as_it_is)

    def to_clip_batch(self, batch: RawBatch) -> ClipBatch:
        """Turn a raw batch, already on its device, into what the training step gets.

        Args:
            batch: What the loader gave.
        """
        frames = batch.frames
        if frames is None:
            assert self._resident is not None
            frames = self._resident.gather(batch.indices, batch.positions)
        return ClipBatch(frames_to_video(frames), batch.slots, batch.indices, batch.step)

    def first_batch(self, device: torch.device | str, rank: int = 0, world_size: int = 1) -> ClipBatch:
        """Give a process's part of the batch of step 0, for a timed trial.

        Args:
            device: Where it shall lie.
            rank: Number of this process.
            world_size: Number of processes.
        """
        self.load(device, rank, world_size)
        raw = self._batches(rank, world_size)[0]
        return self.to_clip_batch(raw._replace(frames=None if raw.frames is None else raw.frames.to(device)))

    def train_dataloader(self) -> DataLoader:
        """Make the loader that starts at the trainer's step (Lightning does not restore the place in the data)."""
        assert self.trainer is not None
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        self.load(self.trainer.strategy.root_device, rank, world_size)
        return self.loader(self.trainer.global_step, rank, world_size)

    def _plan(self, rank: int, world_size: int) -> BatchPlan:
        return BatchPlan(self.seed, self.batch_size, self.lengths, self.options, rank, world_size, self.sets)

    def _batches(self, rank: int, world_size: int) -> _StepBatches:
        return _StepBatches(
            self.clips, self._plan(rank, world_size), self._resident if self.options.location == "memory" else None
        )

    def on_after_batch_transfer(self, batch: RawBatch, dataloader_idx: int) -> ClipBatch:
        """Finish a batch on its device."""
        return self.to_clip_batch(batch)


def _check_room(num_bytes: int, device: torch.device) -> None:
    if device.type == "cuda":
        room, place = torch.cuda.mem_get_info(device)[0], "the GPU"
        instead = "memory"
    else:
        room, place = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "memory"
        instead = "disk"
    if num_bytes > 0.7 * room:
        raise ConfigError(
            f"the clips take {num_bytes / 2**30:.1f} GiB, too much for {place} ({room / 2**30:.1f} GiB): "
            f"set data.location={instead}"
        )
