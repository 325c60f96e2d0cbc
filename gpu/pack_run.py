"""Pack a run for the way home: the model in bf16 in parts of at most 16 MiB, its record, the newest sheet, its metrics.

    python gpu/pack_run.py RUN OUT

Put the model together again with `cat OUT/model.tar.* | tar x`.
"""

from __future__ import annotations

import csv
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

PART_BYTES = 15 * 2**20
COLUMNS = ("step", "train/total", "validation/total", "validation/psnr", "speed/clips_per_second")


def as_bf16(folder: Path) -> None:
    """Round the weights in a folder to bf16, in their place.

    Args:
        folder: A copy of a model.
    """
    for path in folder.rglob("*.safetensors"):
        weights = {key: w.to(torch.bfloat16) if w.is_floating_point() else w for key, w in load_file(path).items()}
        save_file(weights, path, metadata={"format": "pt"})


def write_parts(whole: Path, out: Path) -> list[Path]:
    """Write a file in parts of at most `PART_BYTES`, `NAME.00` and so on.

    Args:
        whole: The file.
        out: Folder for the parts.

    Returns:
        The parts.
    """
    parts: list[Path] = []
    with whole.open("rb") as stream:
        while block := stream.read(PART_BYTES):
            parts.append(out / f"{whole.name}.{len(parts):02d}")
            parts[-1].write_bytes(block)
    return parts


def pack_model(model: Path, out: Path) -> list[Path]:
    """Write a model folder as the parts of a tar file, its weights rounded to bf16.

    Args:
        model: The model folder.
        out: Folder for the parts.

    Returns:
        The parts.
    """
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "model"
        shutil.copytree(model, copy)
        as_bf16(copy)
        whole = Path(name) / "model.tar"
        with tarfile.open(whole, "w") as tar:
            tar.add(copy, "model")
        return write_parts(whole, out)


def read_rows(path: Path) -> list[dict[str, float]]:
    """Read metrics.csv, without the seconds that Lightning takes to load behind divid's own reader.

    Args:
        path: The file; a missing one has no rows. A last line that a kill cut is left out.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    complete = [line for line in lines if line.endswith("\n")]
    return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(complete)]


def print_metrics(path: Path, rows: int = 12) -> None:
    """Print some rows of metrics.csv, evenly spread, and every validation.

    Args:
        path: The file.
        rows: About how many of training.
    """
    records = read_rows(path)
    every = max(1, len(records) // rows)
    print(" ".join(f"{name:>22}" for name in COLUMNS))
    for place, record in enumerate(records):
        if place % every == 0 or "validation/psnr" in record or place == len(records) - 1:
            print(" ".join(f"{record.get(name, float('nan')):>22.6g}" for name in COLUMNS).replace("nan", "   "))


def main(run: str, out: str) -> None:
    """Pack what is there (a run that is not finished has no model yet), then print.

    Args:
        run: The run folder.
        out: Where the files go.
    """
    source, target = Path(run), Path(out)
    target.mkdir(parents=True, exist_ok=True)
    files = pack_model(source / "model", target) if (source / "model").is_dir() else []
    samples = source / "samples"
    record = [source / name for name in ("recipe.yaml", "run.json", "metrics.csv")]
    for path in [*record, samples / "loss.png", *sorted(samples.glob("step_*.png"))[-1:]]:
        if path.is_file():
            files.append(Path(shutil.copy(path, target / path.name)))
    for path in files:
        print(f"{path}: {path.stat().st_size / 2**20:.2f} MiB")
    print_metrics(source / "metrics.csv")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
