"""Clips whose labels can be read off the pixels, judges that know them, and methods whose swaps have a known outcome."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from divid.arrays import frames_to_video
from divid.data.clips import ClipDataset
from divid.evaluation.judge import Judge, JudgeConfig
from divid.types import Codes
from made_data import make_set

SIZE, NUM_FRAMES = 16, 5
SUBJECTS, ACTIONS = ("anna", "ben", "cleo"), ("stay", "fall", "rise")


def draw(subject: int, action: int, trial: int = 0) -> np.ndarray:
    """Left half: a level that is the subject's. Right half: a bar that stays, falls or rises."""
    frames = np.zeros((NUM_FRAMES, SIZE, SIZE, 1), dtype=np.uint8)
    frames[:, :, : SIZE // 2] = 40 + 80 * subject + trial
    for f in range(NUM_FRAMES):
        top = (6, 2 + 2 * f, 10 - 2 * f)[action]
        frames[f, top : top + 3, SIZE // 2 :] = 250 - trial
    return frames


def write_clips(folder: Path, *, num_trials: int = 4, subjects=range(3), actions=range(3), unlabelled=(), absent=()) -> Path:
    """Write image folders with labels.csv; the last trial is held out, and `absent` (subject, action) are never trained on."""
    lines = ["file,static.subject,dynamic.action,split"]
    for s in subjects:
        for a in actions:
            for t in range(num_trials):
                name, split = f"{SUBJECTS[s]}_{ACTIONS[a]}_{t}", "test" if t == num_trials - 1 else "train"
                if (s, a) in absent and split == "train":
                    continue
                (folder / name).mkdir(parents=True)
                for f, frame in enumerate(draw(s, a, t)):
                    Image.fromarray(frame[..., 0]).save(folder / name / f"{f}.png")
                labels = "," if name in unlabelled else f"{SUBJECTS[s]},{ACTIONS[a]}"
                lines.append(f"{name},{labels},{split}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def prepare_clips(folder: Path, out: Path, **options) -> Path:
    """Write clips into `folder` and prepare them as the data set `out`."""
    write_clips(folder, **options)
    make_set(folder, out, "folder", labels_csv=folder / "labels.csv")
    return out


def judge_config(clips: ClipDataset, **changes) -> JudgeConfig:
    info = clips.info
    factors = {kind: {name: info.classes[name] for name in info.factors[kind]} for kind in ("static", "dynamic")}
    values = {"data": "made", "factors": factors, "image_size": SIZE, "channels": 1, "num_frames": NUM_FRAMES}
    return JudgeConfig(**{**values, **changes})


def read_subject(video: torch.Tensor) -> torch.Tensor:
    level = (video[..., : SIZE // 2].mean((1, 2, 3, 4)) + 1) * 127.5
    return ((level - 40) / 80).round().clamp(0, 2).long()


def read_action(video: torch.Tensor) -> torch.Tensor:
    light = video[..., SIZE // 2 :].sum((2, 4)) + SIZE // 2  # batch, frames, rows
    centre = (light * torch.arange(SIZE)).sum(2) / light.sum(2).clamp_min(1e-6)
    moved = centre[:, -1] - centre[:, 0]
    return torch.where(moved > 1, 1, torch.where(moved < -1, 2, 0))


class SureJudge(Judge):
    """Has no doubt of what it predicts."""

    def probabilities(self, video):
        sizes = {name: len(classes) for name, classes in self.config.classes.items()}
        return {name: functional.one_hot(numbers, sizes[name]).double() for name, numbers in self.predict(video).items()}


class KnowingJudge(SureJudge):
    """Never wrong on `draw`."""

    def predict(self, video):
        known = {"subject": (SUBJECTS, read_subject(video)), "action": (ACTIONS, read_action(video))}
        return {
            name: torch.tensor([classes.index(known[name][0][k]) for k in known[name][1].tolist()])
            for name, classes in self.config.classes.items()
        }


class GuessingJudge(SureJudge):
    """Takes any class as likely as any other."""

    def predict(self, video):
        if not hasattr(self, "draws"):
            self.draws = torch.Generator().manual_seed(1)
        return {
            name: torch.randint(len(classes), (len(video),), generator=self.draws)
            for name, classes in self.config.classes.items()
        }


class Method(torch.nn.Module):
    """A method whose codes are the clip itself, twice; what it decodes to is `choose`."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen_seeds = []

    def frame_features(self, video):
        return video.flatten(2)

    def codes_from_features(self, features, reference=None):
        return Codes(features.flatten(1), features)

    def encode(self, video):
        return self.codes_from_features(self.frame_features(video))

    def decode(self, codes, *, seeds, sampling=None, first_frame=0, callback=None):
        self.seen_seeds += list(seeds)
        return self.choose(codes).view(len(seeds), NUM_FRAMES, 1, SIZE, SIZE)

    def losses(self, video, randomness):
        return {"total": self.weight.sum()}


class CopyA(Method):
    def choose(self, codes):
        return codes.static


class CopyB(Method):
    def choose(self, codes):
        return codes.dynamic


class Broken(Method):
    """Not a number in the third clip of a batch."""

    def choose(self, codes):
        video = codes.static.clone()
        video[2, 7] = torch.nan
        return video


class LabelCodes(Method):
    """Codes that hold exactly the label: the subject's number, and the action's in every frame."""

    def encode(self, video):
        action = read_action(video)[:, None, None].expand(-1, NUM_FRAMES, 1)
        return Codes(read_subject(video)[:, None].float(), action.float())

    def choose(self, codes):
        labels = torch.stack([codes.static[:, 0], codes.dynamic[:, 0, 0]], dim=1).round().clamp(0, 2).int().tolist()
        frames = [draw(s, a) for s, a in labels]
        return frames_to_video(np.stack(frames))
