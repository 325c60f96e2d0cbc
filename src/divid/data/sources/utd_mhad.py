"""UTD-MHAD: 27 actions by 8 subjects, as depth `.mat` or colour `.avi` (Chen, Jafari, Kehtarnavaz, ICIP 2015)."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from divid.data.images import area_resize, to_channels, to_uint8
from divid.data.sources.base import Item, Recording, SourceOptions, open_recording, require_folder
from divid.decoding import natural_key
from divid.errors import InputError

ACTIONS = (
    "swipe left", "swipe right", "wave", "clap", "throw", "cross arms", "basketball shoot", "draw x", "draw circle clockwise",
    "draw circle counter-clockwise", "draw triangle", "bowling", "boxing", "baseball swing", "tennis forehand swing", "arm curl",
    "tennis serve", "push", "knock", "catch", "pick up and throw", "jog", "walk", "sit to stand", "stand to sit", "lunge",
    "squat",
)  # fmt: skip
"""Names of actions 1 to 27."""

DEPTH_FPS = 30.0
FULL_SCALE_MM = 1600.0
LEAST_GREY = 0.15
CROP_COLUMNS = slice(40, 280)
"""Columns of the 240x240 square that holds the person, in depth frames of 320x240."""

_NAME = re.compile(r"a(\d+)_s(\d+)_t(\d+)_(depth\.mat|color\.avi)", re.IGNORECASE)


def depth_to_brightness(depth: np.ndarray) -> np.ndarray:
    """Turn depth into brightness around the person's median depth over the clip, float32 in [0, 255].

    Nearer is brighter, 1.6 m span the full scale, the person keeps at least 15 % grey, the background (depth 0) is black.

    Args:
        depth: Millimetres, any shape; 0 is background.
    """
    person = depth > 0
    if not person.any():
        return np.zeros(depth.shape, dtype=np.float32)
    median = float(np.median(depth[person]))
    # A table over all depths is several times faster than arithmetic on every pixel.
    levels = np.arange(int(depth.max()) + 1, dtype=np.float32)
    table = np.clip(0.5 + (median - levels) / FULL_SCALE_MM, LEAST_GREY, 1.0) * 255
    table[0] = 0
    return table[depth]


class UtdMhadSource:
    """Recordings named `aA_sS_tT_depth.mat` or `aA_sS_tT_color.avi`, anywhere under the folder.

    The last trial of each subject and action is the test split. Colour keeps the middle square, which is where depth is
    cropped too.

    Args:
        folder: Holds the recordings of one stream.
        options: Size and channels.

    Raises:
        InputError: The folder is missing.
    """

    name = "utd_mhad"
    static_factors = ("subject",)
    dynamic_factors = ("action",)

    def __init__(self, folder: Path | None, options: SourceOptions) -> None:
        self.folder = require_folder(folder, self.name)
        self.options = options

    def items(self) -> list[Item]:
        """List the recordings, by action, subject and trial.

        Raises:
            InputError: There are none, or depth and colour lie side by side.
        """
        items, kinds = [], set()
        trials: dict[tuple[str, str], int] = defaultdict(int)
        for path in sorted(self.folder.rglob("a*_s*_t*_*"), key=lambda path: natural_key(str(path))):
            match = _NAME.fullmatch(path.name)
            if match is None or not 1 <= int(match[1]) <= len(ACTIONS):
                continue
            kinds.add(match[4].lower())
            labels = {"subject": f"s{int(match[2])}", "action": ACTIONS[int(match[1]) - 1]}
            items.append(Item(id=path.stem, paths=(path,), labels=labels, trial=int(match[3])))
            pair = (labels["subject"], labels["action"])
            trials[pair] = max(trials[pair], int(match[3]))
        if not items:
            raise InputError(
                f"{self.folder} holds no aA_sS_tT_depth.mat or aA_sS_tT_color.avi file: give UTD-MHAD's folder with --source"
            )
        if len(kinds) > 1:
            raise InputError(f"{self.folder} holds both depth and colour recordings: give the folder of one with --source")
        return [
            replace(item, split="test" if item.trial == trials[item.labels["subject"], item.labels["action"]] else "train")
            for item in items
        ]

    def load(self, item: Item) -> tuple[np.ndarray, float]:
        """Read one recording; see `Source.load`."""
        recording = self.stream(item)
        return np.concatenate(list(recording.chunks)), recording.fps

    def stream(self, item: Item) -> Recording:
        """Open one recording."""
        path = item.paths[0]
        if path.suffix.lower() == ".mat":
            return Recording(iter([self._read_depth(path)]), DEPTH_FPS)
        return open_recording(path, self.options)

    def _read_depth(self, path: Path) -> np.ndarray:
        from scipy.io import loadmat

        try:
            depth = loadmat(path, variable_names=["d_depth"])["d_depth"]
        except KeyError:
            raise InputError(f"{path} has no variable d_depth: it is not a UTD-MHAD depth recording") from None
        except Exception as error:  # loadmat lets zlib, struct and its own errors through
            raise InputError(f"{path} is not a readable MATLAB file ({error}): fetch it again") from error
        if depth.ndim != 3 or depth.shape[:2] != (240, 320) or not np.issubdtype(depth.dtype, np.integer):
            raise InputError(f"{path}: d_depth is {depth.dtype} {depth.shape}, expected integers of shape (240, 320, frames)")
        if depth.shape[2] == 0 or depth.min() < 0 or depth.max() > 0xFFFF:
            raise InputError(f"{path}: d_depth has no frames, or depths outside 0 to 65535 mm")
        frame_by_frame = np.ascontiguousarray(depth[:, CROP_COLUMNS].transpose(2, 0, 1))
        frames = area_resize(depth_to_brightness(frame_by_frame)[..., None], self.options.image_size)
        return to_channels(to_uint8(frames), self.options.channels)
