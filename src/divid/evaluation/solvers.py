"""How few steps are enough: time and quality of solver settings, each beside the first, on the same pairs and seeds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from divid.arrays import peak_signal_to_noise, video_to_frames
from divid.config import SamplingConfig, SolverName, SpacingName
from divid.data.clips import ClipDataset
from divid.data.module import middle_video
from divid.data.schema import KINDS
from divid.errors import ConfigError, nearest
from divid.evaluation.codes import BATCH_CLIPS, Told, check_clips, device_of, encode_clips, video_shape
from divid.evaluation.intervals import ClipBootstrap, Rate, paired_interval
from divid.evaluation.judge import Judge, all_right, class_numbers
from divid.evaluation.pairs import PairList
from divid.evaluation.realism import FeatureFit, FeatureNetwork
from divid.plots import new_figure, save_figure
from divid.types import Codes, Disentangler, Video
from divid.video import contact_sheet

ANSWERS = (*KINDS, "joint")
NUM_EXAMPLES = 3


@dataclass(frozen=True)
class Setting:
    """A model with a solver and its number of steps.

    Args:
        model: Name of the model, as given to `measure_solvers`.
        sampling: Solver and steps.
    """

    model: str
    sampling: SamplingConfig

    @property
    def name(self) -> str:
        """Model, solver, steps, spacing."""
        return _line(self, with_steps=True)


@dataclass(frozen=True)
class Measured:
    """What one setting gives by itself, whatever it is compared with.

    Args:
        seconds: Median time to decode a clip, in a batch.
        psnr: Mean PSNR of reconstructions in dB.
        right: Whether each pair's swap is judged right in static factors, dynamic ones, and both; empty without a judge.
        frechet: Distance of swapped clips to held-out ones, by frames and by clips; None without a feature network.
        examples: The first `NUM_EXAMPLES` swaps, uint8 B F H W C.
    """

    seconds: float
    psnr: float
    right: Mapping[str, Bool[np.ndarray, " pairs"]]
    frechet: tuple[float, float] | None
    examples: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Give all but the examples as JSON has it; answers become one word of 0 and 1 a kind."""
        right = {name: "".join("01"[int(answer)] for answer in answers) for name, answers in self.right.items()}
        frechet = None if self.frechet is None else list(self.frechet)
        return {"seconds_per_clip": self.seconds, "psnr_db": self.psnr, "right": right, "frechet": frechet}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], examples: np.ndarray) -> Self:
        """Read what `to_dict` gave.

        Args:
            values: The JSON object.
            examples: What belongs to it.

        Raises:
            KeyError, TypeError, ValueError: It is none.
        """
        right = {str(name): np.array([bool(int(answer)) for answer in word]) for name, word in values["right"].items()}
        given = values["frechet"]
        frechet = None if given is None else (float(given[0]), float(given[1]))
        return cls(float(values["seconds_per_clip"]), float(values["psnr_db"]), right, frechet, examples)


@dataclass(frozen=True)
class SolverRow:
    """What one setting gives, beside the first one.

    Args:
        setting: The setting.
        seconds: Median time to decode a clip, in a batch.
        speedup: Times as fast as the first setting.
        psnr: Mean PSNR of reconstructions in dB.
        accuracies: Judged swaps that are right in static factors, dynamic ones, and both; empty without a judge.
        change: Joint accuracy less the first setting's, with both ends of its 95 % interval, pair by pair; None without a judge.
        frechet: Distance of swapped clips to held-out ones, by frames and by clips; None without a feature network.
        examples: The first `NUM_EXAMPLES` swaps, uint8 B F H W C; None: not kept.
    """

    setting: Setting
    seconds: float
    speedup: float
    psnr: float
    accuracies: Mapping[str, Rate] = field(default_factory=dict)
    change: tuple[float, float, float] | None = None
    frechet: tuple[float, float] | None = None
    examples: np.ndarray | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return {
            "model": self.setting.model,
            "solver": self.setting.sampling.solver,
            "steps": self.setting.sampling.num_inference_steps,
            "spacing": self.setting.sampling.resolved_spacing,
            "seconds_per_clip": self.seconds,
            "speedup": self.speedup,
            "psnr_db": self.psnr,
            "accuracies": {name: rate.to_dict() for name, rate in self.accuracies.items()},
            "joint_change": None if self.change is None else list(self.change),
            "frechet": None if self.frechet is None else dict(zip(("frames", "clips"), self.frechet, strict=True)),
        }


