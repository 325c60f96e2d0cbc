from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from divid.data.puppets import make_look, make_motion
from divid.data.sources.base import Item, SourceOptions
from divid.data.sources.puppets import (
    ACTIONS,
    FPS,
    HELD_OUT_LOOK_SEEDS,
    JOINT_NAMES,
    NUM_FRAMES,
    PuppetsSource,
    render_clip,
    render_clip_and_poses,
)
from divid.errors import ConfigError, InputError


def pose(look_seed: int, action: str, clip_seed: int, num_frames: int = 24) -> np.ndarray:
    return make_motion(make_look(look_seed).body, action, clip_seed, num_frames).joints[..., :2]


def features(poses: np.ndarray) -> np.ndarray:
    """Mean and spread of each joint relative to the clip's mean pelvis: free of place and phase."""
    centred = poses - poses[:, [JOINT_NAMES.index("pelvis")]].mean(axis=0, keepdims=True)
    return np.concatenate([centred.mean(axis=0).ravel(), centred.std(axis=0).ravel()])


def colour_near(frame: np.ndarray, point: np.ndarray, radius: int = 1) -> np.ndarray:
    column, row = (point * frame.shape[0]).astype(int)
    return frame[row - radius : row + radius + 1, column - radius : column + radius + 1].reshape(-1, 3).astype(float)


def test_there_are_enough_actions_and_every_limb_is_a_joint() -> None:
    assert len(ACTIONS) == len(set(ACTIONS)) >= 12
    assert len(JOINT_NAMES) == len(set(JOINT_NAMES)) == 17


@pytest.mark.parametrize("size", [32, 64, 100])
def test_frames_have_the_asked_shape(size: int) -> None:
    frames, poses = render_clip_and_poses(3, "walk", 5, num_frames=4, size=size)
    assert frames.shape == (4, size, size, 3)
    assert frames.dtype == np.uint8
    assert poses.shape == (4, len(JOINT_NAMES), 2)
    assert poses.dtype == np.float32
    assert np.allclose(poses, pose(3, "walk", 5, 4), atol=1e-6)


def test_same_seeds_give_the_same_clip_and_others_another() -> None:
    first = render_clip(1, "jump", 2, num_frames=5, size=32)
    assert np.array_equal(first, render_clip(1, "jump", 2, num_frames=5, size=32))
    assert not np.array_equal(first, render_clip(1, "jump", 3, num_frames=5, size=32))
    assert not np.array_equal(first, render_clip(2, "jump", 2, num_frames=5, size=32))


def test_frames_do_not_depend_on_the_length_of_the_clip() -> None:
    long = render_clip(1, "clap", 2, num_frames=6, size=32)
    assert np.array_equal(long[:3], render_clip(1, "clap", 2, num_frames=3, size=32))


def test_pictures_of_different_sizes_show_the_same() -> None:
    small, large = (render_clip(4, "kick", 1, num_frames=1, size=size)[0].astype(float) for size in (32, 96))
    averaged = large.reshape(32, 3, 32, 3, 3).mean(axis=(1, 3))
    assert np.abs(averaged - small).mean() < 3


@pytest.mark.parametrize("action", ACTIONS)
def test_the_whole_figure_stays_in_the_picture(action: str) -> None:
    poses = np.concatenate([pose(look, action, clip) for clip, look in enumerate(range(0, 90, 3))])
    assert poses[..., 0].min() > 0.05
    assert poses[..., 0].max() < 0.95
    assert poses[..., 1].min() > 0.08  # room for hair above the head and the hand around its joint
    assert poses[..., 1].max() < 0.96


@pytest.mark.parametrize("action", ACTIONS)
def test_joints_move_smoothly_and_limbs_keep_their_length(action: str) -> None:
    poses = pose(7, action, 1, 48)
    assert np.abs(np.diff(poses, axis=0)).max() < 0.24
    upper = np.linalg.norm(poses[:, JOINT_NAMES.index("left_elbow")] - poses[:, JOINT_NAMES.index("left_shoulder")], axis=-1)
    body = make_look(7).body
    assert upper.max() <= 1.03 * body.upper_arm  # the slanted projection stretches by 2 % at most


def test_at_rest_a_foot_is_on_the_ground_and_a_jump_leaves_it() -> None:
    ankles = [JOINT_NAMES.index("left_ankle"), JOINT_NAMES.index("right_ankle")]
    lowest = {action: pose(2, action, 4)[:, ankles, 1].max(axis=1) for action in ("clap", "squat", "jump")}
    assert np.ptp(lowest["clap"]) < 0.01
    assert np.ptp(lowest["squat"]) < 0.03
    assert np.ptp(lowest["jump"]) > 0.05


