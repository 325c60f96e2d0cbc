"""The swap test's sampled variants: one token from a clip, the other from a prior; and the classic numbers of both.

static kept     decode(s(A), d ~ prior): is it still A?             (its motion is anyone's)
dynamic kept    decode(s ~ prior, d(A)): does it still do as A?     (the accuracy that the literature reports)
both sampled    decode(s ~ prior, d ~ prior): no answer is right, but it should be of some class
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from divid.arrays import video_to_frames
from divid.config import SamplingConfig, to_dict
from divid.data.clips import ClipDataset
from divid.data.module import middle_video
from divid.data.schema import KINDS
from divid.errors import DatasetError
from divid.evaluation.codes import BATCH_CLIPS, Told, decode_clips, device_of, encode_clips, video_shape
from divid.evaluation.inception import ClassScores
from divid.evaluation.intervals import ClipBootstrap, Rate
from divid.evaluation.judge import Answers, Judge, all_right, class_numbers
from divid.evaluation.prior import CodePrior
from divid.evaluation.swap import chance_levels, describe_judge, judge_notes
from divid.evaluation.swap_result import plain
from divid.randomness import derive_seed, make_generator
from divid.types import Codes, Disentangler
from divid.video import contact_sheet

Probabilities = dict[str, torch.Tensor]
"""p(y|x) by factor, one row a clip."""

NUM_SHOWN = 4
"""Clips on the sheet."""


@dataclass(frozen=True)
class SampledRow:
    """What the judge says of one kind of clips.

    Args:
        static: Share whose static factors are all judged to be those of the clip that one token comes from; None where none does.
        dynamic: The same of the dynamic factors.
        scores: The classic numbers by factor.
    """

    static: Rate | None
    dynamic: Rate | None
    scores: Mapping[str, ClassScores]


@dataclass(frozen=True)
class SampledResult:
    """Everything that the sampled variants measured.

    Args:
        method: Name of the method.
        data: Names of the data sets.
        num_clips: Held-out clips that a token was taken of.
        num_frames: F.
        seed: Of samples and prior draws.
        sampling: Solver and steps.
        judge: Architecture, data set and accuracy of the judge, and whether it is trusted.
        prior: What the prior is and what it was fitted to.
        rows: By name: `static kept`, `dynamic kept`, `both sampled`, and the controls `real` and `reconstruction`.
        chance: Shares of right answers by guessing.
        factors: Kind of every factor.
        notes: What a reader has to know: that the prior is no part of the method, for one.
    """

    method: str
    data: tuple[str, ...]
    num_clips: int
    num_frames: int
    seed: int
    sampling: Mapping[str, Any]
    judge: Mapping[str, Any]
    prior: Mapping[str, Any]
    rows: Mapping[str, SampledRow]
    chance: Mapping[str, float]
    factors: Mapping[str, str]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return plain(vars(self))

    def lines(self) -> list[str]:
        """Give accuracies, then the classic numbers factor by factor, as lines of text, and the notes."""
        width = max(map(len, self.rows))
        lines = [f"{name:<{width}}  {_accuracies(row)}  N {self.num_clips}" for name, row in self.rows.items()]
        static, dynamic = (100 * self.chance[kind] for kind in KINDS)
        lines.append(f"{'chance':<{width}}  static {static:5.1f} {'':14}  dynamic {dynamic:5.1f}")
        for factor, kind in self.factors.items():
            classes = self.rows["real"].scores[factor].num_classes
            lines.append(f"{factor} ({kind}, {classes} classes): inception score, H(y|x) and H(y) in nats")
            for name, row in self.rows.items():
                scores = row.scores[factor]
                lines.append(
                    f"{name:<{width}}  IS {scores.inception_score:7.3f}  H(y|x) {scores.conditional_entropy:6.3f}  "
                    f"H(y) {scores.marginal_entropy:6.3f}"
                )
        return [*lines, *self.notes]


def measure_sampled(
    model: Disentangler,
    judge: Judge,
    prior: CodePrior,
    clips: ClipDataset,
    *,
    num_frames: int,
    sampling: SamplingConfig,
    seed: int = 0,
    method: str | None = None,
    told: Told | None = None,
) -> SampledResult:
    """Keep one token of every held-out clip, draw the other from the prior, and ask the judge.

    Args:
        model: On its device, in evaluation mode.
        judge: For clips of this data, size and number of frames.
        prior: Fitted to codes of training clips by this model.
        clips: Held-out clips, at the model's size; those that lack a label are left out.
        num_frames: F, as in training, the model's and the judge's.
        sampling: Solver and steps.
        seed: Clip i is sampled with seed + i, and its tokens are drawn with numbers that follow from that.
        method: Its name, for the result and for messages; default: the name of the model's class.
        told: Hears of the progress.

    Raises:
        DatasetError: No clip has all its labels.
        ModelError: The judge does not fit the clips, or the method gives clips of another shape or values that are not numbers.
    """
    judge.check_fits(clips.info, num_frames)
    used, truth = labelled_clips(judge, clips)
    name = method or type(model).__name__
    codes = encode_clips(model, clips, used, num_frames=num_frames, told=told, stage="encoding for samples")
    static, dynamic = draw_codes(prior, len(used), num_frames, seed)
    given = {
        "static kept": Codes(codes.static, dynamic),
        "dynamic kept": Codes(static, codes.dynamic),
        "both sampled": Codes(static, dynamic),
        "reconstruction": codes,
    }
    judged = {"real": _judge_real(judge, clips, used, device_of(model))}
    for what, part in given.items():
        videos = decode_clips(
            model, part, sampling=sampling, shape=judge.config.video_shape, seed=seed, method=name, what=what, told=told
        )
        judged[what] = _join([judge.probabilities(video) for video in videos])
    order = ("static kept", "dynamic kept", "both sampled", "real", "reconstruction")
    bootstrap = ClipBootstrap(np.arange(len(used))[:, None], seed=seed)
    return SampledResult(
        method=name,
        data=tuple(Path(folder).name for folder in clips.info.names),
        num_clips=len(used),
        num_frames=num_frames,
        seed=seed,
        sampling=to_dict(sampling),
        judge=describe_judge(judge),
        prior=dict(prior.facts),
        rows={what: _row(judge, judged[what], truth, bootstrap, has_truth=what != "both sampled") for what in order},
        chance=chance_levels(judge),
        factors={factor: kind for kind in KINDS for factor in judge.config.factors[kind]},
        notes=(*judge_notes(judge), prior.to_text()),
    )


def labelled_clips(judge: Judge, clips: ClipDataset) -> tuple[list[int], Answers]:
    """Give the clips that have all their labels, and their class numbers.

    Args:
        judge: Knows the classes.
        clips: Held-out clips.

    Raises:
        DatasetError: There are none.
    """
    labels = class_numbers(clips, judge.config.classes)
    used = np.flatnonzero(np.logical_and.reduce([numbers >= 0 for numbers in labels.values()])).tolist()
    if not used:
        raise DatasetError(f"none of the {len(clips)} clips has all its labels, so no sample can be judged: label them")
    return used, {name: numbers[used] for name, numbers in labels.items()}


def draw_codes(prior: CodePrior, num_clips: int, num_frames: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw static and dynamic tokens for some clips; those of clip i depend on seed + i alone.

    Args:
        prior: What to draw from.
        num_clips: How many.
        num_frames: F.
        seed: As above.
    """
    seeds = [derive_seed(seed + number, "codes of a sampled clip") for number in range(num_clips)]
    return prior.sample_static(seeds), prior.sample_dynamic(seeds, num_frames)