def parse_settings(texts: Sequence[str], model: str, default: SamplingConfig) -> list[Setting]:
    """Read `SOLVER:STEPS,STEPS,...`, with `@SPACING` behind it where that is not the solver's usual one.

    Args:
        texts: One or more solvers, each with its steps.
        model: Name of the model that they are for.
        default: Everything else of the sampling.

    Raises:
        ConfigError: A solver or a spacing is unknown, or a number of steps is none or out of its range.
    """
    settings = []
    for text in texts:
        name, _, rest = text.partition(":")
        solver = next((solver for solver in get_args(SolverName) if solver == name), None)
        if solver is None:
            raise ConfigError(f"{text!r}: there is no solver {name!r}{nearest(name, get_args(SolverName))}")
        counts, at, wanted = rest.partition("@")
        spacing = next((spacing for spacing in get_args(SpacingName) if spacing == wanted), None)
        if at and spacing is None:
            raise ConfigError(f"{text!r}: there is no spacing {wanted!r}, only {' and '.join(get_args(SpacingName))}")
        try:
            steps = [int(count) for count in counts.split(",")]
        except ValueError as error:
            raise ConfigError(
                f"{text!r} is no setting: write SOLVER:STEPS, as in dpmsolver++:1,2,4 or ddim:4@trailing"
            ) from error
        for count in steps:
            sampling = replace(default, solver=solver, num_inference_steps=count, spacing=spacing)
            settings.append(Setting(model, sampling.validate()))
    return settings


def measure_solvers(
    models: Mapping[str, Disentangler],
    settings: Sequence[Setting],
    clips: ClipDataset,
    pairs: PairList,
    *,
    num_frames: int,
    num_clips: int = 32,
    batch_clips: int = BATCH_CLIPS,
    judge: Judge | None = None,
    network: FeatureNetwork | None = None,
    seed: int = 0,
    kept: Mapping[str, Measured] | None = None,
    done: Callable[[Setting, Measured, Sequence[SolverRow]], None] | None = None,
    told: Told | None = None,
) -> list[SolverRow]:
    """Swap the same pairs with the same seeds by every setting.

    Args:
        models: By name, on their device, in evaluation mode.
        settings: What is compared; the first is the reference.
        clips: Held-out clips, at the models' size.
        pairs: Drawn from them.
        num_frames: F.
        num_clips: Clips that are reconstructed, the first ones of the pairs.
        batch_clips: Clips that are decoded together, and timed so.
        judge: For clips of this data, size and number of frames; None: no accuracies.
        network: For Frechet distances; None: none.
        seed: Pair i, and clip i where it is reconstructed, is sampled with seed + i.
        kept: By name of the setting, what an earlier call measured with the same options: it is not measured again.
        done: Called with each setting that was measured now, what it gave, and all rows so far.
        told: Hears of the progress.

    Raises:
        ConfigError: There is no setting, or one is of no model.
        DatasetError: The pairs name clips that are not there, or that lack a label.
        ModelError: The judge does not fit the clips, or a model gives values that are not numbers.
    """
    if not settings:
        raise ConfigError("there is no solver to measure: name one, as in dpmsolver++:1,2,4")
    used, places = np.unique(pairs.numbers(clips), return_inverse=True)
    places = places.reshape(-1, 2)
    job = _Job(clips, used.tolist(), places, num_frames, num_clips, batch_clips, judge, network, seed, told)
    every: list[Measured] = []
    rows: list[SolverRow] = []
    codes: dict[str, Codes] = {}
    for number, setting in enumerate(settings, start=1):
        one = (kept or {}).get(setting.name)
        is_new = one is None
        if one is None:
            model = models[setting.model]
            if setting.model not in codes:
                codes[setting.model] = encode_clips(model, clips, job.used, num_frames=num_frames)
            one = job.measure(model, codes[setting.model], setting)
        every.append(one)
        rows.append(_row(setting, one, every[0], places, seed))
        if is_new and done:
            done(setting, one, rows)
        if told:
            told("solver settings", number, len(settings))
    return rows