def test_actions_are_told_apart_by_their_poses_alone() -> None:
    """The nearest other clip, of another look and another performance, nearly always shows the same action."""
    known = {action: np.stack([features(pose(look, action, look)) for look in range(12)]) for action in ACTIONS}
    hits = total = 0
    for action in ACTIONS:
        for look in range(100, 106):
            query = features(pose(look, action, look, 20)[::2])
            gaps = {other: np.linalg.norm(samples - query, axis=1).min() for other, samples in known.items()}
            hits += min(gaps, key=lambda other: gaps[other]) == action
            total += 1
    assert hits >= 0.97 * total


@pytest.mark.parametrize("first", range(len(ACTIONS)))
def test_actions_keep_a_margin_in_pose_space(first: int) -> None:
    mine = features(pose(5, ACTIONS[first], 0, 120))
    others = [features(pose(5, ACTIONS[second], 0, 120)) for second in range(len(ACTIONS)) if second != first]
    assert min(np.linalg.norm(mine - other) for other in others) > 0.08


def test_left_and_right_are_the_figures_own() -> None:
    left, right = (pose(1, f"wave_{side}", 3) for side in ("left", "right"))
    hands = [JOINT_NAMES.index("left_hand"), JOINT_NAMES.index("right_hand")]
    shoulder = left[:, JOINT_NAMES.index("neck"), 1].mean()
    assert left[:, hands[0], 1].max() < shoulder < left[:, hands[1], 1].min()
    assert right[:, hands[1], 1].max() < shoulder < right[:, hands[0], 1].min()
    assert left[:, hands[0], 0].mean() > left[:, hands[1], 0].mean()  # it faces the viewer


def test_a_look_keeps_its_colours_over_actions() -> None:
    def histogram(look: int, action: str) -> np.ndarray:
        frames = render_clip(look, action, 1, num_frames=6, size=64)
        return np.histogramdd(frames.reshape(-1, 3), bins=8, range=[(0, 256)] * 3)[0] / frames[..., 0].size

    actions = ("walk", "squat", "arms_up")
    own = [np.abs(histogram(look, "walk") - histogram(look, other)).sum() for look in range(6) for other in actions[1:]]
    others = [np.abs(histogram(look, "walk") - histogram(look + 1, "walk")).sum() for look in range(6)]
    assert max(own) < 0.35 < 0.8 < min(others)


def test_the_background_stands_still() -> None:
    frames = render_clip(8, "jog", 1, num_frames=12, size=64).astype(int)
    assert np.ptp(frames[:, :, :8], axis=0).max() == 0
    assert np.ptp(frames[:, 20:56, 20:44], axis=0).max() > 60


def test_plain_scenery_is_one_colour_and_leaves_the_figure_as_it_is() -> None:
    full, plain = (render_clip(4, "bow", 3, num_frames=6, size=64, scenery=kind) for kind in ("full", "plain"))
    assert np.ptp(plain[:, :4].reshape(-1, 3), axis=0).max() == 0
    assert np.ptp(full[:, :4].reshape(-1, 3), axis=0).max() > 5
    pelvis = pose(4, "bow", 3, 6)[:, JOINT_NAMES.index("pelvis")]
    for f, place in enumerate(pelvis):
        assert np.abs(colour_near(full[f], place) - colour_near(plain[f], place)).max() == 0


@pytest.mark.parametrize("look_seed", range(8))
def test_edges_are_smooth(look_seed: int) -> None:
    """Between skin and sky lie colours that are neither: in a picture without smoothing every pixel is pure."""
    frame = render_clip(look_seed, "arms_up", 1, num_frames=1, size=64)[0].astype(int)
    large = render_clip(look_seed, "arms_up", 1, num_frames=1, size=256)[0]
    pure = {tuple(color) for color in large.reshape(-1, 3).tolist()}
    rows = frame[8:56, 16:48].reshape(-1, 3).tolist()
    assert sum(tuple(color) not in pure for color in rows) > 0.2 * len(rows)


@pytest.mark.parametrize("look_seed", range(12))
def test_the_pose_matches_the_picture(look_seed: int) -> None:
    """At the wrist joint of a waving arm there is skin or sleeve, and not what is behind it."""
    look = make_look(look_seed)
    frames, poses = render_clip_and_poses(look_seed, "wave_left", 2, num_frames=3, size=128)
    sleeve = (
        (look.accent if look.pattern == "blocks" else look.top_color) if look.top in ("long_sleeves", "jacket") else look.skin
    )
    for frame, joints in zip(frames, poses, strict=True):
        hand = colour_near(frame, joints[JOINT_NAMES.index("left_hand")])
        assert np.abs(hand - look.skin).max(axis=1).min() < 30
        elbow = colour_near(frame, joints[JOINT_NAMES.index("left_elbow")])
        assert np.abs(elbow - sleeve).max(axis=1).min() < 30
        head = colour_near(frame, joints[JOINT_NAMES.index("head")], 4)
        assert (np.abs(head - look.skin).max(axis=1) < 30).mean() > 0.2


