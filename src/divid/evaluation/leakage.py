"""Leakage: how much of the motion can be read from the static token, and how much of the appearance from the dynamic ones.

A light classifier is trained on the codes of held-in clips and asked about those of held-out clips; the encoder is frozen. S->D
reads the dynamic factor (the action) from s, D->S the static one (the person) from d_1..F: these shall fail. S->S and D->D read
from each token what it is for: without them a small leakage means nothing, since a collapsed encoder leaks nothing either.

The paper's probe sees d_1..F as mean and standard deviation over the frames. Tokens whose mean is 0 by construction look clean to
it and are not, so Dseq->S and Dseq->D read all tokens in their order, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from divid.data.clips import ClipDataset
from divid.errors import DatasetError
from divid.evaluation.codes import Told, encode_clips
from divid.evaluation.intervals import Interval, wilson_interval
from divid.evaluation.probes import HIDDEN_WIDTH, MAX_ITERATIONS, Probe, mlp_probe, require_scikit_learn, standardise
from divid.models.token_memory import summarise_dynamic
from divid.randomness import derive_seed
from divid.types import Codes, Disentangler

Kind = Literal["static", "dynamic"]
Reading = Literal["static", "dynamic", "sequence"]
Direction = Literal["S->D", "D->S", "S->S", "D->D", "Dseq->S", "Dseq->D"]
DIRECTIONS: dict[Direction, tuple[Reading, Kind]] = {
    "S->D": ("static", "dynamic"),
    "D->S": ("dynamic", "static"),
    "S->S": ("static", "static"),
    "D->D": ("dynamic", "dynamic"),
    "Dseq->S": ("sequence", "static"),
    "Dseq->D": ("sequence", "dynamic"),
}
"""Direction -> (what is read, which kind of factor is asked for)."""
LEAKS: tuple[Direction, Direction] = ("S->D", "D->S")

Labels = Sequence[Mapping[str, str | None]]
"""One mapping a clip, factor -> class; None where it is unlabelled."""


@dataclass(frozen=True)
class LabelledCodes:
    """Codes of some clips as the probes read them, and the clips' classes.

    Args:
        static: s.
        dynamic: Mean and standard deviation over the frames of d_1..F.
        sequence: d_1..F one after the other.
        labels: Classes by factor, one mapping a clip.
    """

    static: Float[np.ndarray, "clips static_dim"]
    dynamic: Float[np.ndarray, "clips dynamic_features"]
    sequence: Float[np.ndarray, "clips sequence_dim"]
    labels: Labels

    @classmethod
    def of(cls, codes: Codes, labels: Labels) -> LabelledCodes:
        """Summarise codes for the probes.

        Args:
            codes: Of several clips.
            labels: Their classes.
        """
        summary, sequence = summarise_dynamic(codes.dynamic), codes.dynamic.flatten(1)
        return cls(_to_numpy(codes.static), _to_numpy(summary), _to_numpy(sequence), tuple(labels))

    def codes(self, reading: Reading) -> Float[np.ndarray, "clips dim"]:
        """Give what a probe reads.

        Args:
            reading: Which one.
        """
        return getattr(self, reading)


@dataclass(frozen=True)
class ProbeScore:
    """What one probe read.

    Args:
        direction: Which token was read for which kind of factor.
        factor: The factor that was asked for.
        correct: Held-out clips whose class it named.
        total: Held-out clips that it was asked about.
        chance: Share of their most frequent class: what the best constant answer reaches.
    """

    direction: Direction
    factor: str
    correct: int
    total: int
    chance: float

    @property
    def accuracy(self) -> float:
        """Share of the clips whose class was named."""
        return self.correct / self.total

    @property
    def interval(self) -> Interval:
        """The accuracy's 95 % Wilson interval."""
        return wilson_interval(self.correct, self.total)

    @property
    def normalised(self) -> float:
        """The accuracy on a scale from chance, 0, to perfect, 1."""
        return max(0.0, (self.accuracy - self.chance) / (1 - self.chance))


