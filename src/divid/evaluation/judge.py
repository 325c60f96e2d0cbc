"""The judge: a small classifier that says what a clip shows, with one head a factor, trained on real clips only.

    judge.json           format, data set, factors and classes, sizes, accuracy on held-out real clips, how it was trained
    judge.safetensors    the weights

Nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from divid.data.clips import ClipDataset, DatasetInfo
from divid.data.schema import KINDS
from divid.errors import ModelError, OutputError
from divid.evaluation.intervals import ClipBootstrap, Rate
from divid.evaluation.judge_networks import ARCHITECTURES, TRUNKS, Architecture, at_working_size
from divid.json_files import read_json, write_json
from divid.outputs import atomic_path, describe
from divid.types import Video

FORMAT = "divid-judge"
FORMAT_VERSION = 1
INFO_NAME = "judge.json"
WEIGHTS_NAME = "judge.safetensors"

TRUSTED_ACCURACY = 0.95
"""Joint accuracy on held-out real clips under which a result says that its judge is not to be trusted."""
BATCH_CLIPS = 64

Answers = dict[str, Int[np.ndarray, "_"]]
"""Class numbers by factor; -1 where a clip is unlabelled."""


@dataclass(frozen=True)
class JudgeConfig:
    """What a judge was made for.

    Args:
        data: Name of the data set.
        factors: Classes by factor, under the keys `static` and `dynamic`.
        image_size: Height and width of the frames.
        channels: 1 or 3.
        num_frames: F, frames of a clip.
        architecture: `gru`, a CNN a frame with a recurrent net over them; `conv3d`, a CNN in space and time; `two_stream`, single
            frames for the static factors and frame differences for the dynamic ones, each with a net of its own.
    """

    data: str
    factors: Mapping[str, Mapping[str, tuple[str, ...]]]
    image_size: int
    channels: int
    num_frames: int
    architecture: Architecture = "gru"

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Classes by factor, the static ones first."""
        return {name: tuple(classes) for kind in KINDS for name, classes in self.factors[kind].items()}

    @property
    def video_shape(self) -> tuple[int, int, int, int]:
        """(F, C, H, W) of the clips."""
        return self.num_frames, self.channels, self.image_size, self.image_size


