"""From a source's files to a prepared data set: parallel, resumable, in bounded memory.

The recordings are dealt out to shards by their place in the listing alone, so neither the number of processes nor an interruption
changes a byte. A worker writes a whole shard; its report under `.work` says that it is done. `dataset.json` comes last.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from divid.data.plan import Plan
from divid.data.schema import (
    CACHE_FOLDER,
    INFO_NAME,
    REMAKE,
    SHARD_FOLDER,
    SHEET_NAME,
    WORK_FOLDER,
    Factors,
    label_columns,
    make_schema,
    read_info,
)
from divid.data.shards import ShardJob, ShardReport, ShardWriter
from divid.data.sources import find_source
from divid.data.sources.base import PosedSource, Source, SourceOptions
from divid.errors import ConfigError, DatasetError, OutputError
from divid.json_files import read_json, write_json
from divid.outputs import write_failure, write_image

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger("divid")

SHEET_ROWS = 12
PLAN_NAME = "plan.json"

ProgressCallback = Callable[[int, int], None]
"""Told (recordings done, recordings in all)."""


@dataclass(frozen=True)
class PrepareSummary:
    """What a prepared data set holds.

    Args:
        folder: The data set.
        info: The contents of `dataset.json`.
        num_bytes: Size of the shards on disk.
        is_new: False if the data set was complete already and nothing was done.
    """

    folder: Path
    info: dict[str, Any]
    num_bytes: int
    is_new: bool


def prepare(
    source_name: str,
    folder: Path | str | None,
    out: Path | str,
    *,
    options: SourceOptions | None = None,
    num_processes: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> PrepareSummary:
    """Turn a source's recordings into a data set, or go on where a killed call stopped.

    With more than one process, a script that calls this needs the usual `if __name__ == "__main__":`.

    Args:
        source_name: A key of `SOURCES`.
        folder: The source's files; None for a generated source.
        out: Folder of the data set.
        options: What a person may choose.
        num_processes: Worker processes; by default one a processor.
        strict: Fail at the first recording that cannot be read, instead of skipping it.
        overwrite: Replace a data set at `out` that came from other options or files.
        progress: Told of the progress.

    Raises:
        ConfigError: An option is wrong.
        InputError: The source's folder cannot be used.
        OutputError: The data set cannot be written, or something else lies at `out`.
        DatasetError: No recording could be read; or one could not, and `strict` is set.
    """
    options = (options or SourceOptions()).validate()
    if num_processes is not None and num_processes < 1:
        raise ConfigError(f"number of processes is {num_processes}, must be at least 1")
    out, root = Path(out), None if folder is None else Path(folder)
    _check_out(out, root)
    plan = Plan.make(find_source(source_name), root, options)
    if finished := _finished(plan, out, strict=strict, overwrite=overwrite):
        return finished
    _start(plan, out, overwrite=overwrite)
    jobs = plan.jobs(out, strict)
    reports = _run(plan, out, jobs, num_processes or num_processors(), progress)
    if not any(report.num_clips for report in reports):
        reason = next(reason for report in reports for _, reason in report.skipped)
        raise DatasetError(f"none of the {len(plan.items)} recordings could be read, so nothing was made; the first: {reason}")
    info = plan.info(reports)
    _draw_sheet(out, info)
    write_json(out / INFO_NAME, info)
    shutil.rmtree(out / WORK_FOLDER, ignore_errors=True)
    return PrepareSummary(out, info, num_bytes(out, info), is_new=True)


def _check_out(out: Path, root: Path | None) -> None:
    if not out.parent.is_dir():
        raise OutputError(f"{out}: the folder {out.parent} does not exist: create it, or give another --out")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file: --out is the folder of the new data set")
    if root is not None and root.is_dir() and out.resolve().is_relative_to(root.resolve()):
        raise OutputError(f"{out}: lies in the source folder {root} itself: give an --out outside of it")


def _finished(plan: Plan, out: Path, *, strict: bool, overwrite: bool) -> PrepareSummary | None:
    """Give the summary of a complete data set that this call would only make again."""
    if not (out / INFO_NAME).is_file():
        return None
    if overwrite:
        try:
            info = read_info(out)
        except DatasetError:
            return None
    else:
        info = read_info(out)
    wanted = plan.fingerprint()
    if any(info.get(key) != value for key, value in wanted.items()):
        if overwrite:
            return None
        difference = _difference(info, wanted)
        raise OutputError(f"{out} holds a data set made {difference}: give another --out, or --overwrite to replace it")
    if strict and info.get("skipped"):
        raise DatasetError(f"{info['skipped'][0]['reason']} (--strict; the data set at {out} was made without it)")
    if any(not (out / shard["file"]).is_file() for shard in info["shards"]):
        if overwrite:
            return None
        raise DatasetError(f"{out} lacks some of its shards: prepare it again with --overwrite")
    return PrepareSummary(out, info, num_bytes(out, info), is_new=False)


def _difference(info: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Say in what a data set differs from the wanted one."""
    if info.get("version") != wanted["version"]:
        return f"in format version {info.get('version')}"
    if info.get("source") != wanted["source"]:
        return f"from the source {info.get('source')}"
    options = info.get("options", {})
    for name, value in wanted["options"].items():
        if options.get(name) != value:
            return f"with {name} = {options.get(name)}, not {value}"
    return "from other files (the listing of the source differs)"