@dataclass(frozen=True)
class Leakage:
    """What the probes read in all four directions.

    Args:
        scores: One a direction and factor.
        num_held_in: Clips that the probes were trained on.
    """

    scores: tuple[ProbeScore, ...]
    num_held_in: int

    def accuracy(self, direction: Direction) -> float:
        """Give a direction's accuracy, averaged over its factors.

        Args:
            direction: A key of `DIRECTIONS`.
        """
        return self._mean(direction, "accuracy")

    def chance(self, direction: Direction) -> float:
        """Give a direction's chance level, averaged over its factors.

        Args:
            direction: A key of `DIRECTIONS`.
        """
        return self._mean(direction, "chance")

    @property
    def mean(self) -> float:
        """Leakage: the mean of the accuracies of S->D and D->S. Even a perfect encoder has that of chance."""
        return sum(self.accuracy(direction) for direction in LEAKS) / len(LEAKS)

    @property
    def strict(self) -> float:
        """Leakage where the person counts as read from the dynamic tokens by whichever of the two probes reads more."""
        return (self.accuracy("S->D") + max(self.accuracy("D->S"), self.accuracy("Dseq->S"))) / len(LEAKS)

    @property
    def normalised(self) -> float:
        """Normalised leakage: the same mean of max(0, (accuracy - chance) / (1 - chance)); 0 is none, 1 is all."""
        return sum(self._mean(direction, "normalised") for direction in LEAKS) / len(LEAKS)

    def to_dict(self) -> dict[str, Any]:
        """Give all numbers as JSON stores them."""
        return {
            "leakage": self.mean,
            "normalised_leakage": self.normalised,
            "strict_leakage": self.strict,
            "num_held_in": self.num_held_in,
            "probe": f"one hidden layer of {HIDDEN_WIDTH}, at most {MAX_ITERATIONS} passes, on standardised codes",
            "directions": {
                direction: {
                    "accuracy": self.accuracy(direction),
                    "chance": self.chance(direction),
                    "factors": {score.factor: _score_dict(score) for score in self._of(direction)},
                }
                for direction in DIRECTIONS
            },
        }

    def to_text(self) -> str:
        """Give all numbers as lines of text, percentages with interval, number of clips and chance."""
        lines = []
        for direction in DIRECTIONS:
            scores = self._of(direction)
            for score in scores:
                low, high = score.interval
                lines.append(
                    f"{direction}  {score.factor:<12} {score.accuracy:6.1%}  [{low:.1%}, {high:.1%}]  "
                    f"of {score.total} clips, chance {score.chance:.1%}"
                )
            if len(scores) > 1:
                lines.append(f"{direction}  {'mean':<12} {self.accuracy(direction):6.1%}  chance {self.chance(direction):.1%}")
        lines.append(f"leakage (mean of S->D and D->S) {self.mean:.1%}, normalised by chance {self.normalised:.1%}")
        lines.append(f"strict leakage (Dseq->S in place of D->S where it reads more) {self.strict:.1%}")
        return "\n".join(lines)

    def _of(self, direction: Direction) -> list[ProbeScore]:
        return [score for score in self.scores if score.direction == direction]

    def _mean(self, direction: Direction, name: str) -> float:
        values = [getattr(score, name) for score in self._of(direction)]
        return sum(values) / len(values)


def measure_leakage(
    model: Disentangler,
    held_in: ClipDataset,
    held_out: ClipDataset,
    *,
    num_frames: int,
    seed: int = 0,
    told: Told | None = None,
) -> Leakage:
    """Encode clips with a frozen model, and probe the codes.

    Args:
        model: On its device, in evaluation mode.
        held_in: Clips to train the probes on, as a rule those that the model was trained on.
        held_out: Clips to ask them about.
        num_frames: F, frames of a clip, as in training.
        seed: Of the probes.
        told: Hears of the progress.

    Raises:
        DatasetError: The clips lack labels, or have too few classes.
        ModelError: The codes are not finite.
        MissingExtraError: scikit-learn is not installed.
    """
    factors = held_out.info.factors
    check_labels(_labels(held_in), _labels(held_out), factors)
    require_scikit_learn("measuring leakage")
    read_in, read_out = (
        collect_codes(model, clips, num_frames=num_frames, told=told, stage=f"encoding {name} clips")
        for name, clips in (("held-in", held_in), ("held-out", held_out))
    )
    return probe_codes(read_in, read_out, factors, seed=seed)


def collect_codes(
    model: Disentangler, clips: ClipDataset, *, num_frames: int, told: Told | None = None, stage: str = "encoding"
) -> LabelledCodes:
    """Encode clips, batch by batch.

    Args:
        model: On its device, in evaluation mode.
        clips: Any clips.
        num_frames: F.
        told: Hears of the progress.
        stage: What `told` is told.

    Raises:
        ModelError: The codes are not finite.
    """
    codes = encode_clips(model, clips, num_frames=num_frames, told=told, stage=stage)
    return LabelledCodes.of(codes, _labels(clips))


