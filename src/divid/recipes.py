"""Recipes: YAML files that name every option of a training run, read with one-line errors."""

from __future__ import annotations

import re
import types
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from divid.baselines.options import DBSEConfig, SPYLConfig
from divid.config import ModelConfig, Recipe, from_dict, to_dict
from divid.distillation.options import ConsistencyConfig
from divid.errors import ConfigError, nearest
from divid.presets import PRESETS

MODEL_CONFIGS: dict[str, type] = {"dbse": DBSEConfig, "spyl": SPYLConfig, "consistency": ConsistencyConfig}
"""Methods whose options, the keys under `model`, are not DiViD's `ModelConfig`."""

PLANS_FOLDER = "benchmarks"
"""Folder among the recipes whose files are plans of benchmarks, not recipes."""

_WORDS = {
    int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null",
    dict: "a mapping of keys to values",
}  # fmt: skip


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, but `6e-4` is a number, `on` and `off` are words (not so in YAML 1.1), and no key may come twice."""

    yaml_implicit_resolvers = {  # noqa: RUF012 -- the base class has it so
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


def _mapping_without_repeats(loader: _Loader, node: yaml.MappingNode) -> dict:
    keys = [loader.construct_object(key) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_without_repeats)


def list_recipes() -> list[str]:
    """Give the names of the recipes that come with divid."""
    return sorted(path.stem for path in _recipe_files())


def load_recipe(path_or_name: str | Path, overrides: Mapping[str, Any] | None = None, *, method: str | None = None) -> Recipe:
    """Read a recipe; every key and value is checked, fields left at null stay so until `Recipe.resolve`.

    Args:
        path_or_name: A YAML file, or the name of a recipe that comes with divid (see `list_recipes`).
        overrides: Values by dotted key, as in `{"training.num_steps": 10}`; they win over the file's.
        method: Train another method by this recipe: of the keys under `model` those stay that both methods have.

    Raises:
        ConfigError: There is no such recipe, a key is unknown, or a value has the wrong type or range.
    """
    values = read_yaml(_find(path_or_name))
    if method is not None and method != values.get("method", Recipe.method):
        _build(values)  # finds what is wrong with the keys that do not stay, too
        known = {f.name for f in fields(_model_config(method))}
        model = {key: value for key, value in values.get("model", {}).items() if key in known}
        values = {**values, "method": method, "model": model}
    return recipe_from_values(values, overrides)


def recipe_from_values(values: dict[str, Any], overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Build a recipe from what YAML holds; every key and value is checked.

    Args:
        values: Sections of keys and values; changed by the overrides.
        overrides: As for `load_recipe`.

    Raises:
        ConfigError: A key is unknown, or a value has the wrong type or range.
    """
    for key, value in (overrides or {}).items():
        _set(values, key, value)
    return _build(values)


def read_yaml(path: Path, what: str = "recipe") -> dict[str, Any]:
    """Read a YAML file of keys and values; an empty one has none.

    Args:
        path: The file.
        what: What it is, for messages.

    Raises:
        ConfigError: It cannot be read, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path} cannot be read ({error}): give a YAML text file") from None
    values = _parse_yaml(text, f"{what} {path}")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{what} {path} must hold keys and values, got {type(values).__name__}: see configs/ for examples")
    return values


def checked_options(cls: type, values: Any, where: str = "") -> Any:
    """Build a dataclass of options from what YAML holds; every key and the type of every value is checked.

    Args:
        cls: The dataclass.
        values: What was read.
        where: Dotted place of `values`, for messages.

    Raises:
        ConfigError: A key is unknown (the message names the nearest valid one), or a value has the wrong type.
    """
    _check_types(cls, values, where)
    return from_dict(cls, values, where)


def dump_recipe(recipe: Recipe) -> str:
    """Write a recipe as YAML that `load_recipe` reads back.

    Args:
        recipe: Resolved or not.
    """
    return yaml.safe_dump(to_dict(recipe), sort_keys=False, default_flow_style=None, width=120)


def parse_override(text: str) -> tuple[str, Any]:
    """Split `training.num_steps=10` into its dotted key and its value, read as YAML.

    Args:
        text: What stands on the command line.

    Raises:
        ConfigError: There is no `=`, or the value is no YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set takes KEY=VALUE, got {text!r}: write for example --set training.num_steps=1000")
    return key.strip(), _parse_yaml(value, f"--set {key}")


