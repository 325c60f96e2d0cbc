"""Making the cells that are missing: train, judge, write the numbers; what is there already stays."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from divid.benchmark.cells import (
    REMAKE,
    RESULT_FORMAT,
    RESULT_VERSION,
    BenchmarkFolder,
    CellFolder,
    DataFolder,
    settle,
)
from divid.benchmark.found_runs import check_found_run
from divid.benchmark.locks import FileLock, Holder, folder_time, try_lock
from divid.benchmark.plan import CellSpec, Plan, cell_settings, clip_shape, default_settings, dump_plan, judge_settings
from divid.benchmark.scoring import Clips, save_figure, score_cell
from divid.data.clips import ClipDataset
from divid.errors import DatasetError, DividError, InputError, MissingExtraError, ModelError, TrainingError, TrainingStopped
from divid.evaluation.codes import Told
from divid.evaluation.features import open_network
from divid.evaluation.judge import TRUSTED_ACCURACY, Judge
from divid.evaluation.judging import plot_confusion, train_judge
from divid.evaluation.leakage import check_labels
from divid.evaluation.pairs import PairList
from divid.evaluation.realism import FeatureNetwork
from divid.export import load_model
from divid.json_files import read_json, write_json
from divid.outputs import atomic_path, write_image
from divid.training.checkpoints import find_checkpoint
from divid.training.fit import choose_device, train
from divid.training.run_folder import describe_machine, describe_run, fingerprint, git_commit

logger = logging.getLogger("divid")

POLL_SECONDS = 1.0
"""Pause between two looks at a judge that another process trains."""

Outcome = Literal["done", "failed", "held"]
Bars = Callable[[], contextlib.AbstractContextManager[Told | None]]


@dataclass
class Summary:
    """How the work ended.

    Args:
        done: Names of the cells that have their numbers, made now or before.
        failed: Why cells failed, in one line, by name.
        held: Names of the cells that other processes work on, or that wait for such a one.
    """

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    held: list[str] = field(default_factory=list)


def check_plan(plan: Plan, cells: Sequence[CellSpec], folder: BenchmarkFolder) -> None:
    """Check, before any work, that the plan can be run in this folder, and write it there.

    Args:
        plan: What is asked for.
        cells: All cells of the plan.
        folder: Where.

    Raises:
        ConfigError: A cell, or a judge, was begun there with other settings, or a run put there is not the cell's.
        MissingExtraError: Leakage or realism is asked for, and what it needs is not installed.
        ModelError: The feature network's weights are missing, damaged or another network's.
        OutputError: The folder cannot be written.
    """
    if plan.evaluation.leakage and importlib.util.find_spec("sklearn") is None:
        raise MissingExtraError("scikit-learn", "eval", "measuring leakage (which evaluation.leakage: false leaves out)")
    if plan.evaluation.realism:
        if importlib.util.find_spec("torchmetrics") is None:
            raise MissingExtraError("torchmetrics", "eval", "measuring realism (which evaluation.realism: false leaves out)")
        open_network(plan.evaluation.feature_network, plan.evaluation.feature_weights)
    prints = {name: fingerprint(Path(entry.path)) for name, entry in plan.data.items()}
    for name, data_print in prints.items():
        data = folder.data(name)
        if data.has_judge:
            settle(data.settings, _data_settings(plan, name, data_print), f"the judge of {name}")
    for spec in cells:
        cell = folder.cell(spec.name)
        if cell.settings.is_file() and cell.has_work:
            settings = {**cell_settings(spec, plan), "clips": prints[spec.data]}
            settle(cell.settings, settings, f"cell {spec.name}", default_settings(spec))
        elif cell.has_model:
            check_found_run(spec, cell, prints[spec.data])
    folder.path.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder.plan) as temporary:
        temporary.write_text(dump_plan(plan), encoding="utf-8")


def run_cells(
    plan: Plan,
    cells: Sequence[CellSpec],
    folder: BenchmarkFolder,
    *,
    device: str = "auto",
    command: str = "",
    progress: bool = True,
    bars: Bars = contextlib.nullcontext,
) -> Summary:
    """Make those of some cells that are missing and that nobody else works on.

    A cell that fails is reported in one line, and the others go on. A cell that another process holds is left to it.

    Args:
        plan: What is asked for, checked by `check_plan`.
        cells: This process's share.
        folder: Where.
        device: `auto`, `cpu` or `cuda`.
        command: What is written down as the command that made a cell.
        progress: Show the progress of training on the standard error output.
        bars: Gives what hears of the progress of judge and evaluation, while it lasts.

    Raises:
        ConfigError: There is no such device.
        TrainingStopped: A signal ended a training; a checkpoint is saved, and the same command goes on there.
        OutputError: The folder cannot be written.
    """
    worker = _Worker(plan, folder, choose_device(device), command, progress, bars, folder_time(folder.path))
    summary, open_cells = Summary(), list(cells)
    while open_cells:
        outcomes = {spec.name: worker.attempt(spec) for spec in open_cells}
        summary.done += [name for name, outcome in outcomes.items() if outcome == "done"]
        held = [spec for spec in open_cells if outcomes[spec.name] == "held"]
        if len(held) == len(open_cells):
            break
        open_cells = held
    summary.held = [spec.name for spec in open_cells]
    summary.failed = dict(worker.failures)
    for name in summary.held:
        logger.info("cell %s: left open, %s", name, folder.cell(name).state()[1] or "its model is not there yet")
    return summary


@dataclass
class _Worker:
    """Makes cells one by one."""

    plan: Plan
    folder: BenchmarkFolder
    device: str
    command: str
    progress: bool
    bars: Bars
    began: float
    commit: str | None = field(default_factory=git_commit)
    """Of the program when it began: what lies in its folder later may be another."""
    failures: dict[str, str] = field(default_factory=dict)
    clips: dict[str, Clips] = field(default_factory=dict)
    broken_data: dict[str, str] = field(default_factory=dict)

    def attempt(self, spec: CellSpec) -> Outcome:
        """Make a cell if it is missing and free."""
        cell = self.folder.cell(spec.name)
        if cell.is_done:
            return "done"
        if self._has_just_failed(cell):
            return self._fail(spec, cell, cell.read_failure(), is_new=False)
        lock = try_lock(cell.lock, f"cell {spec.name}")
        if lock is None:
            return "held"
        with lock:
            if cell.is_done:
                return "done"
            try:
                return "done" if self._make(spec, cell, lock) else "held"
            except TrainingStopped as stop:
                number = signal.Signals(stop.exit_code - 128)
                line = f"cell {spec.name}: stopped by {number.name}, a checkpoint is saved: go on with the same command"
                raise TrainingStopped(line, number) from stop
            except DividError as error:
                return self._fail(spec, cell, " ".join(str(error).split()))
            except Exception as error:  # a fault of ours in one cell: the others are still wanted
                line = " ".join(f"internal error: {type(error).__name__}: {error}".split())[:500]
                return self._fail(spec, cell, line, trace=traceback.format_exc())

    def _has_just_failed(self, cell: CellFolder) -> bool:
        """Tell whether another process that works at the same time has found the cell to fail."""
        return cell.failure.is_file() and cell.failure.stat().st_mtime > self.began

    def _fail(self, spec: CellSpec, cell: CellFolder, line: str, *, is_new: bool = True, trace: str = "") -> Outcome:
        self.failures[spec.name] = line
        if is_new:
            write_json(cell.failure, {"error": line, "time": _now(), "traceback": trace})
            if spec.data not in self.broken_data:
                logger.error("cell %s failed: %s", spec.name, line)
        return "failed"

    @contextlib.contextmanager
    def _saying_once(self, data: str) -> Iterator[None]:
        """Say what is wrong with a data set once, not for each of its cells."""
        try:
            yield
        except DividError as error:
            if data not in self.broken_data:
                self.broken_data[data] = " ".join(str(error).split())
                logger.error("all cells on %s fail: %s", data, self.broken_data[data])
            raise

    def _make(self, spec: CellSpec, cell: CellFolder, lock: FileLock) -> bool:
        """Train, judge and write; False if the cell has to wait for another one's model."""
        began = _now()
        clips, pairs = self._open(spec)
        if not self._has_model(spec):
            return False
        data = self.folder.data(spec.data)
        settings = {**cell_settings(spec, self.plan), "clips": fingerprint(Path(self.plan.data[spec.data].path))}
        if not cell.has_work:  # nothing would be lost, so the plan may have been mended
            cell.settings.unlink(missing_ok=True)
            shutil.rmtree(cell.run, ignore_errors=True)
        settle(cell.settings, settings, f"cell {spec.name}", default_settings(spec))
        self._train_judge(spec, clips, data, wait=False)
        run = self.folder.cell(spec.trainer).run
        if not self.folder.cell(spec.trainer).has_model:
            logger.info("cell %s: training", spec.name)
            self._train(spec, cell)
        judge = self._train_judge(spec, clips, data, wait=True)
        assert judge is not None
        logger.info("cell %s: measuring", spec.name)
        model: Any = load_model(run)[0]
        model, options = model.to(self.device).eval(), self.plan.evaluation
        with self.bars() as told:
            score = score_cell(model, judge.to(self.device), clips, pairs, spec, options, told, self._network())
        if not lock.is_held:
            raise TrainingError("its lock was lost to another process while this one was suspended: that one's result counts")
        save_figure(cell.figure, score.figure)
        cell.failed_swaps.unlink(missing_ok=True)
        if score.failed_swaps is not None:
            write_image(cell.failed_swaps, score.failed_swaps)
        for name in ("swaps", "leakage", "sampled", "likeness", "ground_truth"):
            if score.numbers[name] is not None:
                write_json(cell.path / f"{name}.json", score.numbers[name])
        write_json(cell.result, self._result(spec, run, score.numbers, began))
        cell.failure.unlink(missing_ok=True)
        joint = score.numbers["swaps"]["rows"]["swap"]["joint"]["rate"]
        logger.info("cell %s: done, joint %.1f %% of %d swaps", spec.name, 100 * joint, len(pairs))
        return True

    def _open(self, spec: CellSpec) -> tuple[Clips, PairList]:
        """Open a data set's clips and its pair list, which is drawn once."""
        if spec.data in self.broken_data:
            raise DatasetError(self.broken_data[spec.data])
        data, options, is_new = self.folder.data(spec.data), self.plan.evaluation, spec.data not in self.clips
        with self._saying_once(spec.data):
            if is_new:
                self.clips[spec.data] = self._open_clips(spec)
            clips = self.clips[spec.data]
            pairs = PairList.load(data.pairs) if data.pairs.is_file() else None
            if pairs is None or (pairs.seed, pairs.num_asked) != (options.pairs_seed, options.swap_pairs):
                pairs = PairList.draw(clips.test, options.swap_pairs, options.pairs_seed)
                pairs.save(_in_folder(data.pairs))
            if is_new and options.leakage:
                labels = [[part.labels(index) for index in range(len(part))] for part in (clips.train, clips.test)]
                check_labels(labels[0], labels[1], clips.test.info.factors)
        return clips, pairs

    def _network(self) -> FeatureNetwork | None:
        """Open the feature network where realism is measured."""
        options = self.plan.evaluation
        return open_network(options.feature_network, options.feature_weights, self.device) if options.realism else None

    def _open_clips(self, spec: CellSpec) -> Clips:
        path, (_, size, channels) = self.plan.data[spec.data].path, clip_shape(spec.recipe)
        parts = [ClipDataset.open(path, split=split, image_size=size, channels=channels) for split in ("train", "test")]
        return Clips(*parts)

    def _has_model(self, spec: CellSpec) -> bool:
        """Tell whether the cell trains its model itself, or the model it takes is there."""
        if not spec.model_of or self.folder.cell(spec.trainer).has_model:
            return True
        if spec.trainer in self.failures:
            raise ModelError(f"the cell {spec.trainer}, whose model it takes, failed")
        return False

    def _train_judge(self, spec: CellSpec, clips: Clips, data: DataFolder, *, wait: bool) -> Judge | None:
        """Give a data set's judge, trained if need be; if another process trains it, wait for it or give None."""
        is_said = False
        while not data.has_judge:
            lock = try_lock(data.lock, f"judge of {spec.data}")
            if lock is None:
                if not wait:
                    return None
                if not is_said:
                    holder = Holder.read(data.lock) or "another process"
                    logger.info("judge of %s: waiting for %s, which trains it", spec.data, holder)
                    is_said = True
                time.sleep(POLL_SECONDS)
                continue
            with lock, self._saying_once(spec.data):
                if data.has_judge:
                    break
                logger.info("judge of %s: training", spec.data)
                settings = _data_settings(self.plan, spec.data, fingerprint(Path(self.plan.data[spec.data].path)))
                write_json(data.settings, settings)
                options = self.plan.judge_of(spec.data).training(clip_shape(spec.recipe)[0])
                with self.bars() as told:
                    judge = train_judge(clips.train, clips.test, options, device=self.device, told=told)
                self._save_judge(spec.data, judge, data)
        return Judge.load(data.judge)

    def _save_judge(self, name: str, judge: Judge, data: DataFolder) -> None:
        held_out = judge.held_out
        assert held_out is not None
        for factor, classes in judge.config.classes.items():
            picture = _in_folder(data.judge / f"confusion_{factor}.png")
            plot_confusion(held_out.confusion[factor], classes, f"{factor}: {name}, held-out real clips", picture)
        judge.save(data.judge)
        joint = 100 * held_out.joint.rate
        logger.info("judge of %s: %.1f %% joint of %d held-out real clips", name, joint, held_out.joint.num)
        if not judge.is_trusted:
            least = 100 * TRUSTED_ACCURACY
            logger.warning("judge of %s: under %.0f %% joint, so every result of it is marked", name, least)

    def _train(self, spec: CellSpec, cell: CellFolder) -> None:
        """Train a cell's model, or go on where its training was broken off."""
        has_begun = (cell.run / "recipe.yaml").is_file() and (cell.run / "run.json").is_file()
        if cell.run.exists() and not has_begun:  # killed while it laid out its folder
            shutil.rmtree(cell.run)
        path = self.plan.data[spec.data].path
        train(spec.recipe, [path], cell.run, resume=has_begun, device=self.device, progress=self.progress)

    def _result(self, spec: CellSpec, run: Path, numbers: dict[str, Any], began: str) -> dict[str, Any]:
        checkpoint = find_checkpoint(run / "checkpoints")[1]
        info = describe_run(spec.recipe, [Path(self.plan.data[spec.data].path)], self.device)
        made = {
            "command": self.command,
            "git_commit": self.commit,
            "machine": describe_machine(),
            "device": info["device"],
            "versions": info["versions"],
            "process": os.getpid(),
            "began": began,
            "ended": _now(),
        }
        return {
            "format": RESULT_FORMAT,
            "version": RESULT_VERSION,
            "cell": spec.name,
            "data": spec.data,
            "method": spec.method,
            "seed": spec.seed,
            "training": {
                "steps": checkpoint["global_step"],
                "seconds": checkpoint["callbacks"]["Stopper"]["seconds"],
                "git_commit": read_json(run / "run.json", InputError, REMAKE).get("git_commit"),
            },
            **numbers,
            "made": made,
        }


def _data_settings(plan: Plan, data: str, data_print: str) -> dict[str, Any]:
    pairs = {name: getattr(plan.evaluation, name) for name in ("swap_pairs", "pairs_seed")}
    return {**judge_settings(plan, data), **pairs, "clips": data_print}


def _in_folder(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
