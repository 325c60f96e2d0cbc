"""The folder of a training run: what stands in it, and what may be resumed.

    recipe.yaml     the resolved recipe
    run.json        git commit, versions, device, data sets with fingerprints
    metrics.csv  tensorboard/  checkpoints/  samples/  model/

A resumed run must have the same recipe, up to `MAY_CHANGE`, and the same data.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from divid._version import __version__
from divid.config import Recipe
from divid.errors import ConfigError, OutputError, TrainingError
from divid.json_files import read_json, write_json
from divid.presets import fill_in_younger
from divid.recipes import changes_between, dump_recipe, flatten, read_yaml, recipe_from_values
from divid.training.checkpoints import TEMPORARY_ENDING
from divid.training.metrics import write_text

MAY_CHANGE = (
    "training.num_steps", "training.max_minutes", "training.fit_minutes", "training.checkpoint_minutes",
    "training.log_every_steps", "training.validate_every_steps", "training.num_validation_clips",
    "training.shard_optimizer", "training.shard_weights", "data.location", "data.num_workers", "model.num_train_steps",
)  # fmt: skip
"""Keys that a resumed run may have other values of: they change how long it is and what it shows, not the steps it makes."""


@dataclass(frozen=True)
class RunFolder:
    """Paths in a run's folder.

    Args:
        path: The folder.
    """

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def info(self) -> Path:
        """What else the run depended on."""
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        """All logged values."""
        return self.path / "metrics.csv"

    @property
    def checkpoints(self) -> Path:
        """What a run is resumed from."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """Pictures."""
        return self.path / "samples"

    @property
    def model(self) -> Path:
        """The exported pipeline."""
        return self.path / "model"

    def check(self, resume: bool, data: Sequence[Path]) -> None:
        """Check before any work that the folder can take the run.

        Args:
            resume: Whether a run is to be gone on with.
            data: The data sets, none of which may be the run's folder.

        Raises:
            OutputError: It is not empty, a file, a data set, or its parent is missing.
            TrainingError: There is no run to resume.
        """
        path = self.path
        if any(path.resolve() == Path(item).resolve() for item in data):
            raise OutputError(f"--out {path} is the data set itself: give the run a folder of its own")
        if resume:
            if not self.recipe.is_file():
                raise TrainingError(f"there is no checkpoint in {path} to resume from: train without --resume")
        elif path.exists() and not path.is_dir():
            raise OutputError(f"--out {path} is a file: give a folder that does not exist yet")
        elif path.is_dir() and any(path.iterdir()):
            raise OutputError(f"--out {path} is not empty: give another folder, or go on with that run by --resume")
        elif not path.parent.is_dir():
            raise OutputError(f"--out {path}: the folder {path.parent} does not exist: make it first")

    def create(self, recipe: Recipe, info: dict[str, Any]) -> None:
        """Make the folder and write down what the run depends on.

        Args:
            recipe: Resolved.
            info: From `describe_run`.

        Raises:
            OutputError: It cannot be written.
        """
        try:
            for folder in (self.checkpoints, self.samples):
                folder.mkdir(parents=True, exist_ok=True)
            for rest in self.checkpoints.glob(f".*{TEMPORARY_ENDING}"):  # of a run that was killed while it saved
                rest.unlink()
        except OSError as error:
            raise OutputError(f"--out {self.path} cannot be written ({error.strerror}): choose another folder") from None
        write_text(self.recipe, dump_recipe(recipe))
        write_json(self.info, info)

    def read_info(self) -> dict[str, Any]:
        """Read run.json.

        Raises:
            TrainingError: It is damaged.
        """
        return read_json(self.info, TrainingError, "the run cannot be resumed, train again into a new --out")

    def read_data(self) -> list[tuple[str, str]]:
        """Read from run.json path and fingerprint of each data set.

        Raises:
            TrainingError: It is damaged.
        """
        try:
            return [(item["path"], item["fingerprint"]) for item in self.read_info()["data"]]
        except (KeyError, TypeError):
            raise TrainingError(f"{self.info} is damaged: the run cannot be resumed, train again into a new --out") from None

    def read_recipe(self, overrides: Mapping[str, Any] | None = None) -> Recipe:
        """Read recipe.yaml, resolved.

        Args:
            overrides: Values by dotted key that win over the file's.

        Raises:
            ConfigError: It is missing or damaged, or this divid does not know one of its keys.
        """
        values = read_yaml(self.recipe)
        return recipe_from_values({**values, "model": fill_in_younger(values.get("model", {}))}, overrides).resolve()

    def check_resumed_recipe(self, recipe: Recipe) -> Recipe:
        """Compare a recipe with the one that the run began with.

        Args:
            recipe: Resolved; where it leaves the precision to be chosen, or the steps that fit into a time, the choice made then
                is taken.

        Returns:
            The recipe to go on with.

        Raises:
            ConfigError: Keys differ that would change the run; the message names them.
        """
        before = self.read_recipe()
        if recipe.training.precision == "auto":
            recipe = replace(recipe, training=replace(recipe.training, precision=before.training.precision))
        if recipe.training.fit_minutes and recipe.training.fit_minutes == before.training.fit_minutes:
            recipe = replace(recipe, training=replace(recipe.training, num_steps=before.training.num_steps)).resolve()
        changes = changes_between(flatten(before), flatten(recipe), MAY_CHANGE)
        if changes:
            told = ", ".join(changes)
            raise ConfigError(f"the recipe is not the one that {self.path} began with: {told}; resume with the old values")
        return recipe

    def check_resumed_data(self, info: dict[str, Any]) -> None:
        """Compare the data sets with those that the run began with.

        Args:
            info: Of the run now, from `describe_run`.

        Raises:
            ConfigError: They are not the same.
        """
        before = self.read_data()
        if [print_ for _, print_ in before] != [item["fingerprint"] for item in info["data"]]:
            names = ", ".join(path for path, _ in before)
            raise ConfigError(
                f"the data are not those that {self.path} began with ({names}): resume with the same, in the same order"
            )


def describe_run(recipe: Recipe, data: Sequence[Path], device: str) -> dict[str, Any]:
    """Give what a run depends on besides its recipe, for run.json.

    Args:
        recipe: Gives the seed.
        data: Its data sets.
        device: What it trains on.
    """
    packages = ("torch", "pytorch-lightning", "diffusers", "datasets", "numpy")
    return {
        "git_commit": git_commit(),
        "seed": recipe.seed,
        "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "divid": __version__} | {name: version(name) for name in packages},
        "data": [{"path": str(path), "fingerprint": fingerprint(Path(path))} for path in data],
    }


def describe_machine() -> str:
    """Give the machine's name, processor and cores, and its GPU if there is one."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        names = [line.partition(":")[2].strip() for line in information.read_text().splitlines() if line.startswith("model name")]
        processor = names[0] if names else processor
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{platform.node()}: {processor}, {cores} cores{gpu}"


def git_commit() -> str | None:
    """Give the commit of the checkout that this package runs from, with `+` for uncommitted changes; None outside of one."""
    here = Path(__file__).parent
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+"], cwd=here, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None


def fingerprint(folder: Path) -> str:
    """Hash a data set: names and sizes of its files, and of each the first and last 64 KiB (a whole one may take minutes).

    Args:
        folder: A prepared data set.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.rglob("*.parquet")):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(65536))
            file.seek(max(0, size - 65536))
            digest.update(file.read())
    return digest.hexdigest()
