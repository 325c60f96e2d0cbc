"""Ablations: each inductive bias switched off by itself, the explicit bottleneck switched on, and what each is worth."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

from divid.benchmark.plan import SAMPLING_SWITCH, EvaluationOptions, JudgeOptions, Plan, plan_from_dict
from divid.config import ModelConfig, Recipe
from divid.errors import ConfigError, nearest
from divid.model_parts import CanvasSource, Conditioning, StaticSource, TokenConfig
from divid.recipes import flatten, load_recipe

logger = logging.getLogger("divid")

FULL = "full"
"""Name of the cells of the full recipe."""

_SWITCHES: tuple[tuple[str, str, str], ...] = (
    ("residual", "residual encoding", "model.tokens.use_residual"),
    ("shared-training-noise", "noise shared by the frames in training", "model.diffusion.shared_training"),
    ("shared-sampling-noise", "noise shared by the frames in sampling", SAMPLING_SWITCH),
    ("scale-input", "noisy frames scaled by their share of signal", "model.diffusion.scale_input"),
)
"""(name, title, key) of the biases that are on or off."""


@dataclass(frozen=True)
class Variant:
    """A recipe that differs from the full one in one bias.

    Args:
        name: Its name for `--only`, and of its cells.
        title: What it is about, in words.
        is_added: Whether the variant has what the full recipe lacks, and not the other way round.
        full: The full recipe's value, in words.
        other: The variant's.
        overrides: Values by dotted key.
    """

    name: str
    title: str
    is_added: bool
    full: str
    other: str
    overrides: Mapping[str, Any]

    @property
    def is_sampling_only(self) -> bool:
        """Whether the full recipe's trained model serves."""
        return list(self.overrides) == [SAMPLING_SWITCH]

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return {**asdict(self), "overrides": dict(self.overrides)}


_LEVERS: tuple[tuple[str, str, str, float], ...] = (
    ("static-flip", "static token from mirrored frames", "model.tokens.static_flip", 0.5),
    ("motion-augmentation", "augmented look before the motion branch", "model.tokens.motion_augmentation", 1.0),
    ("back-translation", "the encoder sees the model's own swaps", "model.tokens.back_translation", 0.5),
    ("data-augmentation", "augmented look of whole clips", "data.augmentation", 0.5),
    ("orthogonality-memory", "clips over which tokens are kept apart", "model.tokens.orthogonality_memory", 512),
)
"""Name, title, key, and the value that switches it on where the recipe has 0."""

_INVARIANCES: tuple[tuple[str, str, str, float], ...] = (
    ("dynamic-invariance", "equal dynamic tokens of clips as they are and as changed", "model.tokens.dynamic_invariance", 0.02),
    ("static-invariance", "equal static tokens of the same two", "model.tokens.static_invariance", 0.01),
)
"""As `_LEVERS`."""

_HUBER = ("huber", "loss that grows linearly from an error of", "model.diffusion.huber_width", 0.1)
_PROPORTIONS = (
    "motion-augmentation-proportions",
    "proportions among what is augmented",
    "model.tokens.motion_augmentation_proportions",
    1.0,
)
"""As two of `_LEVERS`."""

_PRICES: Mapping[str, Mapping[str, float]] = {"rate": {"model.bottleneck.beta": 6e-6, "model.bottleneck.static_share": 0.25}}
"""What a kind of bottleneck needs beside its name where the recipe has none: at the default `beta` bits are far too dear."""

EVEN_DRAW, SHIFTED_DRAW = 1.0, 6.0
"""`model.diffusion.timestep_shift` without the bias (the paper's), and the value that switches it on."""


def variants_of(recipe: Recipe) -> dict[str, Variant]:
    """Give every ablation of a recipe by name: each bias that it has is switched off, each that it lacks is switched on.

    Args:
        recipe: Resolved, of the method `divid`.

    Raises:
        ConfigError: It trains another method.
    """
    if recipe.method != "divid" or not isinstance(recipe.model, ModelConfig):
        raise ConfigError(f"the recipe trains {recipe.method!r}, and the biases are those of 'divid': give a recipe of that")
    flat = flatten(recipe)
    made = [_switch(flat, name, title, key) for name, title, key in _SWITCHES if not _is_impossible(flat, key)]
    made += [*_conditioning(flat), *_static_sources(flat), *_bottlenecks(flat), _timestep_shift(flat), _strength(flat, *_HUBER)]
    made += [_strength(flat, *lever) for lever in _LEVERS]
    made += [*_seen_differently(flat), *_of_the_canvas(flat), *_late_levers(flat, recipe.model.tokens)]
    weight = "model.tokens.orthogonality_weight"
    if flat[weight]:
        made.append(_without("orthogonality", "orthogonality of the two tokens", flat, {weight: 0.0}))
    dropouts = [f"model.tokens.{kind}_dropout" for kind in ("static", "dynamic")]
    if any(flat[key] for key in dropouts):
        guidance = [key for key in ("sampling.static_guidance", "sampling.dynamic_guidance") if flat[key] != 1]
        changes = {**dict.fromkeys(dropouts, 0.0), **dict.fromkeys(guidance, 1.0)}
        made.append(_without("token-dropout", "token dropout", flat, changes))
    return {variant.name: variant for variant in made}


