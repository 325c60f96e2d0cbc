"""Overlap: how much of each token can be worked out from the other. Leakage without labels.

Kernel ridge regressions are fitted to the codes of held-in clips, s from d_1..F and d_1..F from s; what they explain of the
variance over held-out clips is the overlap. Where look and motion are independent in the data, tokens that are kept apart tell
nothing of each other. Where they go together in the data (one person alone does this action), some overlap is right.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from divid.data.clips import ClipDataset
from divid.errors import DatasetError
from divid.evaluation.codes import Told, encode_clips
from divid.evaluation.intervals import NUM_RESAMPLES
from divid.evaluation.probes import require_scikit_learn, standardise
from divid.models.token_memory import summarise_dynamic
from divid.randomness import derive_seed
from divid.types import Codes, Disentangler

MAX_HELD_IN = 2000
"""Most clips that a regression is fitted to, drawn by the seed: its cost grows with their cube."""
PENALTIES = (1e-2, 1e-1, 1.0, 10.0)
WIDTHS = (0.03, 0.1, 0.3, 1.0)
"""Ridge penalties, and inverse widths of the Gaussian kernel over the number of entries; cross-validation chooses."""
FOLDS = 4
LEAST_CLIPS = 4


@dataclass(frozen=True)
class Explained:
    """Share of a token's variance over held-out clips that the other token explains.

    Args:
        share: 1 - residual sum of squares / total sum of squares; 1 is all, 0 or less is nothing.
        low: 95 % interval over held-out clips.
        high: Its other end.
    """

    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Overlap:
    """What each token tells of the other.

    Args:
        static_from_dynamic: s, worked out from mean and standard deviation over the frames of d_1..F.
        dynamic_from_static: These, worked out from s.
        num_held_in: Clips that the regressions were fitted to.
        num_held_out: Clips that they were asked about.
    """

    static_from_dynamic: Explained
    dynamic_from_static: Explained
    num_held_in: int
    num_held_out: int

    def to_dict(self) -> dict[str, Any]:
        """Give all numbers as JSON stores them."""
        return asdict(self)

    def to_text(self) -> str:
        """Give the shares with their intervals over clips, in lines."""
        rows = (("static from dynamic", self.static_from_dynamic), ("dynamic from static", self.dynamic_from_static))
        return "\n".join(
            f"overlap  {name}  {row.share:6.1%}  [{row.low:.1%}, {row.high:.1%}]  of the variance, {self.num_held_out} clips"
            for name, row in rows
        )


def measure_overlap(
    model: Disentangler,
    held_in: ClipDataset,
    held_out: ClipDataset,
    *,
    num_frames: int,
    seed: int = 0,
    told: Told | None = None,
) -> Overlap:
    """Encode clips and measure the overlap of their tokens.

    Args:
        model: On its device, in evaluation mode.
        held_in: Clips to fit the regressions to, as a rule those that the model was trained on.
        held_out: Clips to ask them about.
        num_frames: F, frames of a clip, as in training.
        seed: Of the choice among more than `MAX_HELD_IN` clips, and of the intervals.
        told: Hears of the progress.

    Raises:
        DatasetError: There are too few clips.
        ModelError: The codes are not finite.
        MissingExtraError: scikit-learn is not installed.
    """
    for name, clips in (("held-in", held_in), ("held-out", held_out)):
        if len(clips) < LEAST_CLIPS:
            raise DatasetError(
                f"overlap needs {LEAST_CLIPS} {name} clips or more, there are {len(clips)}: prepare more, or leave out --overlap"
            )
    require_scikit_learn("measuring overlap")
    order = np.random.default_rng(derive_seed(seed, "clips for overlap")).permutation(len(held_in))
    chosen = sorted(order[:MAX_HELD_IN].tolist())
    fitted, asked = (
        encode_clips(model, clips, indices, num_frames=num_frames, told=told, stage=f"encoding {name} clips")
        for name, clips, indices in (("held-in", held_in, chosen), ("held-out", held_out, None))
    )
    return overlap_of_codes(fitted, asked, seed=seed)


def overlap_of_codes(held_in: Codes, held_out: Codes, *, seed: int = 0) -> Overlap:
    """Measure the overlap of codes.

    Args:
        held_in: Codes to fit the regressions to.
        held_out: Codes to ask them about.
        seed: Of the intervals.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    s_in, s_out = (codes.static.double().numpy() for codes in (held_in, held_out))
    d_in, d_out = (summarise_dynamic(codes.dynamic).double().numpy() for codes in (held_in, held_out))
    shares = (_explained(d_in, d_out, s_in, s_out, seed), _explained(s_in, s_out, d_in, d_out, seed))
    return Overlap(*shares, num_held_in=len(s_in), num_held_out=len(s_out))


def _explained(
    inputs: Float[np.ndarray, "held_in inputs"],
    asked_inputs: Float[np.ndarray, "held_out inputs"],
    targets: Float[np.ndarray, "held_in targets"],
    asked_targets: Float[np.ndarray, "held_out targets"],
    seed: int,
) -> Explained:
    require_scikit_learn("measuring overlap")
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.model_selection import GridSearchCV, KFold

    inputs, asked_inputs = standardise(inputs, asked_inputs)
    mean = targets.mean(0)
    choices = {"alpha": PENALTIES, "gamma": [width / inputs.shape[1] for width in WIDTHS]}
    folds = KFold(FOLDS, shuffle=True, random_state=0)
    search = GridSearchCV(KernelRidge(kernel="rbf"), choices, cv=folds, scoring="neg_mean_squared_error")
    missed = asked_targets - mean - search.fit(inputs, targets - mean).predict(asked_inputs)
    residual, total = (np.square(values).sum(1) for values in (missed, asked_targets - mean))
    if not total.sum() > 0:
        return Explained(0.0, 0.0, 0.0)  # a token that is the same for every clip: there is nothing to tell
    counts = np.random.default_rng(derive_seed(seed, "overlap over clips")).multinomial(
        len(total), np.full(len(total), 1 / len(total)), size=NUM_RESAMPLES
    )
    resampled = 1 - (counts @ residual) / np.maximum(counts @ total, np.finfo(float).tiny)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Explained(float(1 - residual.sum() / total.sum()), float(low), float(high))