def probe_codes(
    held_in: LabelledCodes,
    held_out: LabelledCodes,
    factors: Mapping[str, Sequence[str]],
    *,
    seed: int = 0,
    probe: Probe | None = None,
) -> Leakage:
    """Probe codes in all four directions, for every factor by itself.

    Clips without a label of a factor, and held-out clips of a class that no held-in clip has, are left out there.

    Args:
        held_in: To train the probes on.
        held_out: To ask them about.
        factors: Names of the factors by kind, `static` and `dynamic`.
        seed: Of the probes.
        probe: The classifier; default: `mlp_probe`.

    Raises:
        DatasetError: The clips lack labels, or have too few classes.
        MissingExtraError: scikit-learn is not installed.
    """
    check_labels(held_in.labels, held_out.labels, factors)
    scores = []
    for direction, (token, kind) in DIRECTIONS.items():
        for factor in factors[kind]:
            classes = _shared_classes(held_in.labels, held_out.labels, factor)
            known = sorted({label for label in _column(held_in.labels, factor) if label is not None})
            train, train_classes = _labelled(held_in, token, factor, known)
            test, test_classes = _labelled(held_out, token, factor, classes, numbered_as=known)
            train, test = standardise(train, test)
            read = (probe or mlp_probe)(train, train_classes, test, derive_seed(seed, "probe", direction, factor) % 2**32)
            scores.append(
                ProbeScore(
                    direction,
                    factor,
                    correct=int((read == test_classes).sum()),
                    total=len(test_classes),
                    chance=max(Counter(test_classes.tolist()).values()) / len(test_classes),
                )
            )
    return Leakage(tuple(scores), len(held_in.labels))


def check_labels(held_in: Labels, held_out: Labels, factors: Mapping[str, Sequence[str]]) -> None:
    """Check that there is something to probe for.

    Args:
        held_in: Classes of the clips to train on.
        held_out: Classes of the clips to ask about.
        factors: Names of the factors by kind.

    Raises:
        DatasetError: A kind has no factor, or a factor has fewer than two classes, or fewer than two that both have.
    """
    for kind in get_args(Kind):
        if not factors.get(kind):
            raise DatasetError(
                f"the clips have no {kind} factor, and leakage is measured by reading one: prepare the data set with labels"
            )
        for factor in factors[kind]:
            for name, labels in (("training", held_in), ("held-out", held_out)):
                count = len(set(_column(labels, factor)) - {None})
                if count < 2:
                    raise DatasetError(
                        f"the {name} clips have {count} {'class' if count == 1 else 'classes'} of the {kind} factor {factor!r}, "
                        "and leakage is measured by telling at least 2 apart: prepare the data set with more"
                    )
            if len(_shared_classes(held_in, held_out, factor)) < 2:
                raise DatasetError(
                    f"training and held-out clips share fewer than 2 classes of the {kind} factor {factor!r}, so what a probe "
                    "learns on the ones says nothing about the others: prepare the data set with a split that keeps the classes"
                )


def _labels(clips: ClipDataset) -> Labels:
    return [clips.labels(index) for index in range(len(clips))]


def _column(labels: Labels, factor: str) -> list[str | None]:
    return [row.get(factor) for row in labels]


def _shared_classes(held_in: Labels, held_out: Labels, factor: str) -> list[str]:
    shared = set(_column(held_in, factor)) & set(_column(held_out, factor))
    return sorted(label for label in shared if label is not None)


def _labelled(
    codes: LabelledCodes, token: Reading, factor: str, wanted: Sequence[str], numbered_as: Sequence[str] | None = None
) -> tuple[Float[np.ndarray, "clips dim"], Int[np.ndarray, " clips"]]:
    """Give the codes and class numbers of the clips that have one of the wanted classes."""
    numbers = {label: number for number, label in enumerate(numbered_as or wanted)}
    labels = _column(codes.labels, factor)
    kept = [index for index, label in enumerate(labels) if label in wanted]
    classes = [numbers[label] for label in labels if label is not None and label in wanted]
    return codes.codes(token)[kept], np.array(classes, dtype=np.int64)


def _to_numpy(values: Tensor) -> Float[np.ndarray, "clips dim"]:
    return values.detach().cpu().double().numpy()


def _score_dict(score: ProbeScore) -> dict[str, Any]:
    low, high = score.interval
    return {
        "accuracy": score.accuracy,
        "low": low,
        "high": high,
        "correct": score.correct,
        "num_clips": score.total,
        "chance": score.chance,
        "normalised": score.normalised,
    }
