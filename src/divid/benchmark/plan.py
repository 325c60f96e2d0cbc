"""The plan of a benchmark: data sets x methods x seeds, and the cells that it asks for.

A plan is a YAML file whose keys are the fields of `Plan`; the entries under `data` and `methods` have names of their own and the
fields of `DataEntry` and `MethodEntry`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from divid.config import Recipe, to_dict
from divid.errors import ConfigError, nearest
from divid.evaluation.judging import JudgeTraining
from divid.methods import METHODS
from divid.recipes import checked_options, flatten, load_recipe, read_yaml, recipe_from_values

SAMPLING_SWITCH = "model.diffusion.shared_sampling"
"""The one key of a model that changes how it samples, not how it is trained."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass
class DataEntry:
    """A data set of the plan.

    Args:
        path: Folder made by `divid prepare`; its test clips are what is judged.
        recipe: Name or file of the recipe that all methods are trained by, each with the keys that it has.
        set: Other values by dotted key, for every method on this data set.
        judge: Fields of `JudgeOptions` that its judge has other values of.
    """

    path: str = ""
    recipe: str = ""
    set: dict = field(default_factory=dict)
    judge: dict = field(default_factory=dict)


@dataclass
class MethodEntry:
    """A method of the plan.

    Args:
        method: A key of `divid.methods.METHODS`; left out, the entry's own name.
        label: Its name in the tables; left out, the entry's own name.
        recipe: Recipe in place of the data set's.
        model_of: Name of another entry whose trained model is taken; only keys of sampling may then be set.
        set: Other values by dotted key; they win over the plan's and the data set's.
        set_on: By name of a data set: values of this method there, which win over all others (for equal time, say).
    """

    method: str = ""
    label: str = ""
    recipe: str = ""
    model_of: str = ""
    set: dict = field(default_factory=dict)
    set_on: dict = field(default_factory=dict)


@dataclass
class JudgeOptions:
    """How the judge of each data set is trained.

    Args:
        architecture: `gru`, `conv3d` or `two_stream`.
        num_steps: Training steps.
        max_minutes: Training is shortened to so many minutes; only then does the judge depend on the machine.
        seed: Of everything random in it.
    """

    architecture: str = "gru"
    num_steps: int = 1000
    max_minutes: float = 30.0
    seed: int = 0

    def training(self, num_frames: int) -> JudgeTraining:
        """Give the options of `train_judge`, checked.

        Args:
            num_frames: F, as the methods take it.

        Raises:
            ConfigError: A value is outside its range.
        """
        return JudgeTraining(num_frames=num_frames, **asdict(self)).validate()


@dataclass
class EvaluationOptions:
    """What is measured in each cell.

    Args:
        swap_pairs: Pairs of the swap test, the same for every method; all there are, if fewer.
        pairs_seed: What they are drawn with.
        seed: Clip and pair i are sampled with seed + i.
        leakage: Probe the codes (needs the extra `eval`).
        figure_pairs: Pairs shown in the figure, the first ones of the list.
        sampled: Also keep one token and sample the other, from a prior fitted to the codes of the training clips.
        realism: Also SSIM, perceptual and Frechet distance (needs the extra `eval`, and a feature network).
        realism_pairs: Swaps whose Frechet distance is measured, the first ones of the list.
        ground_truth: Also PSNR of swaps to the clips that they should be, on data sets that can show them (puppets, sprites).
        ground_truth_pairs: Random swaps that are compared so.
        feature_network: Whose features: `efficientnet_lite0` or `vgg16`.
        feature_weights: File with its weights; empty: those of the extra `perceptual`.
    """

    swap_pairs: int = 2000
    pairs_seed: int = 0
    seed: int = 0
    leakage: bool = True
    figure_pairs: int = 3
    sampled: bool = False
    realism: bool = False
    realism_pairs: int = 256
    ground_truth: bool = False
    ground_truth_pairs: int = 256
    feature_network: str = "efficientnet_lite0"
    feature_weights: str = ""


@dataclass
class Plan:
    """Data sets x methods x seeds.

    Args:
        seeds: Seeds of training, one cell each.
        set: Values by dotted key for every cell; keys that all methods have.
        data: Data sets by name.
        methods: Methods by name, in the order of the table.
        judge: The judge of each data set, but for what a data set says of its own.
        evaluation: What is measured.
    """

    seeds: tuple[int, ...] = (0,)
    set: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)
    methods: dict = field(default_factory=dict)
    judge: JudgeOptions = field(default_factory=JudgeOptions)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)

    def judge_of(self, data: str) -> JudgeOptions:
        """Give how the judge of a data set is trained.

        Args:
            data: Its name in the plan.

        Raises:
            ConfigError: The data set's own options have an unknown key or a wrong value.
        """
        values = {**asdict(self.judge), **self.data[data].judge}
        return checked_options(JudgeOptions, values, f"data.{data}.judge")