def sampled_sheet(
    model: Disentangler,
    prior: CodePrior,
    clips: ClipDataset,
    *,
    num_frames: int,
    sampling: SamplingConfig,
    seed: int = 0,
    title: str | None = None,
) -> Image:
    """Draw three rows for each of a few random clips: the clip, its look with sampled motion, its motion with a sampled look.

    Args:
        model: On its device, in evaluation mode.
        prior: Fitted to codes by this model.
        clips: Held-out clips.
        num_frames: F.
        sampling: Solver and steps.
        seed: Of the clips, the tokens and the samples.
        title: Heading.

    Raises:
        ModelError: The method gives values that are not numbers.
    """
    generator = make_generator(seed, "clips of the sheet of samples")
    chosen = torch.randperm(len(clips), generator=generator)[:NUM_SHOWN].tolist()
    codes = encode_clips(model, clips, chosen, num_frames=num_frames)
    static, dynamic = draw_codes(prior, len(chosen), num_frames, seed)
    name, shape = type(model).__name__, video_shape(clips, num_frames)
    made = [
        torch.cat([*decode_clips(model, part, sampling=sampling, shape=shape, seed=seed, method=name, what="sample")])
        for part in (Codes(codes.static, dynamic), Codes(static, codes.dynamic))
    ]
    shown = map(video_to_frames, (middle_video(clips, chosen, num_frames), *made))
    rows = []
    for index, real, moved, looked in zip(chosen, *shown, strict=True):
        rows += [(f"A  {clips.clip_id(index)}", real), ("A's look, sampled motion", moved), ("sampled look, A's motion", looked)]
    return contact_sheet(rows, max_columns=num_frames, cell=64, title=title)


def _judge_real(judge: Judge, clips: ClipDataset, used: list[int], device: torch.device) -> Probabilities:
    starts = range(0, len(used), BATCH_CLIPS)
    videos = (middle_video(clips, used[start : start + BATCH_CLIPS], judge.config.num_frames) for start in starts)
    return _join([judge.probabilities(video.to(device)) for video in videos])


def _join(parts: list[Probabilities]) -> Probabilities:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _row(judge: Judge, judged: Probabilities, truth: Answers, bootstrap: ClipBootstrap, *, has_truth: bool) -> SampledRow:
    scores = {name: ClassScores.of(p) for name, p in judged.items()}
    if not has_truth:
        return SampledRow(None, None, scores)
    answers = {name: p.argmax(1).numpy() for name, p in judged.items()}
    static, dynamic = (bootstrap.rate(all_right(answers, truth, judge.config.factors[kind])) for kind in KINDS)
    return SampledRow(static, dynamic, scores)


def _accuracies(row: SampledRow) -> str:
    cells = []
    for kind in KINDS:
        rate: Rate | None = getattr(row, kind)
        if rate is None:
            cells.append(f"{kind} {'-':>5} {'':14}")
        else:
            low, high = rate.interval
            cells.append(f"{kind} {100 * rate.rate:5.1f} [{100 * low:5.1f}, {100 * high:5.1f}]")
    return "  ".join(cells)
