from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from divid.config import DataConfig
from divid.data.module import (
    BatchPlan,
    ClipDataModule,
    ResidentClips,
    _check_room,
    max_frame_spacing,
    middle_video,
)
from divid.errors import ConfigError, DatasetError

OPTIONS = DataConfig(frames_per_sequence=5, min_frames=3, min_span=0.5)


class Clips:
    """Clip i has 8 + i frames, whose every byte is 10 i + position."""

    def __len__(self):
        return 7

    def num_frames(self, index):
        return 8 + index

    def frames(self, index, positions=None):
        positions = np.arange(8 + index) if positions is None else positions
        return np.broadcast_to((10 * index + positions)[:, None, None, None], (len(positions), 4, 4, 3)).astype(np.uint8)


def plan(**changes):
    return replace(BatchPlan(5, 4, tuple(range(8, 15)), OPTIONS), **changes)


def batches(module, start, count):
    loader = iter(module.loader(start))
    return [module.to_clip_batch(next(loader)) for _ in range(count)]


def module(location="memory", workers=0):
    made = ClipDataModule(Clips(), 5, 4, replace(OPTIONS, location=location, num_workers=workers))
    made.load("cpu")
    return made


def test_every_epoch_holds_every_clip_once_in_an_order_of_its_own():
    places = [index for step in range(14) for index in plan().indices(step)]
    epochs = [places[i : i + 7] for i in range(0, 56, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 4
    assert places != [index for step in range(14) for index in plan(seed=6).indices(step)]


def test_a_batch_may_be_larger_than_the_data_set():
    counts = Counter(plan(batch_size=21).indices(3))
    assert counts == dict.fromkeys(range(7), 3)


def test_two_processes_see_what_one_sees():
    for step in range(6):
        whole, parts = plan(), [plan(rank=rank, world_size=2) for rank in range(2)]
        assert sum((part.indices(step) for part in parts), ()) == whole.indices(step)
        assert sum((part.slots() for part in parts), ()) == whole.slots()
        assert np.array_equal(np.concatenate([part.positions(step) for part in parts]), whole.positions(step))


SHARDED = replace(OPTIONS, num_shards=2)


def test_with_shards_every_node_meets_its_own_clips_and_they_meet_all():
    nodes = [plan(options=SHARDED, rank=rank, world_size=2) for rank in range(2)]
    owned = [node.owned().tolist() for node in nodes]
    assert owned == [[0, 2, 4, 6], [1, 3, 5]]
    for node, mine in zip(nodes, owned, strict=True):
        met = [index for step in range(2 * len(mine)) for index in node.indices(step)]
        epochs = [met[start : start + len(mine)] for start in range(0, len(met), len(mine))]
        assert len(epochs) == 4
        assert all(sorted(epoch) == mine for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize("num_shards", [1, 2, 4])
def test_the_number_of_processes_does_not_change_what_shards_give(num_shards):
    options = replace(OPTIONS, num_shards=num_shards)
    for step in range(6):
        whole = plan(options=options)
        for world_size in (2, 4):
            parts = [plan(options=options, rank=rank, world_size=world_size) for rank in range(world_size)]
            assert sum((part.indices(step) for part in parts), ()) == whole.indices(step)
            assert all(set(part.indices(step)) <= set(part.owned().tolist()) for part in parts)
    assert whole.owned().tolist() == list(range(7))


def test_a_node_keeps_its_part_only():
    class Counting(Clips):
        read = ()

        def frames(self, index, positions=None):
            self.read += (index,)
            return super().frames(index, positions)

    clips = Counting()
    made = ClipDataModule(clips, 5, 4, SHARDED)
    made.load("cpu", rank=1, world_size=2)
    assert set(clips.read) == {1, 3, 5}
    assert len(made._resident.frames) == 9 + 11 + 13
    loader = iter(made.loader(3, rank=1, world_size=2))
    got = made.to_clip_batch(next(loader))
    expected = ClipDataModule(Clips(), 5, 4, SHARDED)
    expected.load("cpu")
    whole = expected.to_clip_batch(next(iter(expected.loader(3))))
    assert torch.equal(got.video, whole.video[2:])
    assert got.indices == whole.indices[2:]


SETS = (0, 0, 1, 1, 1, 1, 1)


def test_balanced_sets_take_turns_each_in_epochs_of_its_own():
    balanced = plan(options=replace(OPTIONS, balance=True), sets=SETS)
    met = [index for step in range(10) for index in balanced.indices(step)]
    assert [SETS[index] for index in met] == [0, 1] * 20
    small, large = met[::2], met[1::2]
    assert all(sorted(small[start : start + 2]) == [0, 1] for start in range(0, 20, 2))
    assert all(sorted(large[start : start + 5]) == [2, 3, 4, 5, 6] for start in range(0, 20, 5))
    assert len({tuple(large[start : start + 5]) for start in range(0, 20, 5)}) > 1


def test_without_balance_or_with_one_set_nothing_changes():
    expected = [plan().indices(step) for step in range(8)]
    assert [plan(sets=SETS).indices(step) for step in range(8)] == expected
    alone = plan(options=replace(OPTIONS, balance=True), sets=(3,) * 7)
    assert [alone.indices(step) for step in range(8)] == expected


def test_balanced_sets_are_dealt_out_to_nodes_too():
    options = replace(OPTIONS, balance=True, num_shards=2)
    whole = plan(options=options, sets=SETS)
    nodes = [replace(whole, rank=rank, world_size=2) for rank in range(2)]
    assert [node.owned().tolist() for node in nodes] == [[0, 2, 4, 6], [1, 3, 5]]
    for step in range(6):
        assert sum((node.indices(step) for node in nodes), ()) == whole.indices(step)
        for node in nodes:
            assert [SETS[index] for index in node.indices(step)] == [0, 1]


def test_more_shards_than_clips_are_refused():
    with pytest.raises(ConfigError, match="num_shards is 8, but there are only 7 clips"):
        plan(batch_size=8, options=replace(OPTIONS, num_shards=8))


def test_batch_must_divide_by_the_processes():
    with pytest.raises(ConfigError, match="multiple of the 3 processes"):
        plan(world_size=3)


def test_positions_are_in_order_inside_the_clip_and_vary():
    lengths, spans = set(), []
    for step in range(40):
        positions = plan().positions(step)
        lengths.add(positions.shape[1])
        for row, index in zip(positions, plan().indices(step), strict=True):
            assert (np.diff(row) >= 0).all()
            assert row[0] >= 0
            assert row[-1] < 8 + index
            spans.append((row[-1] - row[0]) / (8 + index))
    assert lengths == {3, 4, 5}
    assert min(spans) < 0.4
    assert max(spans) > 0.7


def test_fixed_length_and_whole_span():
    fixed = plan(options=DataConfig(frames_per_sequence=4, min_frames=4, min_span=1.0))
    for step in range(5):
        for row, index in zip(fixed.positions(step), fixed.indices(step), strict=True):
            assert [int(4 * p / (8 + index)) for p in row + 0.5] == pytest.approx(range(4), abs=1)


@pytest.mark.parametrize(("location", "workers"), [("memory", 0), ("disk", 0), ("device", 0), ("disk", 2)])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
def test_every_location_gives_the_same_batches_from_any_step(location, workers):
    reference = batches(module(), 0, 6)
    for got, expected in zip(batches(module(location, workers), 2, 4), reference[2:], strict=True):
        assert torch.equal(got.video, expected.video)
        assert got[1:] == expected[1:]


def test_batches_hold_the_planned_frames():
    batch = batches(module(), 3, 1)[0]
    assert batch.step == 3
    assert batch.video.dtype == torch.float32
    expected = 10 * np.array(batch.indices)[:, None] + plan().positions(3)
    bytes_back = ((batch.video[:, :, 0, 0, 0] + 1) * 127.5).round().int().numpy()
    assert np.array_equal(bytes_back, expected)
    assert batch.video.shape[2:] == (3, 4, 4)


def test_first_batch_is_that_of_step_0():
    assert torch.equal(module("device").first_batch("cpu").video, batches(module(), 0, 1)[0].video)


def test_middle_video_takes_the_middle_of_each_stretch():
    video = middle_video(Clips(), [0, 2], 2)
    assert ((video[:, :, 0, 0, 0] + 1) * 127.5).round().int().tolist() == [[2, 6], [22, 27]]


def test_max_frame_spacing_is_the_usual_widest():
    class Even(Clips):
        def num_frames(self, index):
            return 80 if index else 20

    assert max_frame_spacing(Even(), 10) == 8
    assert max_frame_spacing(Clips(), 100) == 1


def test_no_clips_is_an_error():
    class Nothing(Clips):
        def __len__(self):
            return 0

    with pytest.raises(DatasetError, match="no clips"):
        ClipDataModule(Nothing(), 0, 4, OPTIONS)


def test_resident_clips_gather():
    resident = ResidentClips(Clips())
    got = resident.gather((3, 0), torch.tensor([[0, 10], [7, 1]]))
    assert got[:, :, 0, 0, 0].tolist() == [[30, 40], [7, 1]]


def test_clips_too_large_for_memory_say_what_to_do():
    with pytest.raises(ConfigError, match=r"data\.location=disk"):
        _check_room(10**15, torch.device("cpu"))