@dataclass(frozen=True)
class CellSpec:
    """One training, or one way to sample from another's model, with its evaluation.

    Args:
        data: Name of the data set.
        method: Name of the method's entry.
        seed: Of the training.
        recipe: Resolved.
        model_of: Method whose model is taken; empty: this cell trains its own.
    """

    data: str
    method: str
    seed: int
    recipe: Recipe
    model_of: str = ""

    @property
    def name(self) -> str:
        """DATA/METHOD/seed-N, which is also the cell's place under `cells/`."""
        return cell_name(self.data, self.method, self.seed)

    @property
    def trainer(self) -> str:
        """Name of the cell that trains the model."""
        return cell_name(self.data, self.model_of or self.method, self.seed)


def cell_name(data: str, method: str, seed: int) -> str:
    """Give the name of a cell."""
    return f"{data}/{method}/seed-{seed}"


def load_plan(path: Path | str) -> Plan:
    """Read a plan.

    Args:
        path: A YAML file.

    Raises:
        ConfigError: It cannot be read, a key is unknown, or a value has the wrong type or range.
    """
    return plan_from_dict(read_yaml(Path(path), "plan"))


def plan_from_dict(values: dict[str, Any]) -> Plan:
    """Make a plan of what its file holds; errors as for `load_plan`.

    Args:
        values: Nested mappings.
    """
    plan = checked_options(Plan, values)
    data = {str(name): _entry(DataEntry, entry, f"data.{name}") for name, entry in plan.data.items()}
    methods = {str(name): _entry(MethodEntry, entry, f"methods.{name}") for name, entry in plan.methods.items()}
    plan = replace(plan, data=data, methods={name: _named(name, entry) for name, entry in methods.items()})
    _check(plan)
    return plan


def dump_plan(plan: Plan) -> str:
    """Write a plan as YAML that `load_plan` reads back.

    Args:
        plan: Any.
    """
    return yaml.safe_dump(to_dict(plan), sort_keys=False, default_flow_style=None, width=120)


def cells_of(plan: Plan) -> list[CellSpec]:
    """Give all cells: data sets one after the other, in each all methods with the first seed, then with the next.

    Args:
        plan: Checked.

    Raises:
        ConfigError: A recipe is missing, or has a wrong key or value; methods on one data set take other clips.
    """
    cells = []
    for data in plan.data:
        of_data = [_cell(plan, data, method, seed) for seed in plan.seeds for method in plan.methods]
        _check_one_judge_fits(of_data)
        cells += of_data
    return cells


def _entry(cls: type, values: Any, where: str) -> Any:
    name = where.partition(".")[2]
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: a name becomes a folder, so it has letters, digits, '.', '_' and '-' only")
    return checked_options(cls, {} if values is None else values, where)


def _named(name: str, entry: MethodEntry) -> MethodEntry:
    return replace(entry, method=entry.method or ("" if entry.model_of else name), label=entry.label or name)


def _check(plan: Plan) -> None:
    for key, values, example in (
        ("data", plan.data, "data: {puppets: {path: data/puppets, recipe: puppets-cpu}}"),
        ("methods", plan.methods, "methods: {divid: {}}"),
        ("seeds", plan.seeds, "seeds: [0]"),
    ):
        if not values:
            raise ConfigError(f"the plan names no {key}: write for example {example}")
    if len(set(plan.seeds)) < len(plan.seeds):
        raise ConfigError(f"seeds holds {list(plan.seeds)}, each may come once")
    for name, entry in plan.data.items():
        for key in ("path", "recipe"):
            if not getattr(entry, key):
                raise ConfigError(f"data.{name}.{key} is missing: every data set needs a path and a recipe")
    labels = [entry.label for entry in plan.methods.values()]
    for name, entry in plan.methods.items():
        if labels.count(entry.label) > 1:
            raise ConfigError(f"methods.{name}.label is {entry.label!r}, as another's is: the tables need one of its own")
        _check_places(name, entry, plan.data)
        _check_method(name, entry, plan.methods)
    for key, least in (("swap_pairs", 1), ("figure_pairs", 1), ("realism_pairs", 2), ("ground_truth_pairs", 1)):
        if getattr(plan.evaluation, key) < least:
            raise ConfigError(f"evaluation.{key} is {getattr(plan.evaluation, key)}, must be {least} or more")
    for judge in (plan.judge, *(plan.judge_of(name) for name in plan.data)):
        judge.training(num_frames=2)