@dataclass(frozen=True)
class HeldOut:
    """How well a judge does on real clips that it was not trained on.

    Args:
        static: Share of the clips whose static factors are all named rightly.
        dynamic: The same for the dynamic ones.
        joint: Both.
        factors: Factor by factor.
        confusion: By factor: how many clips of each class (row) were taken for each class (column).
    """

    static: Rate
    dynamic: Rate
    joint: Rate
    factors: Mapping[str, Rate]
    confusion: Mapping[str, tuple[tuple[int, ...], ...]]

    @classmethod
    def of(cls, config: JudgeConfig, answers: Answers, truth: Answers) -> HeldOut:
        """Compare answers with the truth.

        Args:
            config: Tells which factors are static.
            answers: The judge's.
            truth: The labels of the same clips, each with all its labels.
        """
        static, dynamic = (all_right(answers, truth, config.factors[kind]) for kind in KINDS)
        bootstrap = ClipBootstrap(np.arange(len(static))[:, None])
        return cls(
            bootstrap.rate(static),
            bootstrap.rate(dynamic),
            bootstrap.rate(static & dynamic),
            {name: bootstrap.rate(answers[name] == truth[name]) for name in config.classes},
            {name: confusion(truth[name], answers[name], len(classes)) for name, classes in config.classes.items()},
        )

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        rates = {name: getattr(self, name).to_dict() for name in ("static", "dynamic", "joint")}
        factors = {name: rate.to_dict() for name, rate in self.factors.items()}
        return {**rates, "factors": factors, "confusion": {name: list(map(list, rows)) for name, rows in self.confusion.items()}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> HeldOut:
        """Read what `to_dict` gave.

        Args:
            values: The JSON object.

        Raises:
            KeyError, TypeError, ValueError: It is none.
        """
        static, dynamic, joint = (Rate.from_dict(values[name]) for name in ("static", "dynamic", "joint"))
        factors = {name: Rate.from_dict(rate) for name, rate in values["factors"].items()}
        counts = {name: tuple(tuple(map(int, row)) for row in rows) for name, rows in values["confusion"].items()}
        return cls(static, dynamic, joint, factors, counts)


class Judge(nn.Module):
    """A classifier of clips with one head a factor.

    Args:
        config: What it is made for.
        held_out: Its accuracy on held-out real clips, once that is measured.
        history: How it was trained, to be kept with it.
    """

    def __init__(self, config: JudgeConfig, held_out: HeldOut | None = None, history: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.config, self.held_out, self.history = config, held_out, dict(history or {})
        self.trunk = TRUNKS[config.architecture](config.channels)
        self.heads = nn.ModuleList(
            nn.Linear(self.trunk.widths[kind], len(classes)) for kind in KINDS for classes in config.factors[kind].values()
        )

    @property
    def is_trusted(self) -> bool:
        """Whether it names all factors of enough held-out real clips."""
        return self.held_out is not None and self.held_out.joint.rate >= TRUSTED_ACCURACY

    def forward(self, video: Video, moving: Video | None = None) -> dict[str, Float[Tensor, "batch classes"]]:
        """Give the logits of every factor.

        Args:
            video: The clips.
            moving: What the stream of the dynamic factors sees in their place, in training; only where it is one of its own.
        """
        features = self.trunk(at_working_size(video), None if moving is None else at_working_size(moving))
        kinds = [kind for kind in KINDS for _ in self.config.factors[kind]]
        return {name: head(features[kind]) for name, kind, head in zip(self.config.classes, kinds, self.heads, strict=True)}

    @torch.no_grad()
    def predict(self, video: Video) -> dict[str, Int[Tensor, " batch"]]:
        """Give the most likely class of every factor, as its number in `config.classes`, on the CPU.

        Args:
            video: Real or made clips.

        Raises:
            ModelError: They have another shape than the judge was trained on.
        """
        return {name: scores.argmax(1) for name, scores in self._logits(video).items()}

    @torch.no_grad()
    def probabilities(self, video: Video) -> dict[str, Float[Tensor, "batch classes"]]:
        """Give p(y|x) of every factor, in float64 on the CPU.

        Label smoothing in training keeps them from 0 and 1: compare what rests on them with real clips only.

        Args:
            video: Real or made clips.

        Raises:
            ModelError: They have another shape than the judge was trained on.
        """
        return {name: scores.double().softmax(1) for name, scores in self._logits(video).items()}

    def answers(self, video: Video) -> Answers:
        """Give what `predict` gives as arrays."""
        return {name: numbers.numpy() for name, numbers in self.predict(video).items()}

    def check_fits(self, info: DatasetInfo, num_frames: int | None = None) -> None:
        """Check that clips are of the size and the classes that this judge knows.

        Args:
            info: Of the clips.
            num_frames: F, frames of a clip as the judged model takes them; default: as the judge does.

        Raises:
            ModelError: They are not.
        """
        config, advice = self.config, "train one for this data with divid judge"
        if (info.image_size, info.channels) != (config.image_size, config.channels):
            raise ModelError(
                f"the judge was trained on frames of {config.image_size} pixels with {config.channels} channels, these clips "
                f"have {info.image_size} with {info.channels}: {advice} --size {info.image_size} --channels {info.channels}"
            )
        if num_frames not in (None, config.num_frames):
            raise ModelError(
                f"the judge was trained on clips of {config.num_frames} frames, {num_frames} are asked for: "
                f"{advice} --frames {num_frames}"
            )
        for kind in KINDS:
            known, asked = config.factors[kind], info.factors[kind]
            if set(known) != set(asked):
                listed = [", ".join(sorted(names)) or "none" for names in (known, asked)]
                remedy = advice if asked else "prepare the data with labels"
                raise ModelError(f"the judge knows the {kind} factors {listed[0]}, the clips have {listed[1]}: {remedy}")
            for name in asked:
                if len(info.classes[name]) < 2:
                    raise ModelError(f"the clips have one class of {name!r} only, so nothing is to be judged: give clips of more")
                differing = sorted(set(known[name]) ^ set(info.classes[name]))
                if differing:
                    raise ModelError(
                        f"the judge was trained on other classes of {name!r} (only one has {differing[0]!r}): {advice}"
                    )

    def save(self, folder: Path | str) -> None:
        """Write judge.json and judge.safetensors into a folder, which is made if it is not there.

        Args:
            folder: Where to.

        Raises:
            OutputError: It cannot be written.
        """
        config, folder = self.config, Path(folder)
        info = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "architecture": config.architecture,
            "data": config.data,
            "factors": {kind: {name: list(classes) for name, classes in config.factors[kind].items()} for kind in KINDS},
            "image_size": config.image_size,
            "channels": config.channels,
            "num_frames": config.num_frames,
            "held_out": None if self.held_out is None else self.held_out.to_dict(),
            "training": self.history,
        }
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(folder / WEIGHTS_NAME) as path:
                path.write_bytes(save(weights))  # save_file would leave it readable by its owner only
            write_json(folder / INFO_NAME, info)
        except (OSError, SafetensorError) as error:
            raise OutputError(f"cannot write the judge into {folder} ({describe(error)}): choose another folder") from error

    @classmethod
    def load(cls, folder: Path | str) -> Judge:
        """Load a judge, in evaluation mode on the CPU; every weight must be there, finite and of the right shape.

        Args:
            folder: What `save` wrote.

        Raises:
            ModelError: It holds no judge, is damaged, or its weights are of another one.
        """
        folder = Path(folder)
        info = _read_info(folder / INFO_NAME)
        try:
            factors = {kind: {name: tuple(classes) for name, classes in info["factors"][kind].items()} for kind in KINDS}
            sizes = {name: int(info[name]) for name in ("image_size", "channels", "num_frames")}
            config = JudgeConfig(str(info["data"]), factors, architecture=info["architecture"], **sizes)
            held_out = None if info["held_out"] is None else HeldOut.from_dict(info["held_out"])
            judge = cls(config, held_out, info["training"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{folder / INFO_NAME} is damaged ({describe(error)}): train the judge again") from error
        try:
            weights = load_file(folder / WEIGHTS_NAME)
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise ModelError(f"{folder / WEIGHTS_NAME} cannot be read ({describe(error)}): train the judge again") from error
        _check_weights(folder / WEIGHTS_NAME, judge.state_dict(), weights)
        judge.load_state_dict(weights)
        return judge.eval()

    def _logits(self, video: Video) -> dict[str, Tensor]:
        """Give the logits of every factor in evaluation mode, on the CPU."""
        if tuple(video.shape[1:]) != self.config.video_shape:
            raise ModelError(
                f"the judge takes clips of (F, C, H, W) = {self.config.video_shape}, got {tuple(video.shape[1:])}: "
                "train one for these with divid judge"
            )
        was_training, device = self.training, next(self.parameters()).device
        self.eval()
        parts = [self(part.to(device).float().clamp(-1, 1)) for part in video.split(BATCH_CLIPS)]
        self.train(was_training)
        return {name: torch.cat([part[name] for part in parts]).cpu() for name in self.config.classes}


def class_numbers(clips: ClipDataset, classes: Mapping[str, Sequence[str]], indices: Sequence[int] | None = None) -> Answers:
    """Give the labels of clips as class numbers.

    Args:
        clips: Any clips.
        classes: Classes by factor; a label must be one of them.
        indices: Which clips; default: all.
    """
    places = {name: {label: number for number, label in enumerate(labels)} for name, labels in classes.items()}
    chosen = range(len(clips)) if indices is None else indices
    labels = [clips.labels(index) for index in chosen]
    return {
        name: np.array([-1 if (label := row[name]) is None else numbers[label] for row in labels], dtype=np.int64)
        for name, numbers in places.items()
    }


def all_right(answers: Answers, truth: Answers, factors: Sequence[str] | Mapping[str, Any]) -> Bool[np.ndarray, " clips"]:
    """Tell of each clip whether several factors are all named rightly.

    Args:
        answers: The judge's.
        truth: The labels.
        factors: Which factors; at least one.
    """
    return np.logical_and.reduce([answers[name] == truth[name] for name in factors])


def confusion(truth: np.ndarray, answers: np.ndarray, num_classes: int) -> tuple[tuple[int, ...], ...]:
    """Count how many clips of each class (row) were taken for each class (column).

    Args:
        truth: Class numbers.
        answers: The judge's.
        num_classes: K.
    """
    counts = np.bincount(truth * num_classes + answers, minlength=num_classes**2).reshape(num_classes, num_classes)
    return tuple(tuple(map(int, row)) for row in counts)


def _read_info(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(f"{path.parent} holds no judge (it has no {INFO_NAME}): train one with divid judge")
    info = read_json(path, ModelError, "train the judge again")
    if info.get("format") != FORMAT:
        raise ModelError(f"{path} was not made by divid judge: give the folder of a judge")
    version, architecture = info.get("version"), info.get("architecture")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ModelError(f"{path} has format version {version!r}, this divid reads up to {FORMAT_VERSION}: update divid")
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"{path} is of the architecture {architecture!r}, this divid has {', '.join(ARCHITECTURES)}: update divid"
        )
    return info


def _check_weights(path: Path, expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> None:
    differing = sorted(expected.keys() ^ got.keys())
    if differing:
        kind = "lacks" if differing[0] in expected else "has the unknown"
        raise ModelError(f"{path} {kind} parameter {differing[0]!r}, so it is of another judge: train the judge again")
    for name, tensor in expected.items():
        if got[name].shape != tensor.shape:
            shapes = f"{tuple(got[name].shape)}, {INFO_NAME} wants {tuple(tensor.shape)}"
            raise ModelError(f"{path}: parameter {name!r} has shape {shapes}: the two are of different judges, train it again")
        if not torch.isfinite(got[name]).all():
            raise ModelError(f"{path} is broken: parameter {name!r} holds NaN or infinite values: train the judge again")