def test_looks_differ_and_are_fixed_by_their_seed() -> None:
    looks = [make_look(seed) for seed in range(40)]
    assert looks[3] == make_look(3)
    assert len(set(looks)) == 40
    assert len({look.scene.kind for look in looks}) == 7
    assert len({look.hair_style for look in looks}) > 7
    assert len({(look.top, look.bottom) for look in looks}) > 8


def test_default_set_has_exact_labels_all_actions_and_a_held_out_trial() -> None:
    source = PuppetsSource(None, SourceOptions())
    items = source.items()
    assert len(items) == len({item.id for item in items}) == 480
    assert {item.labels["action"] for item in items} == set(ACTIONS)
    assert len({item.labels["look"] for item in items}) == 40
    for item in items:
        assert tuple(item.labels) == (*source.static_factors, *source.dynamic_factors)
        assert item.extra["action"] == item.labels["action"]
        assert item.labels["look"] == f"look_{item.extra['look_seed']:03d}"
        assert item.paths == ()
        json.dumps(item.extra)
    assert Counter(item.split for item in items) == {"train": 360, "test": 120}


@pytest.mark.parametrize("num_clips", [1, 2, 5, 12, 100, 480, 900, 2000])
def test_the_last_trial_of_each_look_and_action_is_held_out(num_clips: int) -> None:
    items = PuppetsSource(None, SourceOptions(num_clips=num_clips)).items()
    assert len(items) == len({item.id for item in items}) == num_clips
    trials: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for item in items:
        trials[item.labels["look"], item.labels["action"]].append(item)
    for repeats in trials.values():
        assert [item.trial for item in repeats] == list(range(1, len(repeats) + 1))
        expected = ["train"] * (len(repeats) - 1) + ["test" if len(repeats) > 1 else "train"]
        assert [item.split for item in repeats] == expected


def test_actions_are_spread_evenly() -> None:
    counts = Counter(item.labels["action"] for item in PuppetsSource(None, SourceOptions()).items())
    assert max(counts.values()) < 1.25 * min(counts.values())


def test_loading_is_a_function_of_seed_and_item() -> None:
    options = SourceOptions(image_size=32, num_clips=12)
    source = PuppetsSource(None, options)
    item = source.items()[4]
    frames, fps = source.load(item)
    assert frames.shape == (NUM_FRAMES, 32, 32, 3)
    assert fps == FPS
    assert np.array_equal(frames, PuppetsSource(None, options).load(item)[0])
    other = PuppetsSource(None, SourceOptions(image_size=32, num_clips=12, seed=1))
    assert not np.array_equal(frames, other.load(other.items()[4])[0])
    assert not {i.labels["look"] for i in source.items()} & {i.labels["look"] for i in other.items()}


def test_poses_of_an_item_are_those_of_its_frames() -> None:
    source = PuppetsSource(None, SourceOptions(image_size=32))
    item = source.items()[17]
    frames, poses = render_clip_and_poses(**item.extra, num_frames=NUM_FRAMES, size=32)
    assert np.array_equal(source.poses(item), poses)
    assert np.array_equal(source.load(item)[0], frames)


def test_grey_is_the_luma_of_the_colours() -> None:
    colour, grey = (PuppetsSource(None, SourceOptions(image_size=32, channels=channels)) for channels in (3, 1))
    item = grey.items()[0]
    frames = grey.load(item)[0]
    assert frames.shape == (NUM_FRAMES, 32, 32, 1)
    luma = colour.load(item)[0] @ np.array([0.299, 0.587, 0.114])
    assert np.abs(frames[..., 0] - luma).max() < 1


@pytest.mark.parametrize("seed", [0, 1, 22_499, 10**9, -3])
def test_held_out_looks_are_in_no_set(seed: int) -> None:
    items = PuppetsSource(None, SourceOptions(seed=seed, num_clips=600)).items()
    assert not {item.extra["look_seed"] for item in items} & set(HELD_OUT_LOOK_SEEDS)
    assert not {item.extra["clip_seed"] for item in items} & set(HELD_OUT_LOOK_SEEDS)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave it out"):
        PuppetsSource(tmp_path, SourceOptions())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": "wlak"}, "did you mean 'walk'"),
        ({"look_seed": -1}, "look_seed is -1"),
        ({"clip_seed": -1}, "clip_seed is -1"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"size": 0}, "size is 0"),
    ],
)
def test_wrong_arguments_are_named(change: dict, message: str) -> None:
    arguments = {"look_seed": 0, "action": "walk", "clip_seed": 0, "num_frames": 2, "size": 16, **change}
    with pytest.raises(ConfigError, match=message):
        render_clip(**arguments)