def ablation_plan(
    recipe: str,
    data: Sequence[str],
    num_seeds: int,
    *,
    overrides: Mapping[str, Any] | None = None,
    only: Sequence[str] | None = None,
    judge: JudgeOptions | None = None,
    evaluation: EvaluationOptions | None = None,
) -> tuple[Plan, dict[str, Variant]]:
    """Make the plan of an ablation.

    Args:
        recipe: Name or file of the full recipe.
        data: Prepared data sets, each a table of its own, named after its folder.
        num_seeds: Seeds 0, 1, ... of every cell.
        overrides: Values by dotted key that change the full recipe.
        only: Names of the variants; default: all.
        judge: How judges are trained.
        evaluation: What is measured.

    Returns:
        The plan, and the variants in it by name.

    Raises:
        ConfigError: The recipe is not of `divid`, a name is unknown, or a number is out of range.
    """
    variants = variants_of(load_recipe(recipe, overrides).resolve())
    for name in only or ():
        if name not in variants:
            raise ConfigError(f"--only names {name!r}, which is no ablation of this recipe{nearest(name, variants)}")
    chosen = {name: variant for name, variant in variants.items() if not only or name in only}
    if num_seeds < 1:
        raise ConfigError(f"--seeds is {num_seeds}, must be 1 or more")
    names = [Path(path).resolve().name for path in data]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"--data names two folders {twice[0]!r}: rename one, the tables are named after them")
    methods: dict[str, Any] = {FULL: {"method": "divid", "label": "full recipe"}}
    for name, variant in chosen.items():
        source = {"model_of": FULL} if variant.is_sampling_only else {"method": "divid"}
        methods[name] = {**source, "label": f"{variant.title}: {variant.other}", "set": dict(variant.overrides)}
    plan = {
        "seeds": list(range(num_seeds)),
        "set": dict(overrides or {}),
        "data": {name: {"path": str(path), "recipe": str(recipe)} for name, path in zip(names, data, strict=True)},
        "methods": methods,
        "judge": asdict(judge or JudgeOptions()),
        "evaluation": asdict(evaluation or EvaluationOptions()),
    }
    return plan_from_dict(plan), chosen


def _switch(flat: Mapping[str, Any], name: str, title: str, key: str) -> Variant:
    is_on = bool(flat[key])
    words = ("on", "off") if is_on else ("off", "on")
    return Variant(name, title, not is_on, *words, {key: not is_on})


def _is_impossible(flat: Mapping[str, Any], key: str) -> bool:
    is_impossible = key.endswith("scale_input") and flat["model.diffusion.prediction_type"] == "epsilon"
    if is_impossible:
        logger.info("scale-input is left out: a model that predicts epsilon cannot have it")
    return is_impossible


def _conditioning(flat: Mapping[str, Any]) -> list[Variant]:
    """Give the ways of the tokens, each in or out; one way is always left, so that of the norms alone cannot be taken away."""
    key, title = "model.denoiser.conditioning", "conditioning"
    full: Conditioning = flat[key]
    without_attention: Conditioning = "cross_attention" if full == "adagn" else "adagn"
    made = [Variant("cross-attention", title, full == "adagn", full, without_attention, {key: without_attention})]
    if full != "adagn":
        other: Conditioning = "cross_attention" if full == "both" else "both"
        made.append(Variant("norms", title, full != "both", full, other, {key: other}))
    return made


def _of_the_canvas(flat: Mapping[str, Any]) -> list[Variant]:
    """Give the map itself and, where the recipe has one, what it is drawn from and whether it is warped."""
    channels, warp = "model.denoiser.canvas_channels", "model.denoiser.canvas_warp"
    canvas = _strength(flat, "canvas", "channels of the map drawn from the tokens", channels, 32)
    if not flat[channels]:
        return [canvas]
    if flat[warp]:  # without the map there is nothing to warp
        canvas = replace(canvas, overrides={**canvas.overrides, warp: False})
    key, title = "model.denoiser.canvas_source", "tokens that the map is drawn from"
    full, sources = flat[key], get_args(CanvasSource)  # each source has one bias more than the one before it
    names = zip(("canvas-source", "canvas-modulation"), (source for source in sources if source != full), strict=True)
    made = [Variant(name, title, sources.index(other) > sources.index(full), full, other, {key: other}) for name, other in names]
    return [canvas, *made, _switch(flat, "canvas-warp", "map scaled and shifted as both tokens tell", warp)]