def _start(plan: Plan, out: Path, *, overwrite: bool) -> None:
    """Make the folders, or clear away what is to be replaced; what an interrupted call with the same plan left stays."""
    plan_path = out / WORK_FOLDER / PLAN_NAME
    wanted = plan.fingerprint()
    if out.is_dir() and any(out.iterdir()):
        is_ours = plan_path.is_file() or (out / INFO_NAME).is_file()
        if not is_ours:
            raise OutputError(f"{out}: holds files that are no data set of divid's: give --out a new folder")
        if (out / INFO_NAME).is_file() or not plan_path.is_file() or read_json(plan_path, DatasetError, REMAKE) != wanted:
            if not overwrite:
                difference = _difference(read_json(plan_path, DatasetError, REMAKE), wanted)
                raise OutputError(f"{out} holds an unfinished data set made {difference}: give another --out, or --overwrite")
            _clear(out)
    try:
        for folder in (out, out / SHARD_FOLDER, out / WORK_FOLDER):
            folder.mkdir(exist_ok=True)
        for left_over in (out / SHARD_FOLDER).glob(".divid-*"):
            left_over.unlink()
    except OSError as error:
        raise write_failure(out, error) from error
    write_json(plan_path, wanted)


def _clear(out: Path) -> None:
    # dataset.json goes first: a set that lost only some of its files must not look complete.
    for name in (INFO_NAME, SHEET_NAME):
        (out / name).unlink(missing_ok=True)
    for name in (SHARD_FOLDER, CACHE_FOLDER, WORK_FOLDER):
        shutil.rmtree(out / name, ignore_errors=True)


def _run(
    plan: Plan, out: Path, jobs: Sequence[ShardJob], num_processes: int, progress: ProgressCallback | None
) -> list[ShardReport]:
    """Write the shards that are missing.

    Returns:
        The reports of all shards, in order.
    """
    schema = make_schema(plan.factors, has_poses=isinstance(plan.source, PosedSource))
    reports = {job.index: report for job in jobs if (report := _saved_report(job, out)) is not None}
    sizes = {job.index: len(job.items) for job in jobs}
    missing = [job for job in jobs if job.index not in reports]
    if missing and reports:
        logger.info("going on where an earlier call stopped: %d of %d shards are done", len(reports), len(jobs))

    def finish(report: ShardReport) -> None:
        for file, reason in report.skipped:
            logger.warning("skipped %s: %s", file, reason)
        write_json(_report_path(out, report.index), asdict(report))
        reports[report.index] = report
        if progress is not None:
            progress(sum(sizes[index] for index in reports), len(plan.items))

    if progress is not None:
        progress(sum(sizes[index] for index in reports), len(plan.items))
    if min(num_processes, len(missing)) <= 1:
        writer = ShardWriter(plan.source, plan.root, plan.factors, schema)
        for job in missing:
            finish(writer.write(job))
    else:
        _run_in_processes(plan, schema, missing, min(num_processes, len(missing)), finish)
    return [reports[job.index] for job in jobs]


