"""Pack a benchmark for the way home: report, judges and numbers as they are, models in bf16 in parts of at most 16 MiB.

    python gpu/pack_table.py RUN OUT [--methods divid]

Put the models together again with `cat OUT/models.tar.* | tar x`; their folders are those of the benchmark.
"""

from __future__ import annotations

import argparse
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from pack_run import as_bf16, write_parts

LEFT_OUT = {"model", "checkpoints", "tensorboard", "lock"}


def small_files(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what is large, or means nothing elsewhere.

    Args:
        entry: A file or folder.
    """
    return None if LEFT_OUT & set(Path(entry.name).parts) else entry


def pack_models(run: Path, out: Path, methods: str) -> list[Path]:
    """Write the models as the parts of a tar file.

    Args:
        run: The benchmark's folder.
        out: Folder for the parts.
        methods: Pattern of the methods' names.

    Returns:
        The parts.
    """
    with tempfile.TemporaryDirectory() as name:
        copies, whole = Path(name) / "copies", Path(name) / "models.tar"
        copies.mkdir()
        for model in sorted(run.glob("cells/*/*/*/run/model")):
            if fnmatchcase(model.parents[2].name, methods):
                copy = copies / model.relative_to(run)
                shutil.copytree(model, copy)
                as_bf16(copy)
        with tarfile.open(whole, "w") as tar:
            tar.add(copies, ".")
        return write_parts(whole, out) if any(copies.iterdir()) else []


def main(arguments: Sequence[str] | None = None) -> None:
    """Pack what is there.

    Args:
        arguments: What follows the script's name; default: the process's own.
    """
    parser = argparse.ArgumentParser(prog="gpu/pack_table.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="the benchmark's folder")
    parser.add_argument("out", type=Path, help="where the files go")
    parser.add_argument("--methods", default="*", help="whose models come along; * for anything")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(args.out / "table.tar.gz", "w:gz") as tar:
        tar.add(args.run, ".", filter=small_files)
    for path in [args.out / "table.tar.gz", *pack_models(args.run, args.out, args.methods)]:
        print(f"{path}: {path.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
