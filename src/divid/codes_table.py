"""Codes of many videos as one Parquet file: a row a video."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import torch

from divid.errors import InputError
from divid.outputs import atomic_path
from divid.rendering import Recording
from divid.types import Codes

FORMAT_KEY, FORMAT_NAME = b"divid.format", b"codes-1"

SCHEMA = pyarrow.schema(
    [
        ("file", pyarrow.string()),
        ("fps", pyarrow.float64()),
        ("num_frames", pyarrow.int64()),
        ("static", pyarrow.list_(pyarrow.float32())),
        ("dynamic", pyarrow.list_(pyarrow.list_(pyarrow.float32()))),
    ],
    metadata={FORMAT_KEY: FORMAT_NAME},
)


def write_codes(recordings: Iterable[Recording], out: Path, *, root: Path | None = None, model: str = "") -> int:
    """Write codes as they come, atomically and in bounded memory.

    Args:
        recordings: Encoded videos.
        out: The Parquet file.
        root: Folder to which the file names are relative; default: as they were given.
        model: What made the codes; kept in the file's metadata.

    Returns:
        The number of rows.

    Raises:
        OutputError: The file cannot be written; one that was there stays as it was.
    """
    schema = SCHEMA.with_metadata({**(SCHEMA.metadata or {}), b"divid.model": model.encode()})
    num_rows = 0
    with atomic_path(out) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for recording in recordings:
            row = {
                "file": str(recording.path.relative_to(root) if root else recording.path),
                "fps": recording.fps,
                "num_frames": recording.num_frames,
                "static": recording.codes.static[0].tolist(),
                "dynamic": recording.codes.dynamic[0].tolist(),
            }
            writer.write_table(pyarrow.Table.from_pylist([row], schema=schema))
            num_rows += 1
    return num_rows


def read_codes(path: Path) -> dict[str, Codes]:
    """Read what `write_codes` wrote.

    Args:
        path: The Parquet file.

    Returns:
        File name -> codes of one clip.

    Raises:
        InputError: The file cannot be read, or is another kind of Parquet.
    """
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if (table.schema.metadata or {}).get(FORMAT_KEY) != FORMAT_NAME:
        raise InputError(f"{path} holds no codes of divid: give a file that divid encode wrote")
    return {
        row["file"]: Codes(torch.tensor(row["static"]).unsqueeze(0), torch.tensor(row["dynamic"]).unsqueeze(0))
        for row in table.to_pylist()
    }