def _run_in_processes(
    plan: Plan, schema: pa.Schema, jobs: Sequence[ShardJob], num_processes: int, finish: Callable[[ShardReport], None]
) -> None:
    # Fresh interpreters: a forked one could inherit a lock that another thread of this process holds.
    context = multiprocessing.get_context("spawn")
    arguments = (type(plan.source), plan.root, plan.options, plan.factors, schema, os.getpid())
    with ProcessPoolExecutor(num_processes, mp_context=context, initializer=_start_worker, initargs=arguments) as pool:
        with _one_thread_each():
            futures: list[Future[ShardReport]] = [pool.submit(_write_in_worker, job) for job in jobs]
        try:
            for future in as_completed(futures):
                finish(future.result())
        except BrokenProcessPool as error:
            raise DatasetError(
                "a worker process died, most likely for lack of memory: give the same command again with fewer --processes, "
                "it goes on from here"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes that are started here compute in one thread: with one process a processor, more only wait for each other."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_writer: ShardWriter | None = None
"""A worker process's own writer."""


def _start_worker(
    source_class: type, root: Path | None, options: SourceOptions, factors: Factors, schema: pa.Schema, parent: int
) -> None:
    global _writer
    # Ctrl-C ends a worker at once, without a traceback; the main process says what there is to say.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    source: Source = source_class(root, options)
    _writer = ShardWriter(source, root, factors, schema)
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()


def _exit_with_parent(parent: int, interval_seconds: float = 1.0) -> None:
    """End this worker when the process that started it was killed: nobody would ever take its results."""
    while os.getppid() == parent:
        time.sleep(interval_seconds)
    os._exit(1)


def _write_in_worker(job: ShardJob) -> ShardReport:
    assert _writer is not None
    return _writer.write(job)


def _report_path(out: Path, index: int) -> Path:
    return out / WORK_FOLDER / f"shard-{index:05d}.json"


def _saved_report(job: ShardJob, out: Path) -> ShardReport | None:
    path = _report_path(out, job.index)
    if not path.is_file():
        return None
    report = ShardReport(**read_json(path, DatasetError, REMAKE))
    if job.is_strict and report.skipped:
        raise DatasetError(f"{report.skipped[0][1]} (--strict; without it the recording is skipped)")
    return report if job.path.is_file() or report.num_clips == 0 else None


def _draw_sheet(out: Path, info: dict[str, Any]) -> None:
    """Draw the first clip of up to 12 shards: what a person should look at before training on them."""
    import pyarrow.parquet as pq

    from divid.sheets import contact_sheet

    columns = label_columns(info["factors"])
    shards = info["shards"]
    places = sorted({round(place) for place in np.linspace(0, len(shards) - 1, min(SHEET_ROWS, len(shards)))})
    rows = []
    for place in places:
        with pq.ParquetFile(out / shards[place]["file"]) as file:
            row = next(file.iter_batches(batch_size=1)).to_pylist()[0]
        shape = (row["num_frames"], row["height"], row["width"], row["channels"])
        rows.append((_caption(row, columns), np.frombuffer(row["frames"], dtype=np.uint8).reshape(shape)))
    title = f"{info['source']}: {info['num_clips']} clips, {info['num_frames']} frames"
    write_image(out / SHEET_NAME, contact_sheet(rows, title=title))


def _caption(row: dict[str, Any], columns: dict[str, list[str]]) -> str:
    """Name a clip and its classes; a class that is only a number stands with its factor."""
    lines: dict[str, list[str]] = {}
    for column, classes in columns.items():
        kind, name = column.split(".", 1)
        if row[column] is not None:
            label = classes[row[column]]
            lines.setdefault(kind, []).append(f"{name} {label}" if label.isdecimal() else label)
    return "\n".join([row["id"], *(", ".join(labels) for labels in lines.values())])


def num_bytes(folder: Path, info: dict[str, Any]) -> int:
    """Give the size of a data set's shards on disk.

    Args:
        folder: The data set.
        info: Its `dataset.json`.
    """
    return sum((folder / shard["file"]).stat().st_size for shard in info["shards"])


def num_processors() -> int:
    """Give the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
