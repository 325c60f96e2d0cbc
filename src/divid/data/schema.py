"""The prepared data set on disk: names, columns, and `dataset.json` beside the shards.

One row is one clip: up to 512 frames, losslessly as raw uint8 bytes that zstd packs. A longer recording becomes consecutive rows
with one recording id. Any Parquet reader opens the shards; `datasets` finds the classes in their schema.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from divid.errors import DatasetError
from divid.json_files import read_json

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "divid-dataset"
FORMAT_VERSION = 1
MAX_FRAMES = 512
"""Most frames of a row."""
INFO_NAME = "dataset.json"
REMAKE = "prepare the data set again with --overwrite"
SHEET_NAME = "contact_sheet.png"
SHARD_FOLDER = "data"
WORK_FOLDER = ".work"
"""Reports of finished shards, while a data set is being prepared."""
CACHE_FOLDER = ".cache"
"""Where opening a data set lays the uncompressed table that is memory-mapped."""
POSES_COLUMN = "poses"
KINDS = ("static", "dynamic")

Factors = Mapping[str, Mapping[str, Collection[str]]]
"""Classes by factor, under the keys `static` and `dynamic`."""

_PLAIN_COLUMNS = {
    "id": "string", "recording": "string", "part": "int32", "split": "string", "trial": "int32", "fps": "float64",
    "num_frames": "int32", "height": "int32", "width": "int32", "channels": "int32",
}  # fmt: skip
_PROVENANCE_COLUMNS = {"source_file": "string", "source_sha256": "string", "extra": "string", "frames": "large_binary"}


def shard_name(index: int) -> str:
    """Give the file name of a shard, relative to the data set.

    Args:
        index: Its place.
    """
    return f"{SHARD_FOLDER}/shard-{index:05d}.parquet"


def label_columns(factors: Factors) -> dict[str, list[str]]:
    """Give the classes of every label column, by the column's name (`static.subject`, `dynamic.action`).

    Args:
        factors: Classes by factor.
    """
    return {f"{kind}.{name}": list(classes) for kind in KINDS for name, classes in factors[kind].items()}


def required_columns(factors: Factors) -> list[str]:
    """Give the names of the columns that every shard of a data set has.

    Args:
        factors: Classes by factor.
    """
    return [*_PLAIN_COLUMNS, *label_columns(factors), *_PROVENANCE_COLUMNS]


def make_schema(factors: Factors, *, has_poses: bool = False) -> pa.Schema:
    """Give the Arrow schema of a data set, which also tells `datasets` the classes.

    Args:
        factors: Classes by factor.
        has_poses: Add the column `poses`, by frame, joint and axis.
    """
    from datasets import ClassLabel, Features, List, Value

    plain = {name: Value(kind) for name, kind in _PLAIN_COLUMNS.items()}
    labels = {name: ClassLabel(names=classes) for name, classes in label_columns(factors).items()}
    provenance = {name: Value(kind) for name, kind in _PROVENANCE_COLUMNS.items()}
    poses = {POSES_COLUMN: List(List(List(Value("float32"))))} if has_poses else {}
    return Features({**plain, **labels, **poses, **provenance}).arrow_schema


def hash_files(paths: Sequence[Path]) -> str | None:
    """Give the SHA-256 of a file's bytes, or of the names and digests of several files.

    Args:
        paths: Files, and folders of which all files count; none gives None.
    """
    if not paths:
        return None
    if len(paths) == 1 and not paths[0].is_dir():
        return _digest(paths[0])
    files = [file for path in paths for file in (sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path])]
    lines = [f"{file.name} {_digest(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def relative_name(paths: Sequence[Path], root: Path | None) -> str | None:
    """Give the name of what a recording was read from, relative to the source's folder.

    Args:
        paths: The recording's files; of several, the first is named.
        root: The source's folder.
    """
    if not paths:
        return None
    path = paths[0]
    return path.relative_to(root).as_posix() if root is not None and path.is_relative_to(root) else path.as_posix()


def read_info(folder: Path) -> dict[str, Any]:
    """Read `dataset.json` of a prepared data set and check that it is one of this format.

    Args:
        folder: The data set.

    Raises:
        DatasetError: There is none, it is another project's, or a newer version's.
    """
    path = folder / INFO_NAME
    if not folder.exists():
        raise DatasetError(f"{folder} does not exist: make a data set with divid prepare")
    if not path.is_file():
        unfinished = (folder / WORK_FOLDER).is_dir()
        why = "it is unfinished: give the same divid prepare again" if unfinished else "make one with divid prepare"
        raise DatasetError(f"{folder} is no prepared data set (it has no {INFO_NAME}): {why}")
    info = read_json(path, DatasetError, REMAKE)
    if info.get("format") != FORMAT:
        raise DatasetError(f"{path} has format {info.get('format')!r}, not {FORMAT!r}: it was not made by divid prepare")
    version = info.get("version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise DatasetError(f"{folder} has format version {version!r}, this divid reads up to {FORMAT_VERSION}: update divid")
    missing = [key for key in ("image_size", "channels", "factors", "shards") if key not in info]
    if missing:
        raise DatasetError(f"{path} lacks {missing[0]!r}: prepare the data set again with --overwrite")
    return info


def _digest(file: Path) -> str:
    state = file.stat()
    return _cached_digest(file, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _cached_digest(file: Path, size: int, mtime_ns: int) -> str:
    """Hash a file once where many recordings are made from it; its size and time make up the key."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
