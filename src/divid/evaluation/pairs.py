"""The pairs of the swap test: drawn once, the same for every method, saved by the names of the clips."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from divid.data.clips import ClipDataset
from divid.data.schema import KINDS
from divid.errors import ConfigError, DatasetError
from divid.json_files import read_json, write_json
from divid.randomness import derive_seed

logger = logging.getLogger("divid")

FORMAT = "divid-pairs"
FORMAT_VERSION = 1
NUM_PAIRS = 2000


@dataclass(frozen=True)
class PairList:
    """Ordered pairs (A, B) of held-out clips: A's appearance is to do B's motion.

    Args:
        pairs: Names of the clips of each pair.
        seed: What it was drawn with.
        num_asked: How many pairs were asked for; there may be fewer.
        data: Names of the data sets.
    """

    pairs: tuple[tuple[str, str], ...]
    seed: int
    num_asked: int
    data: tuple[str, ...]

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.pairs)

    @classmethod
    def draw(cls, clips: ClipDataset, num_pairs: int = NUM_PAIRS, seed: int = 0) -> PairList:
        """Draw pairs of clips that differ in every factor, static and dynamic, without repetition.

        Clips that lack a label are left out.

        Args:
            clips: Held-out clips.
            num_pairs: How many at most; all there are, if those are fewer.
            seed: The same seed gives the same pairs.

        Raises:
            ConfigError: Fewer than one pair is asked for.
            DatasetError: The clips have no labels, one class of a factor, or no two that differ in every factor.
        """
        if num_pairs < 1:
            raise ConfigError(f"{num_pairs} pairs are asked for, must be 1 or more")
        labelled, labels = _full_labels(clips)
        partners = np.array([int(_differs(labels, row).sum()) for row in range(len(labelled))])
        ends = np.cumsum(partners)
        total = int(ends[-1])
        if total == 0:
            raise DatasetError(
                f"no two of the {len(clips)} clips differ in every factor, so none can be swapped: prepare more clips"
            )
        if total < num_pairs:
            logger.warning("%d pairs are asked for, the %d clips give only %d: all are taken", num_pairs, len(clips), total)
        generator = np.random.default_rng(derive_seed(seed, "pairs of the swap test"))
        pairs = []
        for number in generator.choice(total, size=min(num_pairs, total), replace=False).tolist():
            row = int(np.searchsorted(ends, number, side="right"))
            others = np.flatnonzero(_differs(labels, row))
            other = others[number - (ends[row] - partners[row])]
            pairs.append((clips.clip_id(int(labelled[row])), clips.clip_id(int(labelled[other]))))
        return cls(tuple(pairs), seed, num_pairs, tuple(Path(name).name for name in clips.info.names))

    def numbers(self, clips: ClipDataset) -> Int[np.ndarray, "pairs 2"]:
        """Find the pairs' clips.

        Args:
            clips: Among which to look.

        Raises:
            DatasetError: One is not there, or two have one name.
        """
        ids = [clips.clip_id(index) for index in range(len(clips))]
        wanted = dict.fromkeys(name for pair in self.pairs for name in pair)
        absent = sorted(wanted.keys() - set(ids))
        where = f"the pair list (drawn from {', '.join(self.data)})"
        if absent:
            names = ", ".join(Path(name).name for name in clips.info.names)
            raise DatasetError(
                f"{where} names the clip {absent[0]!r}, which is not among the {len(clips)} clips of {names} "
                f"({len(absent)} such in all): give the data set it was drawn from, or draw a new list"
            )
        twice = [name for name, count in Counter(ids).items() if count > 1 and name in wanted]
        if twice:
            raise DatasetError(f"{where} names the clip {twice[0]!r}, which several data sets have: test one data set at a time")
        places = {name: index for index, name in enumerate(ids)}
        return np.array([(places[a], places[b]) for a, b in self.pairs], dtype=np.int64)

    def save(self, path: Path | str) -> None:
        """Write the list as JSON.

        Args:
            path: The file.

        Raises:
            OutputError: It cannot be written.
        """
        head: dict[str, Any] = {"format": FORMAT, "version": FORMAT_VERSION, "data": list(self.data)}
        value = {**head, "seed": self.seed, "num_asked": self.num_asked, "pairs": [list(pair) for pair in self.pairs]}
        write_json(Path(path), value)

    @classmethod
    def load(cls, path: Path | str) -> PairList:
        """Read what `save` wrote.

        Args:
            path: The file.

        Raises:
            DatasetError: There is none, or it is damaged or something else.
        """
        value = read_json(Path(path), DatasetError, "give a pair list that a swap test has saved")
        if value.get("format") != FORMAT or value.get("version") != FORMAT_VERSION:
            raise DatasetError(f"{path} is no pair list of this divid: give one that a swap test has saved")
        try:
            pairs = tuple((str(a), str(b)) for a, b in value["pairs"])
            made = cls(pairs, int(value["seed"]), int(value["num_asked"]), tuple(map(str, value["data"])))
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"the pair list {path} is damaged ({error}): draw a new one") from error
        if not pairs:
            raise DatasetError(f"the pair list {path} holds no pair: draw a new one")
        return made


def _full_labels(clips: ClipDataset) -> tuple[np.ndarray, np.ndarray]:
    """Give the clips that have all their labels, and their class numbers by clip and factor."""
    info = clips.info
    for kind in KINDS:
        if not info.factors[kind]:
            raise DatasetError(f"the clips have no {kind} factor, so a swap cannot be judged: prepare the data with labels")
    places = {name: {label: number for number, label in enumerate(classes)} for name, classes in info.classes.items()}
    rows = [clips.labels(index) for index in range(len(clips))]
    labelled = [index for index, row in enumerate(rows) if None not in row.values()]
    if not labelled:
        raise DatasetError(f"none of the {len(clips)} clips has all its labels, so no swap can be judged: label them")
    if len(labelled) < len(clips):
        logger.warning("%d of %d clips lack a label and are left out of the swap test", len(clips) - len(labelled), len(clips))
    labels = np.array([[places[name][str(rows[index][name])] for name in places] for index in labelled])
    for column, name in enumerate(places):
        if len(set(labels[:, column].tolist())) < 2:
            only = info.classes[name][labels[0, column]]
            raise DatasetError(f"all labelled clips have the class {only!r} of {name!r}: a swap needs clips of two classes")
    return np.array(labelled), labels


def _differs(labels: np.ndarray, row: int) -> np.ndarray:
    return (labels != labels[row]).all(axis=1)
