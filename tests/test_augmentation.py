"""Appearance augmentation: alike over a clip's frames, and different between clips."""

import pytest
import torch

from divid.augmentation import _warp, augment_appearance, move_along
from divid.randomness import Randomness

STEP = Randomness(seed=0, step=3, slots=(0, 1, 2), num_slots=3)
FAR = Randomness(seed=1, step=3, slots=(0, 1, 2), num_slots=3)  # whose shifts are of a pixel and more both ways


def still_clips(channels: int) -> torch.Tensor:
    picture = torch.rand(1, 1, channels, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return picture.expand(3, 4, -1, -1, -1)


@pytest.mark.parametrize("channels", [1, 3])
def test_frames_of_a_clip_change_alike_and_clips_differ(channels):
    changed = augment_appearance(still_clips(channels), STEP, 1.0)
    assert changed.shape == (3, 4, channels, 16, 16)
    assert changed.min() >= -1
    assert changed.max() <= 1
    torch.testing.assert_close(changed, changed[:, :1].expand_as(changed))
    assert (changed[0] - changed[1]).abs().mean() > 0.05
    assert (changed - still_clips(channels)).abs().mean() > 0.05


@pytest.mark.parametrize("channels", [1, 3])
def test_strength_0_changes_nothing_and_a_little_changes_little(channels):
    clips = still_clips(channels)
    assert augment_appearance(clips, STEP, 0.0) is clips
    assert (augment_appearance(clips, STEP, 1e-4) - clips).abs().max() < 1e-2


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_have_a_strength_of_their_own(channels):
    clips = still_clips(channels)
    build_alone, half, all_of_it = (augment_appearance(clips, STEP, 1.0, colours=colours) for colours in (0.0, 0.5, 1.0))
    torch.testing.assert_close(all_of_it, augment_appearance(clips, STEP, 1.0))
    assert 0 < (half - build_alone).abs().mean() < (all_of_it - build_alone).abs().mean()
    one_colour = torch.full_like(clips, 0.3)
    torch.testing.assert_close(augment_appearance(one_colour, STEP, 1.0, colours=0.0), one_colour)


@pytest.mark.parametrize(("sideways", "upwards"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_each_direction_has_a_strength_of_its_own(sideways, upwards):
    square = torch.full((3, 1, 1, 16, 16), -1.0)
    square[..., 6:10, 6:10] = 1
    changed = augment_appearance(square, STEP, 1.0, colours=0.0, sideways=sideways, upwards=upwards)
    assert not torch.equal(changed, square)  # in size and slant at least
    weight = changed + 1
    places = torch.arange(16.0)
    row, column = ((weight * along).sum((1, 2, 3, 4)) / weight.sum((1, 2, 3, 4)) for along in (places[:, None], places))
    assert ((column - 7.5).abs().max() > 0.1) == (sideways > 0)
    assert ((row - 7.5).abs().max() > 0.1) == (upwards > 0)
    whole = augment_appearance(square, STEP, 1.0, colours=0.0, sideways=1.0, upwards=1.0)
    torch.testing.assert_close(whole, augment_appearance(square, STEP, 1.0, colours=0.0))


def test_proportions_resize_parts_at_the_expense_of_others_and_keep_their_order():
    """Of a ramp from the left to the right, every column keeps its rank, both ends stay, and steps between columns differ."""
    ramp = torch.linspace(-1, 1, 36).expand(3, 2, 1, 36, 36)
    sizes = torch.ones(3, 2, 6)
    sizes[1, 0, 0], sizes[2, 0, 5], sizes[2, 1, 0] = 2.0, 0.5, 3.0
    changed = _warp(ramp, torch.zeros(3, 5), whole_pixels=False, sizes=sizes)
    torch.testing.assert_close(changed[0], ramp[0])
    assert (changed.diff(dim=-1) > -1e-6).all()
    torch.testing.assert_close(changed[..., 0], ramp[..., 0], atol=0.1, rtol=0)
    torch.testing.assert_close(changed[..., -1], ramp[..., -1], atol=0.1, rtol=0)
    step = changed.diff(dim=-1)[:, 0, 0, 18]
    torch.testing.assert_close(step[1, 2] / step[1, 20], torch.tensor(2.0), rtol=0.01, atol=0)
    torch.testing.assert_close(step[2, 33] / step[2, 20], torch.tensor(0.5), rtol=0.01, atol=0)


def test_proportions_have_a_strength_of_their_own_and_draws_apart():
    clips = still_clips(3)
    plain = augment_appearance(clips, STEP, 1.0)
    torch.testing.assert_close(augment_appearance(clips, STEP, 1.0, proportions=0.0), plain)
    little, whole = (augment_appearance(clips, STEP, 1.0, proportions=strength) for strength in (1e-4, 1.0))
    assert (little - plain).abs().max() < 1e-2
    assert (whole - plain).abs().mean() > 0.02
    torch.testing.assert_close(whole, whole[:, :1].expand_as(whole))


@pytest.mark.parametrize(("sideways", "upwards"), [(1.0, 0.0), (0.0, 1.0)])
def test_what_is_moved_along_stays_where_the_changed_clip_is(sideways, upwards):
    """Of a dot in the middle, which no scale and no shear moves, changed and moved clip have one place, but for the scale."""
    dot = torch.full((3, 2, 1, 33, 33), -1.0)
    dot[..., 15:18, 15:18] = 1.0

    def place(video):
        weight = (video[:, 0, 0] + 1) / 2
        rows = torch.arange(33.0)
        total = weight.sum((1, 2))
        return torch.stack([(weight.sum(1) * rows).sum(1), (weight.sum(2) * rows).sum(1)], dim=1) / total[:, None] - 16

    moved = place(move_along(dot, FAR, 1.0, sideways=sideways, upwards=upwards))
    changed = place(augment_appearance(dot, FAR, 1.0, colours=0.0, sideways=sideways, upwards=upwards, whole_pixels=True))
    assert (moved.abs() > 0.5).any(0).tolist() == [sideways > 0, upwards > 0]
    torch.testing.assert_close(moved, moved.round(), rtol=0, atol=1e-4)
    way = 0 if sideways else 1
    torch.testing.assert_close(moved[:, way], changed[:, way], rtol=0.4, atol=0.1)


def test_what_is_moved_along_stays_sharp():
    clips = still_clips(3)
    moved = move_along(clips, FAR, 1.0)
    for clip, shifted in zip(clips, moved, strict=True):
        rolled = [clip.roll((up, left), (-2, -1)) for up in range(-2, 3) for left in range(-2, 3)]
        assert min(float((shifted - one)[..., 2:-2, 2:-2].abs().max()) for one in rolled) < 1e-4


def test_nothing_is_moved_without_a_shift():
    clips = still_clips(3)
    assert move_along(clips, STEP, 1.0, sideways=0.0, upwards=0.0) is clips
    assert move_along(clips, STEP, 0.0) is clips


def test_it_depends_on_the_place_in_the_batch_only():
    whole = augment_appearance(still_clips(3), STEP, 1.0)
    second = augment_appearance(still_clips(3)[1:2], Randomness(seed=0, step=3, slots=(1,), num_slots=3), 1.0)
    torch.testing.assert_close(second, whole[1:2])
    assert not torch.equal(augment_appearance(still_clips(3), Randomness(0, 4, (0, 1, 2), 3), 1.0), whole)


def test_left_stays_left():
    clip = torch.full((3, 1, 1, 16, 16), -1.0)
    clip[..., 6:10, 1:4] = 1
    changed = augment_appearance(clip, STEP, 1.0)
    columns = torch.arange(16.0)
    centre = (((changed + 1) * columns).sum((1, 2, 3, 4)) / (changed + 1).sum((1, 2, 3, 4))).tolist()
    assert all(place < 8 for place in centre)