def flatten(recipe: Recipe) -> dict[str, Any]:
    """Give every value of a recipe by its dotted key.

    Args:
        recipe: Resolved or not.
    """
    flat: dict[str, Any] = {}
    todo: list[tuple[str, Any]] = [("", to_dict(recipe))]
    while todo:
        place, value = todo.pop()
        if isinstance(value, dict):
            todo += [(f"{place}.{key}" if place else key, item) for key, item in value.items()]
        else:
            flat[place] = value
    return flat


def _model_config(method: Any) -> type:
    return MODEL_CONFIGS.get(str(method), ModelConfig)


def _build(values: dict[str, Any]) -> Recipe:
    model_config, model = _model_config(values.get("method")), values.get("model", {})
    others = {key: value for key, value in values.items() if key != "model"}
    _check_types(model_config, model, "model")
    _check_types(Recipe, others)
    recipe = replace(from_dict(Recipe, others), model=from_dict(model_config, model, "model"))
    recipe.resolve()
    return recipe


def _recipes_folder() -> Path:
    packaged = Path(__file__).parent / "_recipes"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "configs"


def _recipe_files() -> list[Path]:
    return [path for path in _recipes_folder().rglob("*.yaml") if path.parent.name != PLANS_FOLDER]


def changes_between(before: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = ()) -> list[str]:
    """Tell what differs between two flattened recipes or settings, a phrase a key, as in `seed (3 then, 0 now)`.

    A key that is there no more differs, whatever its value was.

    Args:
        before: Values by dotted key.
        now: The same, later.
        free: Keys that may differ.
    """
    keys = [key for key in sorted(before.keys() | now.keys()) if key not in free]
    differing = [key for key in keys if key not in now or before.get(key) != now[key]]
    return [f"{key} ({before.get(key)} then, {now.get(key)} now)" for key in differing]


def _find(path_or_name: str | Path) -> Path:
    path = Path(path_or_name)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise ConfigError(f"there is no recipe file {str(path)!r}: give a YAML file, or one of {', '.join(list_recipes())}")
    bundled = [file for file in _recipe_files() if file.stem == path.name]
    if not bundled:
        if path.name in PRESETS:
            names = ", ".join(list_recipes())
            raise ConfigError(f"{path.name} is a preset and no recipe: take one of {names}, with --set model.preset={path.name}")
        raise ConfigError(f"there is no recipe {str(path)!r}{nearest(str(path), list_recipes())}")
    return bundled[0]


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{where} is not valid YAML: {error.problem}{line}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from None


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{key!r} cannot be set: {section!r} is a value, not a section")
    values[last] = value


def _check_types(cls: type, values: Any, where: str = "") -> None:
    """Check the types of known keys; `from_dict` finds the unknown ones."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a mapping of keys to values, got {values!r}")
    hints = get_type_hints(cls)
    for key, value in values.items():
        place, hint = f"{where}.{key}" if where else str(key), hints.get(key)
        if isinstance(hint, type) and is_dataclass(hint):
            _check_types(hint, value, place)
        elif hint is not None and not _fits(value, hint):
            raise ConfigError(f"{place} must be {_in_words(hint)}, got {value!r}")


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if origin is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if origin is tuple:
        return isinstance(value, (list, tuple)) and all(_fits(item, get_args(hint)[0]) for item in value)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float)) if hint is float else isinstance(value, hint)


def _in_words(hint: Any) -> str:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_in_words(option) for option in get_args(hint))
    if origin is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if origin is tuple:
        return f"a list, each {_in_words(get_args(hint)[0])}"
    return _WORDS[hint]