def _row(setting: Setting, one: Measured, first: Measured, places: np.ndarray, seed: int) -> SolverRow:
    accuracies, change = {}, None
    if one.right:
        bootstrap = ClipBootstrap(places, seed=seed)
        accuracies = {name: bootstrap.rate(one.right[name]) for name in ANSWERS}
        change = paired_interval(one.right["joint"], first.right["joint"], places)
    speedup = first.seconds / one.seconds
    return SolverRow(setting, one.seconds, speedup, one.psnr, accuracies, change, one.frechet, one.examples)


@dataclass
class _Job:
    """The same clips, pairs and seeds for every setting."""

    clips: ClipDataset
    used: list[int]
    places: np.ndarray
    num_frames: int
    num_clips: int
    batch_clips: int
    judge: Judge | None
    network: FeatureNetwork | None
    seed: int
    told: Told | None

    def measure(self, model: Disentangler, codes: Codes, setting: Setting) -> Measured:
        few = min(self.num_clips, len(self.used))
        own = Codes(codes.static[:few], codes.dynamic[:few])
        again = torch.cat([video.cpu() for video, _ in self._decode(model, own, setting, "reconstruction")])
        real = middle_video(self.clips, self.used[:few], self.num_frames)
        psnr = float(peak_signal_to_noise(again, real).mean())
        swapped = Codes(codes.static[self.places[:, 0]], codes.dynamic[self.places[:, 1]])
        fit = None if self.network is None else FeatureFit(self.network)
        answers, times, examples = [], [], np.empty(0)
        for video, seconds in self._decode(model, swapped, setting, setting.name):
            times.append(seconds / len(video))
            if len(examples) < NUM_EXAMPLES:
                more = video_to_frames(video[: NUM_EXAMPLES - len(examples)])
                examples = np.concatenate([examples, more]) if len(examples) else more
            if self.judge is not None:
                answers.append(self.judge.answers(video))
            if fit is not None:
                fit.add(video)
        distance = None
        if fit is not None:
            realism = fit.distance_to(self._real(device_of(model)))
            distance = (realism.frame, realism.clip)
        return Measured(statistics.median(times), psnr, self._right(answers), distance, examples)

    def _decode(self, model: Disentangler, codes: Codes, setting: Setting, what: str):
        shape = video_shape(self.clips, self.num_frames)
        for start in range(0, len(codes.static), self.batch_clips):
            end = start + self.batch_clips
            part = Codes(codes.static[start:end], codes.dynamic[start:end]).to(device_of(model))
            seeds = [self.seed + start + number for number in range(len(part.static))]
            _wait(part.static)
            begun = time.perf_counter()
            with torch.no_grad():
                video = model.decode(part, seeds=seeds, sampling=setting.sampling)
            _wait(video)
            seconds = time.perf_counter() - begun
            check_clips(video, (len(seeds), *shape), setting.name, what, start)
            yield video, seconds
            if self.told:
                self.told(what, start + len(video), len(codes.static))

    def _right(self, answers: list[dict[str, np.ndarray]]) -> dict[str, Bool[np.ndarray, " pairs"]]:
        if self.judge is None:
            return {}
        truth = class_numbers(self.clips, self.judge.config.classes, self.used)
        given = {name: np.concatenate([part[name] for part in answers]) for name in answers[0]}
        right = {}
        for side, kind in enumerate(KINDS):
            names = list(self.judge.config.factors[kind])
            wanted = {name: truth[name][self.places[:, side]] for name in names}
            right[kind] = all_right(given, wanted, names)
        return {**right, "joint": right[KINDS[0]] & right[KINDS[1]]}

    def _real(self, device: torch.device) -> FeatureFit:
        assert self.network is not None
        fit = FeatureFit(self.network)
        for start in range(0, len(self.clips), BATCH_CLIPS):
            indices = list(range(start, min(start + BATCH_CLIPS, len(self.clips))))
            fit.add(middle_video(self.clips, indices, self.num_frames).to(device))
        return fit


