"""Labels of a folder's recordings: from a pattern of their paths, or from a CSV table."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from divid.errors import ConfigError, InputError, nearest
from divid.outputs import describe

DYNAMIC_NAMES = ("action", "motion", "emotion", "expression")
"""Names in a layout that are dynamic factors without saying so."""
SPLITS = ("train", "test")

_FIELD = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"(?:(static|dynamic)\.)?([A-Za-z][\w-]*)")


@dataclass(frozen=True)
class Label:
    """What is known about a recording.

    Args:
        classes: Class by factor.
        split: `train` or `test`, where it is stated.
        trial: Number of the repetition, where it is stated.
    """

    classes: dict[str, str]
    split: str | None = None
    trial: int | None = None


class Layout:
    """A pattern of paths such as `{subject}/{action}`, each name in braces a factor.

    It is compared with the path of a recording under the folder, without its ending; the pattern may end at any folder above the
    recording. Names of `DYNAMIC_NAMES`, and those written `{dynamic.NAME}`, are dynamic factors, all others static; `{_}` is any
    text that is no label.

    Args:
        pattern: The pattern.

    Raises:
        ConfigError: It names no factor, one factor twice, or something that is no name.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._names: list[str] = []
        static: list[str] = []
        dynamic: list[str] = []
        expression, position = "", 0
        for field in _FIELD.finditer(pattern):
            expression += re.escape(pattern[position : field.start()])
            position = field.end()
            if field[1] == "_":
                expression += "[^/]+?"
                continue
            kind, name = _parse_factor(field[1], f"the layout {pattern!r}")
            if name in self._names:
                raise ConfigError(f"the layout {pattern!r} names {name!r} twice")
            self._names.append(name)
            (dynamic if kind == "dynamic" or (kind is None and name in DYNAMIC_NAMES) else static).append(name)
            expression += "([^/]+?)"
        if not self._names:
            raise ConfigError(f"the layout {pattern!r} names no factor: write one in braces, such as {{subject}}/{{action}}")
        self._expression = re.compile(expression + re.escape(pattern[position:].rstrip("/")) + "(?:/.*)?")
        self.static_factors, self.dynamic_factors = tuple(static), tuple(dynamic)

    def match(self, path: PurePath) -> dict[str, str]:
        """Give the classes that a path states; none where it does not follow the pattern.

        Args:
            path: A recording's path under the folder, without its ending.
        """
        match = self._expression.fullmatch(path.as_posix())
        return {} if match is None else dict(zip(self._names, match.groups(), strict=True))


def read_labels_csv(path: Path, folder: Path) -> tuple[dict[Path, Label], tuple[str, ...], tuple[str, ...]]:
    """Read a table of labels: a column `file`, relative to the folder, and `static.NAME`, `dynamic.NAME`, `split`, `trial`.

    An empty cell is an unknown label.

    Args:
        path: The table.
        folder: Where the recordings lie.

    Returns:
        What is known of each file, the static and the dynamic factors.

    Raises:
        InputError: The table cannot be read, has a wrong column or value, or names a file that is not there.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = reader.fieldnames or []
            factors = _csv_factors(path, columns)
            labels: dict[Path, Label] = {}
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                file = folder / (row["file"] or "")
                if not row["file"] or not file.exists():
                    raise InputError(f"{where}: names {row['file']!r}, which is not in {folder}: correct it or take the line out")
                if file in labels:
                    raise InputError(f"{where}: {row['file']!r} is named a second time: take one of the lines out")
                labels[file] = _csv_label(row, factors, where)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: the table of labels cannot be read ({describe(error)}): give a CSV file in UTF-8") from error
    static = tuple(name for kind, name in factors.values() if kind == "static")
    dynamic = tuple(name for kind, name in factors.values() if kind == "dynamic")
    return labels, static, dynamic


def _csv_factors(path: Path, columns: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Give (kind, factor) by column."""
    if "file" not in columns:
        raise InputError(f"{path}: has no column 'file', got {', '.join(map(repr, columns)) or 'an empty table'}")
    factors: dict[str, tuple[str, str]] = {}
    for column in columns:
        if column in ("file", "split", "trial"):
            continue
        kind, name = _split_factor(column)
        if kind is None:
            allowed = ("file", "split", "trial", "static.NAME", "dynamic.NAME")
            raise InputError(f"{path}: unknown column {column!r}{nearest(column, allowed)}")
        if name in [other for _, other in factors.values()]:
            raise InputError(f"{path}: two columns are about {name!r}: take one out")
        factors[column] = (kind, name)
    return factors


def _csv_label(row: dict[str, str], factors: dict[str, tuple[str, str]], where: str) -> Label:
    if None in row or None in row.values():
        raise InputError(f"{where}: has not as many cells as the first line has names")
    split, trial = row.get("split") or None, row.get("trial") or None
    if split not in (None, *SPLITS):
        raise InputError(f"{where}: split is {split!r}, must be {' or '.join(SPLITS)}, or empty")
    if trial is not None and not trial.isdecimal():
        raise InputError(f"{where}: trial is {trial!r}, must be a whole number, or empty")
    classes = {name: row[column] for column, (_, name) in factors.items() if row[column]}
    return Label(classes, split, None if trial is None else int(trial))


def _split_factor(text: str) -> tuple[str | None, str]:
    match = _NAME.fullmatch(text)
    return (None, "") if match is None else (match[1], match[2])


def _parse_factor(text: str, where: str) -> tuple[str | None, str]:
    kind, name = _split_factor(text)
    if not name:
        raise ConfigError(f"{where} has {text!r} in braces: a factor is a word, or static.WORD or dynamic.WORD")
    return kind, name