def _static_sources(flat: Mapping[str, Any]) -> list[Variant]:
    key = "model.tokens.static_source"
    others = [value for value in get_args(StaticSource) if value != flat[key]]
    return [Variant(f"static-{value}", "frame of the static token", False, flat[key], value, {key: value}) for value in others]


def _bottlenecks(flat: Mapping[str, Any]) -> list[Variant]:
    key, title = "model.bottleneck.kind", "explicit bottleneck"
    full = flat[key]
    if full != "none":
        made = [Variant("bottleneck", title, False, full, "none", {key: "none"})]
        if full == "rate":
            made.append(Variant("bottleneck-channel", title, False, full, "channel", {key: "channel"}))
        return made
    names = {"channel": "bottleneck", "rate": "bottleneck-rate"}
    return [Variant(name, title, True, full, kind, {key: kind, **_PRICES.get(kind, {})}) for kind, name in names.items()]


def _seen_differently(flat: Mapping[str, Any]) -> list[Variant]:
    """Give what means something only where training shows the encoder a clip otherwise than it is."""
    if not flat["model.tokens.motion_augmentation"] and not flat["model.tokens.back_translation"]:
        return []
    made = [_strength(flat, *lever) for lever in _INVARIANCES]
    if flat["model.tokens.static_invariance"]:
        key, title = "model.tokens.static_invariance_frame", "frame that the static token is to be equal to"
        full, other = flat[key], "same" if flat[key] == "other" else "other"
        made.append(Variant("static-invariance-frame", title, full == "same", full, other, {key: other}))
    for what, title in (("colours", "colours"), ("sideways", "the place, sideways,"), ("upwards", "the place, up and down,")):
        key = f"model.tokens.motion_augmentation_{what}"
        if flat["model.tokens.motion_augmentation"] and flat[key]:
            made.append(_without(f"motion-augmentation-{what}", f"{title} among what is augmented", flat, {key: 0.0}))
    if flat["model.tokens.motion_augmentation"]:
        made.append(_strength(flat, *_PROPORTIONS))
        key, title = "model.tokens.motion_augmentation_target", "what is asked for, moved along"
        full, other = flat[key], "sideways" if flat[key] == "unmoved" else "unmoved"
        made.append(Variant("motion-augmentation-target", title, full == "unmoved", full, other, {key: other}))
    return made


def _timestep_shift(flat: Mapping[str, Any]) -> Variant:
    key = "model.diffusion.timestep_shift"
    full, name, title = flat[key], "timestep-shift", "training steps drawn towards noise"
    other = EVEN_DRAW if full != EVEN_DRAW else SHIFTED_DRAW
    return Variant(name, title, full == EVEN_DRAW, f"{full:g}", f"{other:g}", {key: other})


def _late_levers(flat: Mapping[str, Any], tokens: TokenConfig) -> list[Variant]:
    """Give what begins late in the full recipe, begun with the training."""
    found = []
    for lever, start in tokens.late_starts().items():
        name, key = lever.replace("_", "-"), f"model.tokens.{lever}_start"
        if start:
            found.append(_without(f"{name}-start", f"share of the training before {name}", flat, {key: 0.0}))
    price, decay = "model.bottleneck.start", "training.learning_rate_decay_start"
    if flat["model.bottleneck.kind"] == "rate" and flat[price]:
        found.append(_without("bottleneck-start", "share of the training before bits have a price", flat, {price: 0.0}))
    if flat[decay]:
        found.append(_without("learning-rate-decay-start", "share of the training before the rate falls", flat, {decay: 0.0}))
    ramp = "model.tokens.motion_augmentation_ramp"
    if tokens.motion_augmentation and flat[ramp]:
        found.append(_without("motion-augmentation-ramp", "share of the training over which it rises", flat, {ramp: 0.0}))
    return found


def _strength(flat: Mapping[str, Any], name: str, title: str, key: str, on: float) -> Variant:
    return _without(name, title, flat, {key: 0}) if flat[key] else Variant(name, title, True, "0", f"{on:g}", {key: on})


def _without(name: str, title: str, flat: Mapping[str, Any], overrides: Mapping[str, float]) -> Variant:
    full = ", ".join(dict.fromkeys(f"{flat[key]:g}" for key in overrides if not key.startswith("sampling.")))
    guided = " (and no guidance)" if any(key.startswith("sampling.") for key in overrides) else ""
    return Variant(name, title, False, full, f"0{guided}", overrides)