def _wait(tensor: Tensor | Video) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def solver_table(rows: Sequence[SolverRow]) -> tuple[list[str], list[list[str]]]:
    """Give header and cells of a table; columns that nothing was measured for are left out.

    Args:
        rows: From `measure_solvers`.
    """
    header = ["model", "solver", "steps", "spacing", "s a clip", "speed-up", "PSNR in dB"]
    if rows[0].accuracies:
        header += ["static %", "dynamic %", "joint %", "joint, less the first's"]
    if rows[0].frechet is not None:
        header += ["Frechet, frames", "Frechet, clips"]
    cells = []
    for row in rows:
        sampling = row.setting.sampling
        line = [row.setting.model, sampling.solver, str(sampling.num_inference_steps), sampling.resolved_spacing]
        line += [f"{row.seconds:.3f}", f"{row.speedup:.1f} x", f"{row.psnr:.2f}"]
        if row.accuracies:
            line += [f"{100 * row.accuracies[name].rate:.1f}" for name in ANSWERS]
            assert row.change is not None
            value, low, high = (100 * number for number in row.change)
            line.append("" if row is rows[0] else f"{value:+.1f} ({low:+.1f} to {high:+.1f})")
        if row.frechet is not None:
            line += [f"{value:.4g}" for value in row.frechet]
        cells.append(line)
    return header, cells


def solver_sheet(rows: Sequence[SolverRow], clips: ClipDataset, pairs: PairList, title: str = "") -> Image.Image:
    """Draw the first swaps by every setting, under the two clips that each is made of.

    Args:
        rows: From `measure_solvers`.
        clips: As given there.
        pairs: As given there.
        title: Heading.
    """
    assert rows[0].examples is not None
    num_frames = rows[0].examples.shape[1]
    lines: list[tuple[str, np.ndarray]] = []
    for place in range(len(rows[0].examples)):
        both = video_to_frames(middle_video(clips, pairs.numbers(clips)[place].tolist(), num_frames))
        lines += [("A, whose look", both[0]), ("B, whose motion", both[1])]
        for row in rows:
            assert row.examples is not None
            lines.append((_line(row.setting, with_steps=True), row.examples[place]))
    return contact_sheet(lines, max_columns=num_frames, cell=64, title=title or None)


def _line(setting: Setting, *, with_steps: bool = False) -> str:
    steps = f" {setting.sampling.num_inference_steps}" if with_steps else ""
    return f"{setting.model} {setting.sampling.solver}{steps}, {setting.sampling.resolved_spacing}"


def plot_solvers(rows: Sequence[SolverRow], path: Path, title: str = "") -> None:
    """Draw quality against steps, a line for each model and solver, as a PNG.

    Args:
        rows: From `measure_solvers`.
        path: The picture.
        title: Heading.

    Raises:
        OutputError: It cannot be written.
    """
    drawn: list[tuple[str, list[float]]] = [("PSNR of reconstructions, dB", [row.psnr for row in rows])]
    if rows[0].accuracies:
        drawn.append(("joint accuracy of swaps, %", [100 * row.accuracies["joint"].rate for row in rows]))
    if rows[0].frechet is not None:
        drawn.append(("Frechet distance of swapped clips", [row.frechet[1] for row in rows if row.frechet is not None]))
    figure = new_figure(4.5 * len(drawn), 4)
    lines = list(dict.fromkeys(_line(row.setting) for row in rows))
    for axes, (label, values) in zip(np.atleast_1d(figure.subplots(1, len(drawn))), drawn, strict=True):
        for line in lines:
            points = sorted(
                (row.setting.sampling.num_inference_steps, value)
                for row, value in zip(rows, values, strict=True)
                if _line(row.setting) == line
            )
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, linewidth=1, label=line)
        axes.set_xscale("log")
        ticks = sorted({row.setting.sampling.num_inference_steps for row in rows})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set(xlabel="steps", ylabel=label)
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    if title:
        figure.suptitle(title)
    save_figure(figure, path)