def _check_places(name: str, entry: MethodEntry, data: dict[str, DataEntry]) -> None:
    for place, values in entry.set_on.items():
        if place not in data:
            raise ConfigError(f"methods.{name}.set_on names the data set {place!r}{nearest(place, data)}, which the plan has not")
        if not isinstance(values, dict):
            raise ConfigError(f"methods.{name}.set_on.{place} must be a mapping of keys to values, not {values!r}")


def _check_method(name: str, entry: MethodEntry, methods: dict[str, MethodEntry]) -> None:
    if not entry.model_of:
        if entry.method not in METHODS:
            raise ConfigError(f"methods.{name}.method is {entry.method!r}{nearest(entry.method, METHODS)}")
        return
    if entry.model_of not in methods:
        raise ConfigError(f"methods.{name}.model_of is {entry.model_of!r}{nearest(entry.model_of, methods)}")
    if methods[entry.model_of].model_of or entry.model_of == name:
        raise ConfigError(f"methods.{name}.model_of is {entry.model_of!r}, which trains no model of its own: name one that does")
    keys = [str(key) for values in (entry.set, *entry.set_on.values()) for key in values]
    fixed = [key for key in keys if not (key.startswith("sampling.") or key == SAMPLING_SWITCH)]
    fixed += [key for key in ("method", "recipe") if getattr(entry, key)]
    if fixed:
        raise ConfigError(
            f"methods.{name} takes the model of {entry.model_of!r} and sets {fixed[0]!r}, which only training can: "
            f"set keys of sampling or {SAMPLING_SWITCH}"
        )


def _cell(plan: Plan, data: str, method: str, seed: int) -> CellSpec:
    entry = plan.methods[method]
    trained_as = plan.methods[entry.model_of] if entry.model_of else entry
    recipe = trained_as.recipe or plan.data[data].recipe
    values = {**plan.set, **plan.data[data].set}
    for of in (trained_as, entry):
        values |= {**of.set, **of.set_on.get(data, {})}
    try:
        built = load_recipe(recipe, {str(key): value for key, value in values.items()}, method=trained_as.method)
        return CellSpec(data, method, seed, replace(built, seed=seed).resolve(), entry.model_of)
    except ConfigError as error:
        raise ConfigError(f"cell {cell_name(data, method, seed)}: {error}") from None


def _check_one_judge_fits(cells: Sequence[CellSpec]) -> None:
    shapes = {cell.method: clip_shape(cell.recipe) for cell in cells}
    first = cells[0].method
    for method, shape in shapes.items():
        if shape != shapes[first]:
            raise ConfigError(
                f"on {cells[0].data} the methods {first!r} and {method!r} take clips of (frames, size, channels) {shapes[first]} "
                f"and {shape}: one judge sees both, so give them the same"
            )


def clip_shape(recipe: Recipe) -> tuple[int, int, int]:
    """Give (F, size, channels) of the clips that a method takes.

    Args:
        recipe: Resolved.
    """
    assert recipe.model.image_size
    return recipe.data.frames_per_sequence, recipe.model.image_size, recipe.model.channels


def cell_settings(spec: CellSpec, plan: Plan) -> dict[str, Any]:
    """Give by dotted key all that a cell's result depends on, besides the clips, as JSON has it.

    Args:
        spec: The cell.
        plan: Gives the evaluation.
    """
    evaluation = {f"evaluation.{f.name}": getattr(plan.evaluation, f.name) for f in fields(EvaluationOptions)}
    judge = judge_settings(plan, spec.data)
    return {**dict(sorted(flatten(spec.recipe).items())), **evaluation, "model_of": spec.model_of, **judge}


def default_settings(spec: CellSpec) -> dict[str, Any]:
    """Give by dotted key what a cell's recipe and evaluation have where nothing is said.

    Args:
        spec: The cell; gives the method.
    """
    recipe = recipe_from_values({"method": spec.recipe.method}).resolve()
    return {**flatten(recipe), **{f"evaluation.{name}": value for name, value in asdict(EvaluationOptions()).items()}}


def judge_settings(plan: Plan, data: str) -> dict[str, Any]:
    """Give by dotted key all that a data set's judge depends on, besides the clips.

    Args:
        plan: Gives it.
        data: Name of the data set.
    """
    return {f"judge.{key}": value for key, value in asdict(plan.judge_of(data)).items()}
