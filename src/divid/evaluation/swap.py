"""The swap test: A's appearance doing B's motion, judged over many pairs, beside controls whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from PIL.Image import Image
from torch import Tensor

from divid.arrays import video_to_frames
from divid.config import SamplingConfig, to_dict
from divid.data.clips import ClipDataset
from divid.data.module import middle_video
from divid.data.schema import KINDS
from divid.errors import DatasetError
from divid.evaluation.codes import BATCH_CLIPS, Told, check_clips, device_of
from divid.evaluation.intervals import ClipBootstrap
from divid.evaluation.judge import TRUSTED_ACCURACY, Answers, Judge, all_right, class_numbers, confusion
from divid.evaluation.pairs import PairList
from divid.evaluation.swap_result import FactorResult, Failure, Row, SwapResult
from divid.randomness import make_generator
from divid.types import Codes, Disentangler, Video
from divid.video import contact_sheet

Pair = tuple[int, int]
SheetSources = Literal["recordings", "reconstructions"]
"""(A, whose appearance is taken; B, whose motion is)."""

NUM_FAILURES = 12
"""Failed swaps that are kept to be looked at: the first ones, and the pairs stand in random order."""


def draw_pairs(clips: ClipDataset, num_pairs: int, seed: int = 0) -> list[Pair]:
    """Draw ordered pairs of clips that differ in every factor in which both are labelled, without repetition.

    Args:
        clips: Clips to draw from; without labels any two differ.
        num_pairs: How many; all there are, if fewer.
        seed: The same seed gives the same pairs.

    Raises:
        DatasetError: No two clips differ in every factor.
    """
    labels = [clips.labels(index) for index in range(len(clips))]
    order = torch.randperm(len(clips) ** 2, generator=make_generator(seed, "swap pairs")).tolist()
    pairs: list[Pair] = []
    for number in order:
        a, b = divmod(number, len(clips))
        if a != b and _differ(labels[a], labels[b]):
            pairs.append((a, b))
        if len(pairs) == num_pairs:
            break
    if not pairs:
        raise DatasetError(f"no two of the {len(clips)} clips differ in every factor, so none can be swapped: prepare more clips")
    return pairs


@torch.no_grad()
def swap_sheet(
    model: Disentangler,
    clips: ClipDataset,
    pairs: Sequence[Pair],
    *,
    num_frames: int,
    sampling: SamplingConfig,
    seed: int = 0,
    title: str | None = None,
    sources: SheetSources = "recordings",
) -> Image:
    """Draw three rows a pair: A, B, and A's appearance doing B's motion.

    Args:
        model: On its device, in evaluation mode.
        clips: What the pairs number.
        pairs: From `draw_pairs`.
        num_frames: F.
        sampling: Solver and steps.
        seed: Pair i is sampled with seed + i.
        title: Heading.
        sources: `recordings` shows A and B themselves, `reconstructions` what the model makes of them, for clips that may not be
            passed on.
    """
    device, seeds = device_of(model), [seed + i for i in range(len(pairs))]
    looks = middle_video(clips, [a for a, _ in pairs], num_frames)
    moves = middle_video(clips, [b for _, b in pairs], num_frames)
    look_codes, move_codes = model.encode(looks.to(device)), model.encode(moves.to(device))
    swaps = model.decode(look_codes.with_motion_of(move_codes), seeds=seeds, sampling=sampling)
    if sources == "reconstructions":
        looks, moves = (model.decode(codes, seeds=seeds, sampling=sampling) for codes in (look_codes, move_codes))
    made = ", reconstructed" if sources == "reconstructions" else ""
    rows: list[tuple[str, np.ndarray]] = []
    for (a, b), look, move, swap in zip(pairs, *map(video_to_frames, (looks, moves, swaps)), strict=True):
        labels = f"A  {_describe(clips, a)}{made}", f"B  {_describe(clips, b)}{made}", "A's look, B's motion"
        rows += zip(labels, (look, move, swap), strict=True)
    return contact_sheet(rows, max_columns=num_frames, cell=64, title=title)


@torch.no_grad()
def measure_swaps(
    model: Disentangler,
    judge: Judge,
    clips: ClipDataset,
    pairs: PairList,
    *,
    num_frames: int,
    sampling: SamplingConfig,
    seed: int = 0,
    method: str | None = None,
    train_clips: ClipDataset | None = None,
    reverse: bool = False,
    told: Told | None = None,
) -> SwapResult:
    """Swap every pair, x = decode(s(A), d(B)), and ask the judge who it is and what is done.

    Args:
        model: On its device, in evaluation mode.
        judge: For clips of this data, size and number of frames.
        clips: Held-out clips, at the model's size.
        pairs: Drawn from these clips.
        num_frames: F, as in training, the model's and the judge's.
        sampling: Solver and steps.
        seed: Pair i is sampled with seed + i, and clip i, where it is reconstructed, likewise.
        method: Its name, for the result and for messages; default: the name of the model's class.
        train_clips: What the model was trained on; then the pairs whose combination of labels is new to it are reported apart.
        reverse: Also swap every pair the other way round, x = decode(s(B), d(A)), as a row of its own: there A gives the motion.
        told: Hears of the progress.

    Returns:
        Accuracies with intervals, controls, classes and failures.

    Raises:
        DatasetError: The pairs name clips that are not there, or that lack a label.
        ModelError: The judge does not fit the clips, or the method gives clips of another shape or values that are not numbers.

    Source:
        Paper section 4.2.2. Differs: more pairs, intervals, and controls.
    """
    judge.check_fits(clips.info, num_frames)
    used, places = np.unique(pairs.numbers(clips), return_inverse=True)
    places = places.reshape(-1, 2)
    truth = class_numbers(clips, judge.config.classes, used.tolist())
    for name, numbers in truth.items():
        if (numbers < 0).any():
            clip = clips.clip_id(int(used[np.argmin(numbers)]))
            raise DatasetError(f"the pair list names the clip {clip!r}, which has no label of {name!r}: draw a new list")
    study = _Study(model, judge, clips, used.tolist(), sampling, seed, method or type(model).__name__, told)
    real, again, codes = study.reconstruct()
    swapped, failures = study.swap(codes, places, truth)
    wanted = _wanted(truth, places, judge)
    by_clip, by_pair = ClipBootstrap(np.arange(len(used))[:, None], seed=seed), ClipBootstrap(places, seed=seed)
    rows = {
        "swap": _pair_row(judge, swapped, truth, places, by_pair),
        "real": _clip_row(judge, real, truth, by_clip),
        "reconstruction": _clip_row(judge, again, truth, by_clip),
        "copy A": _pair_row(judge, _take(real, places[:, 0]), truth, places, by_pair),
        "copy B": _pair_row(judge, _take(real, places[:, 1]), truth, places, by_pair),
    }
    if reverse:
        back, _ = study.swap(codes, places[:, ::-1], truth, "reversed swap")
        rows["swap, reversed"] = _pair_row(judge, back, truth, places[:, ::-1], by_pair)
    if train_clips is not None:
        is_new = _is_new(train_clips, judge, wanted)
        if is_new.any():
            some, few = places[is_new], {name: numbers[is_new] for name, numbers in swapped.items()}
            rows["swap, unseen combinations"] = _pair_row(judge, few, truth, some, ClipBootstrap(some, seed=seed))
    return SwapResult(
        method=study.method,
        data=tuple(pairs.data),
        num_pairs=len(pairs),
        num_asked=pairs.num_asked,
        num_frames=num_frames,
        pairs_seed=pairs.seed,
        seed=seed,
        sampling=to_dict(sampling),
        judge=describe_judge(judge),
        rows=rows,
        chance=chance_levels(judge),
        factors=_factor_results(judge, swapped, truth, places, by_pair),
        notes=_notes(judge, pairs),
        failures=failures,
        outcomes={kind: _outcomes(judge, swapped, wanted, kind) for kind in KINDS},
    )


def chance_levels(judge: Judge) -> dict[str, float]:
    """Give the shares of right answers by guessing each factor evenly among its classes.

    Args:
        judge: Knows the classes.
    """
    static, dynamic = (1 / float(np.prod([len(names) for names in judge.config.factors[kind].values()])) for kind in KINDS)
    return {"static": static, "dynamic": dynamic, "joint": static * dynamic}


def describe_judge(judge: Judge) -> dict[str, Any]:
    """Give what every result says of its judge.

    Args:
        judge: The one that was asked.
    """
    shares = ("static", "dynamic", "joint")
    held_out = None if judge.held_out is None else {name: getattr(judge.held_out, name) for name in shares}
    return {
        "architecture": judge.config.architecture,
        "data": judge.config.data,
        "is_trusted": judge.is_trusted,
        "held_out": held_out,
    }


def judge_notes(judge: Judge) -> list[str]:
    """Give the warning that every result of a judge below its threshold carries; nothing for one above.

    Args:
        judge: The one that was asked.
    """
    if judge.is_trusted:
        return []
    accuracy = "unknown" if judge.held_out is None else f"{100 * judge.held_out.joint.rate:.1f} %"
    least = f"{100 * TRUSTED_ACCURACY:.0f} %"
    return [f"The judge is not to be trusted: its joint accuracy on held-out real clips is {accuracy}, under {least}."]


def failure_sheet(result: SwapResult, clips: ClipDataset, *, title: str | None = None) -> Image | None:
    """Draw three rows a failed swap: A, B, and what was made, with what the judge took it for.

    Args:
        result: From `measure_swaps`.
        clips: The same clips.
        title: Heading.

    Returns:
        The picture, or None where nothing failed.
    """
    places = {clips.clip_id(index): index for index in range(len(clips))}
    rows = []
    for failure in result.failures:
        a, b = places[failure.appearance], places[failure.motion]
        look, move = video_to_frames(middle_video(clips, [a, b], result.num_frames))
        judged = ", ".join(failure.judged.values())
        rows += [(f"A  {_describe(clips, a)}", look), (f"B  {_describe(clips, b)}", move), (f"judged  {judged}", failure.frames)]
    return contact_sheet(rows, max_columns=result.num_frames, cell=64, title=title) if rows else None


@dataclass
class _Study:
    """One method on the clips of a pair list, in batches."""

    model: Disentangler
    judge: Judge
    clips: ClipDataset
    used: list[int]
    sampling: SamplingConfig
    seed: int
    method: str
    told: Told | None

    def reconstruct(self) -> tuple[Answers, Answers, Codes]:
        """Give the answers on the real clips and on their reconstructions, and the codes, on the CPU."""
        real, again, static, dynamic = [], [], [], []
        device = device_of(self.model)
        for start in range(0, len(self.used), BATCH_CLIPS):
            video = middle_video(self.clips, self.used[start : start + BATCH_CLIPS], self.judge.config.num_frames).to(device)
            codes = self.model.encode(video)
            real.append(self.judge.answers(video))
            again.append(self.judge.answers(self._decode(codes, start, "reconstruction")))
            static.append(codes.static.cpu())
            dynamic.append(codes.dynamic.cpu())
            self._tell("reconstructing", start + len(video), len(self.used))
        return _join(real), _join(again), Codes(torch.cat(static), torch.cat(dynamic))

    def swap(
        self, codes: Codes, places: Int[np.ndarray, "pairs 2"], truth: Answers, what: str = "swap"
    ) -> tuple[Answers, tuple[Failure, ...]]:
        """Give the answers on the swaps, and the first failures."""
        answers: list[Answers] = []
        failures: list[Failure] = []
        device = device_of(self.model)
        for start in range(0, len(places), BATCH_CLIPS):
            a, b = places[start : start + BATCH_CLIPS].T
            video = self._decode(Codes(codes.static[a], codes.dynamic[b]).to(device), start, what)
            part = self.judge.answers(video)
            answers.append(part)
            wanted = _wanted(truth, places[start : start + BATCH_CLIPS], self.judge)
            for number in np.flatnonzero(~all_right(part, wanted, list(wanted))).tolist():
                if len(failures) < NUM_FAILURES:
                    failures.append(self._failure(int(a[number]), int(b[number]), part, number, video))
            self._tell(f"{what}s", start + len(a), len(places))
        return _join(answers), tuple(failures)

    def _decode(self, codes: Codes, start: int, what: str) -> Video:
        seeds = [self.seed + start + number for number in range(len(codes.static))]
        video: Tensor = self.model.decode(codes, seeds=seeds, sampling=self.sampling)
        check_clips(video, (len(seeds), *self.judge.config.video_shape), self.method, what, start)
        return video

    def _failure(self, a: int, b: int, answers: Answers, number: int, video: Video) -> Failure:
        names = [self.clips.clip_id(self.used[place]) for place in (a, b)]
        judged = {name: classes[answers[name][number]] for name, classes in self.judge.config.classes.items()}
        return Failure(names[0], names[1], judged, video_to_frames(video[number : number + 1])[0])

    def _tell(self, stage: str, done: int, total: int) -> None:
        if self.told:
            self.told(stage, done, total)


def _wanted(truth: Answers, places: np.ndarray, judge: Judge) -> Answers:
    """Give the classes that the swaps of some pairs should have: A's of the static factors, B's of the dynamic ones."""
    return {name: truth[name][places[:, side]] for side, kind in enumerate(KINDS) for name in judge.config.factors[kind]}


def _outcomes(judge: Judge, answers: Answers, wanted: Answers, kind: str) -> str:
    return "".join("01"[right] for right in all_right(answers, wanted, list(judge.config.factors[kind])).astype(int))


def _pair_row(judge: Judge, answers: Answers, truth: Answers, places: np.ndarray, bootstrap: ClipBootstrap) -> Row:
    of_a, of_b = (_take(truth, places[:, side]) for side in (0, 1))
    static, dynamic = judge.config.factors["static"], judge.config.factors["dynamic"]
    is_kept, is_done = all_right(answers, of_a, static), all_right(answers, of_b, dynamic)
    return Row(
        bootstrap.rate(is_kept),
        bootstrap.rate(is_done),
        bootstrap.rate(is_kept & is_done),
        bootstrap.rate(all_right(answers, of_b, static)),
        bootstrap.rate(all_right(answers, of_a, dynamic)),
    )


def _clip_row(judge: Judge, answers: Answers, truth: Answers, bootstrap: ClipBootstrap) -> Row:
    static, dynamic = (all_right(answers, truth, judge.config.factors[kind]) for kind in KINDS)
    return Row(bootstrap.rate(static), bootstrap.rate(dynamic), bootstrap.rate(static & dynamic))


def _factor_results(
    judge: Judge, answers: Answers, truth: Answers, places: np.ndarray, bootstrap: ClipBootstrap
) -> dict[str, FactorResult]:
    results = {}
    for side, kind in enumerate(KINDS):
        for name in judge.config.factors[kind]:
            classes = judge.config.classes[name]
            wanted, other = truth[name][places[:, side]], truth[name][places[:, 1 - side]]
            is_right = answers[name] == wanted
            by_class = {classes[k]: bootstrap.rate(is_right, wanted == k) for k in np.unique(wanted).tolist()}
            counts = confusion(wanted, answers[name], len(classes))
            results[name] = FactorResult(kind, bootstrap.rate(is_right), bootstrap.rate(answers[name] == other), by_class, counts)
    return results


def _is_new(train_clips: ClipDataset, judge: Judge, wanted: Answers) -> np.ndarray:
    """Tell of each pair whether no training clip has the combination of labels that its swap should have."""
    seen = class_numbers(train_clips, judge.config.classes)
    known = set(zip(*(seen[name].tolist() for name in wanted), strict=True))
    return np.array([combination not in known for combination in zip(*(v.tolist() for v in wanted.values()), strict=True)])


def _notes(judge: Judge, pairs: PairList) -> tuple[str, ...]:
    notes = judge_notes(judge)
    if len(pairs) < pairs.num_asked:
        notes.append(f"{pairs.num_asked} pairs were asked for; {len(pairs)} are all that there are.")
    return tuple(notes)


def _take(answers: Answers, places: np.ndarray) -> Answers:
    return {name: numbers[places] for name, numbers in answers.items()}


def _join(parts: Sequence[Answers]) -> Answers:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _differ(a: dict[str, str | None], b: dict[str, str | None]) -> bool:
    return all(a[factor] != b[factor] for factor in a if a[factor] is not None and b[factor] is not None)


def _describe(clips: ClipDataset, index: int) -> str:
    known = [label for label in clips.labels(index).values() if label is not None]
    return ", ".join(known) or clips.clip_id(index)
