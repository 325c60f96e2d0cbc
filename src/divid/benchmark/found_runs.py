"""Runs of `divid train` that were put into a cell's folder, so that nothing is trained twice."""

from __future__ import annotations

from divid.benchmark.cells import CellFolder, name_few
from divid.benchmark.plan import SAMPLING_SWITCH, CellSpec
from divid.errors import ConfigError
from divid.recipes import changes_between, flatten
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
        ConfigError: It has another recipe or seed, other clips, or no readable recipe; the message names them.
        TrainingError: Its run.json is missing or damaged.
    """
    run = RunFolder(cell.run)
    then, now = flatten(run.read_recipe()), flatten(spec.recipe)
    told = {f"model.{key}" for key in TOLD_BY_TRAINING if not now.get(f"model.{key}")}
    sampling = {key for key in now if key.startswith("sampling.")} | {SAMPLING_SWITCH}
    free = {key for key in MAY_CHANGE if key not in _LENGTH} | told | sampling
    if spec.recipe.training.precision == "auto":
        free.add("training.precision")
    changes = changes_between(then, now, free)
    if [print_ for _, print_ in run.read_data()] != [clips]:
        changes.append("the clips that it was trained on")
    if changes:
        raise ConfigError(f"{run.path} is not what the cell {spec.name} would train: {name_few(changes)}; remove it")
