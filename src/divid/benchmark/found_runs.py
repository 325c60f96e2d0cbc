"""Runs of `divid train` that were put into a cell's folder, so that nothing is trained twice."""

from __future__ import annotations

from typing import Any

from divid.benchmark.cells import CellFolder
from divid.benchmark.plan import SAMPLING_SWITCH, CellSpec
from divid.errors import ConfigError, InputError
from divid.json_files import read_json
from divid.recipes import flatten
from divid.training.initial import TOLD_BY_TRAINING
from divid.training.run_folder import MAY_CHANGE, RunFolder

_LENGTH = ("training.num_steps", "training.max_minutes", "training.fit_minutes")
"""What a resumed run may change and a finished one may not."""


def check_found_run(spec: CellSpec, cell: CellFolder, clips: str) -> None:
    """Check that a finished run in a cell's folder is what the cell would train.

    Options of sampling may be others, as the cell samples by the plan's; so may those that only say what is shown on the way.

    Args:
        spec: The cell.
        cell: Its folder, with `run/` and no settings.json.
        clips: Fingerprint of the data set.

    Raises:
        ConfigError: It has another recipe or seed, or other clips; the message names them.
        InputError: The run lacks its recipe or what else it depended on, or these are damaged.
    """
    run = RunFolder(cell.run)
    then, now = flatten(run.read_recipe()), flatten(spec.recipe)
    told = {f"model.{key}" for key in TOLD_BY_TRAINING if not now.get(f"model.{key}")}
    free = {key for key in MAY_CHANGE if key not in _LENGTH} | told | {SAMPLING_SWITCH}
    if spec.recipe.training.precision == "auto":
        free.add("training.precision")
    keys = [key for key in sorted(then.keys() | now.keys()) if key not in free and not key.startswith("sampling.")]
    changes = [f"{key} ({then.get(key)} in the run, {now.get(key)} in the plan)" for key in keys if then.get(key) != now.get(key)]
    if _clips_of(run) != [clips]:
        changes.append("the clips that it was trained on")
    if changes:
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        raise ConfigError(f"{run.path} is not what the cell {spec.name} would train: {', '.join(changes[:3])}{more}; remove it")


def _clips_of(run: RunFolder) -> list[Any]:
    info = read_json(run.info, InputError, "put the whole folder of a run there, or remove it")
    data = info.get("data")
    return [item.get("fingerprint") for item in data if isinstance(item, dict)] if isinstance(data, list) else []
