"""Puppets: our own films, made on the fly, with exact labels and poses. The set that needs no download."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from divid.data.images import to_channels
from divid.data.puppets import ACTIONS, FPS, JOINT_NAMES, Motion, Scenery, make_look, make_motion, render
from divid.data.sources.base import Item, SourceOptions
from divid.errors import ConfigError, InputError, nearest

__all__ = ["ACTIONS", "FPS", "HELD_OUT_LOOK_SEEDS", "JOINT_NAMES", "PuppetsSource", "render_clip", "render_clip_and_poses"]

NUM_CLIPS = 480
NUM_LOOKS = 40
NUM_FRAMES = 24
"""Frames of a prepared clip: two seconds, in which every action comes to its height at least once."""

HELD_OUT_LOOK_SEEDS = range(900_000, 1_000_000)
"""Looks that no prepared set contains, whatever its seed: for showing what a model does with somebody it never saw."""

_TEST_SHARE = 4
"""One clip in so many repeats a look and action, and is held out."""

_ACTION_STEP = 7
"""Successive actions of one look lie so far apart in `ACTIONS`, so related ones do not go together where cells are missing."""


def render_clip(
    look_seed: int, action: str, clip_seed: int, *, num_frames: int, size: int, scenery: Scenery = "full"
) -> NDArray[np.uint8]:
    """Draw one clip: uint8 RGB frames (F, H, W, C), meant to be shown at `FPS` frames a second.

    Args:
        look_seed: Who: figure, clothes and place. `HELD_OUT_LOOK_SEEDS` are never in a prepared set.
        action: One of `ACTIONS`.
        clip_seed: Which performance of the action: phase, tempo, amplitude and place.
        num_frames: Length of the clip.
        size: Height and width in pixels.
        scenery: `full`, or `plain`: one colour behind the figure.

    Raises:
        ConfigError: There is no such action, a seed is negative, or a length is less than 1.
    """
    return render_clip_and_poses(look_seed, action, clip_seed, num_frames=num_frames, size=size, scenery=scenery)[0]


def render_clip_and_poses(
    look_seed: int, action: str, clip_seed: int, *, num_frames: int, size: int, scenery: Scenery = "full"
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw one clip as `render_clip` does, and give its pose with it.

    Returns:
        The frames, and the joints' x and y in sides of the picture, from its upper left corner: float32 by (frame, joint, axis),
        joints as in `JOINT_NAMES`.
    """
    if size < 1:
        raise ConfigError(f"size is {size}, must be at least 1 pixel")
    look, motion = make_look(_checked_seed("look_seed", look_seed)), _perform(look_seed, action, clip_seed, num_frames)
    return render(look, motion, size, scenery), _joints(motion)


class PuppetsSource:
    """Generated clips; static factor `look`, dynamic factor `action`.

    Up to 40 looks, fewer in a small set, so that each does several actions. Three quarters of the clips show different pairs of
    look and action (all pairs there are, in a large set); the rest repeat them, and the last trial of a repeated pair is the test
    split.

    Args:
        folder: None: nothing is read.
        options: Size, channels, seed (other looks and other clips), and how many clips.

    Raises:
        InputError: A folder is given.
    """

    name = "puppets"
    static_factors = ("look",)
    dynamic_factors = ("action",)

    def __init__(self, folder: Path | None, options: SourceOptions) -> None:
        if folder is not None:
            raise InputError(f"puppets are generated and read no files, got --source {folder}: leave it out")
        self.options = options

    def items(self) -> list[Item]:
        """List the clips, trial by trial."""
        num_clips = NUM_CLIPS if self.options.num_clips is None else self.options.num_clips
        num_pairs = num_clips - num_clips // _TEST_SHARE
        num_looks = min(self.options.num_looks or NUM_LOOKS, num_pairs, max(2, num_pairs // _TEST_SHARE))
        pairs = [
            (look, ACTIONS[(look + _ACTION_STEP * turn) % len(ACTIONS)])
            for turn in range(len(ACTIONS))
            for look in range(num_looks)
        ][:num_pairs]
        clips = [(*pairs[number % len(pairs)], 1 + number // len(pairs)) for number in range(num_clips)]
        num_trials = Counter((look, action) for look, action, _ in clips)
        return [self._item(look, action, trial, num_trials[look, action]) for look, action, trial in clips]

    def load(self, item: Item) -> tuple[NDArray[np.uint8], float]:
        """Draw one clip; see `Source.load`."""
        size, scenery = self.options.image_size, self.options.scenery
        frames = render_clip(**item.extra, num_frames=NUM_FRAMES, size=size, scenery=scenery)
        return to_channels(frames, self.options.channels), FPS

    def poses(self, item: Item) -> NDArray[np.float32]:
        """Give the exact joints of a clip as `render_clip_and_poses` does, without drawing it.

        Args:
            item: One of `items`.
        """
        return _joints(_perform(**item.extra, num_frames=NUM_FRAMES))

    def _item(self, look: int, action: str, trial: int, num_trials: int) -> Item:
        # Sets of other seeds have other looks under other names, so several of them can be used together.
        look_seed = (self.options.seed * NUM_LOOKS + look) % HELD_OUT_LOOK_SEEDS.start
        return Item(
            id=f"look_{look_seed:03d}_{action}_t{trial}",
            paths=(),
            labels={"look": f"look_{look_seed:03d}", "action": action},
            split="test" if trial == num_trials > 1 else "train",
            trial=trial,
            extra={"look_seed": look_seed, "action": action, "clip_seed": _clip_seed(self.options.seed, look_seed, trial)},
        )


def _clip_seed(seed: int, look_seed: int, trial: int) -> int:
    digest = hashlib.blake2b(f"puppets/{seed}/{look_seed}/{trial}".encode(), digest_size=4).digest()
    return 1_000_000 + int.from_bytes(digest, "big")


def _perform(look_seed: int, action: str, clip_seed: int, num_frames: int) -> Motion:
    if action not in ACTIONS:
        raise ConfigError(f"unknown action {action!r}{nearest(action, ACTIONS)}")
    if num_frames < 1:
        raise ConfigError(f"num_frames is {num_frames}, must be at least 1")
    body = make_look(_checked_seed("look_seed", look_seed)).body
    return make_motion(body, action, _checked_seed("clip_seed", clip_seed), num_frames)


def _checked_seed(name: str, seed: int) -> int:
    if seed < 0:
        raise ConfigError(f"{name} is {seed}, must be 0 or more")
    return seed


def _joints(motion: Motion) -> NDArray[np.float32]:
    return motion.joints[..., :2].astype(np.float32)
