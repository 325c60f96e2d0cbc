"""Every option of a model, its training and its sampling, as dataclasses (this file imports no torch).

The options of a model's parts stand in `model_parts.py`, and what the presets give them in `presets.py`.

A field that is `None` takes the value of the model's preset; `ModelConfig.resolve` fills them all in. What a run used stands
in its `recipe.yaml`, fully resolved.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, Self, get_args, runtime_checkable

from divid.config_checks import check_choice, check_range
from divid.errors import ConfigError, nearest
from divid.model_parts import (
    AugmentationTarget,
    BottleneckConfig,
    BottleneckKind,
    BottleneckProfile,
    CanvasSource,
    Conditioning,
    DenoiserConfig,
    DiffusionConfig,
    EncoderConfig,
    FeatureNetworkName,
    InvarianceFrame,
    PerceptualConfig,
    PredictionType,
    ScheduleName,
    StaticSource,
    TokenConfig,
)
from divid.presets import PRESETS, PresetName, fill_in

SolverName = Literal["ddpm", "ddim", "dpmsolver++", "unipc", "consistency"]
SpacingName = Literal["trailing", "power"]
Precision = Literal["auto", "fp32", "bf16"]
OptimizerName = Literal["adamw", "muon"]

SPACINGS: dict[SolverName, SpacingName] = {
    "ddpm": "trailing",
    "ddim": "power",
    "dpmsolver++": "power",
    "unipc": "power",
    "consistency": "power",
}
"""`sampling.spacing` of each solver where it is left open; ancestral sampling stays as it was published."""


@dataclass
class SamplingConfig:
    """How a sample is drawn.

    Args:
        solver: `ddpm`, `ddim`, `dpmsolver++` or `unipc`; `consistency` for the few-step students of `divid distill`.
        num_inference_steps: Solver steps; every step is one pass of the U-Net (more with guidance).
        spacing: `trailing`, even steps, or `power`, closer ones where there is little noise. None: `SPACINGS` of the solver.
        static_guidance: Scale of the static token's guidance; 1 is none.
        dynamic_guidance: Scale of the dynamic tokens' guidance; 1 is none.
        eta: DDIM's share of fresh noise: 0 deterministic, 1 ancestral.
        chunk_frames: Frames denoised together; bounds memory, changes nothing else.
        precision: Of the U-Net's products: `fp32`, `bf16`, or `auto`: `bf16` where the machine has units for it. `bf16` is about
            twice as fast there, and moves a picture by a fraction of a grey level.
    """

    solver: SolverName = "dpmsolver++"
    num_inference_steps: int = 2
    spacing: SpacingName | None = None
    static_guidance: float = 1.0
    dynamic_guidance: float = 1.0
    eta: float = 0.0
    chunk_frames: int = 64
    precision: Precision = "fp32"

    @property
    def resolved_spacing(self) -> SpacingName:
        """`spacing`, or the solver's where it is None."""
        return SPACINGS[self.solver] if self.spacing is None else self.spacing

    def validate(self) -> SamplingConfig:
        """Check every value.

        Raises:
            ConfigError: A value is outside its range.
        """
        check_choice("sampling.solver", self.solver, get_args(SolverName))
        check_range("sampling.num_inference_steps", self.num_inference_steps, 1, 1000)
        if self.spacing is not None:
            check_choice("sampling.spacing", self.spacing, get_args(SpacingName))
        check_range("sampling.static_guidance", self.static_guidance, 0, 100)
        check_range("sampling.dynamic_guidance", self.dynamic_guidance, 0, 100)
        check_range("sampling.eta", self.eta, 0, 1)
        check_range("sampling.chunk_frames", self.chunk_frames, 1, 1_000_000)
        check_choice("sampling.precision", self.precision, get_args(Precision))
        return self


@dataclass
class ModelConfig:
    """A DiViD model.

    Args:
        preset: Size, and the values of all fields left at `None`: `tiny` 32x32, `small`, `base` and `paper` 64x64.
        image_size: Height and width of the frames (preset).
        channels: 1 for grey, 3 for RGB.
        max_frame_spacing: Widest distance between neighbouring frames of a training sequence, in frames of the recording; set by
            training from the data, used to encode recordings longer than trained. 0: unknown, any.
        frames_per_sequence: Frames of a training sequence; set by training, used with `max_frame_spacing`.
        num_train_steps: Steps of the training run, for what changes with its progress; set by training. 0: unknown.
        encoder: The sequence encoder.
        tokens: Widths and biases of the tokens.
        bottleneck: The explicit bottleneck.
        denoiser: The conditional U-Net.
        diffusion: Schedule and noise.
        feature_loss: A perceptual distance of the predicted x_0 to the true one, beside eq. (3) (the paper has none).
    """

    preset: PresetName = "tiny"
    image_size: int | None = None
    channels: int = 3
    max_frame_spacing: int = 0
    frames_per_sequence: int = 10
    num_train_steps: int = 0
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    tokens: TokenConfig = field(default_factory=TokenConfig)
    bottleneck: BottleneckConfig = field(default_factory=BottleneckConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    feature_loss: PerceptualConfig = field(default_factory=PerceptualConfig)

    def resolve(self) -> ModelConfig:
        """Fill in the preset's values and check every field.

        Returns:
            A new config without any `None`.

        Raises:
            ConfigError: A value is outside its range, or two do not fit together.
        """
        check_choice("model.preset", self.preset, PRESETS)
        resolved = fill_in(self, PRESETS[self.preset])
        _validate_model(resolved)
        return resolved

    def late_starts(self) -> dict[str, float]:
        """Give what is on and begins late, by its key below `model`, and the share of the training after which it does."""
        starts = {f"tokens.{lever}": start for lever, start in self.tokens.late_starts().items()}
        if self.bottleneck.kind == "rate":
            starts["bottleneck"] = self.bottleneck.start
        if self.diffusion.huber_width:
            starts["diffusion.huber"] = self.diffusion.huber_start
        return starts


@dataclass
class DataConfig:
    """How clips are drawn from prepared data sets.

    Args:
        frames_per_sequence: F, frames of a training sequence: one at random from each of F equal stretches of the recording.
        min_frames: Fewest frames of a training sequence; each step draws its length between this and F. Equal to F: never varied.
        min_span: Smallest share of a recording that a training sequence covers; each clip draws between this and 1.
        location: Where the clips are kept: `memory`, `device` (whole, as uint8, on the GPU) or `disk` (memory-mapped).
        num_workers: Loader processes (0: in the training process; enough for data in memory).
        num_shards: Parts into which the clips are dealt, one part for each of as many equal shares of the batch: as many as
            nodes, and each node reads and keeps its own part only. The run depends on this number, not on that of the processes.
        balance: Several data sets take turns, so that each is drawn equally often, whatever its size. Off: every clip is.
        augmentation: Strength of the random change of build, place and colours of each training clip, alike for all its frames; 0
            (paper): none.
    """

    frames_per_sequence: int = 10
    min_frames: int = 10
    min_span: float = 1.0
    location: Literal["memory", "device", "disk"] = "memory"
    num_workers: int = 0
    num_shards: int = 1
    balance: bool = False
    augmentation: float = 0.0


@dataclass
class TrainingConfig:
    """The training loop.

    Args:
        num_steps: Optimiser steps in all.
        initial_model: Model whose weights training begins with: a model or run folder, a bundled model's name, or a Hub id.
            Empty: new weights.
        batch_size: Clips a step, over all processes.
        frames_per_clip: Frames of each clip that the U-Net is trained on in a step (the encoder always sees all); 0 means all.
        optimizer: `adamw`, or `muon`: matrices and kernels are stepped along their orthogonal momentum, all else as by AdamW. A
            step costs more, and far fewer are needed.
        learning_rate: Highest rate.
        warmup_steps: Steps of linear warm-up.
        learning_rate_schedule: `cosine` decay to 0 over `num_steps`, or `constant`.
        learning_rate_decay_start: Share of the training after which the cosine begins, so that what begins late is learned at the
            full rate; 0: at once.
        weight_decay: Decoupled from the gradient.
        gradient_clip: Largest norm of the gradient; 0 switches clipping off.
        ema_decay: Highest decay of the moving average of the weights, min(this, (1 + n) / (10 + n)).
        shard_optimizer: Each process keeps the optimiser's state of its share of the weights only (ZeRO, stage 1), for models
            whose two moments do not fit beside the rest; a single process keeps all.
        shard_weights: Each process keeps its share of weights, gradients, the optimiser's state and averaged weights only, and
            gathers a block's weights while it is at work (FSDP), for models that do not fit whole; a single process keeps all.
        precision: `bf16`, `fp32`, or `auto`: whichever a timed step shows faster on a CPU; bf16 on a GPU.
        compile: How the networks run: `on` compiles them with torch.compile (takes minutes; on a CPU it needs a C++ compiler),
            `graphs` replays them as CUDA graphs (recorded in seconds; one GPU), `off` is plain PyTorch, and `auto` tries graphs
            on one GPU and compiling elsewhere, and goes on without.
        checkpoint_minutes: Minutes between checkpoints.
        validate_every_steps: Steps between validations (held-out loss, swap grid); 0 for only at the end.
        num_validation_clips: Held-out clips used in a validation.
        max_minutes: Stop, with a checkpoint, after so many minutes; 0 for no limit.
        fit_minutes: Make only as many of `num_steps` as fit into so many minutes, told by a few timed ones at the start. Unlike a
            run that `max_minutes` cuts off, this one reaches the end of its rate and of all that begins late. 0: make all.
        log_every_steps: Steps between logged values.
    """

    num_steps: int = 5000
    initial_model: str = ""
    batch_size: int = 16
    frames_per_clip: int = 4
    optimizer: OptimizerName = "adamw"
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    learning_rate_schedule: Literal["cosine", "constant"] = "cosine"
    learning_rate_decay_start: float = 0.0
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    shard_optimizer: bool = False
    shard_weights: bool = False
    precision: Precision = "auto"
    compile: Literal["auto", "graphs", "on", "off"] = "auto"
    checkpoint_minutes: float = 5.0
    validate_every_steps: int = 1000
    num_validation_clips: int = 32
    max_minutes: float = 0.0
    fit_minutes: float = 0.0
    log_every_steps: int = 10


@runtime_checkable
class MethodConfig(Protocol):
    """What training and pipeline know of a method's options: `ModelConfig`, or another method's own dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    image_size: int | None
    channels: int
    max_frame_spacing: int
    frames_per_sequence: int

    def resolve(self) -> Self:
        """Fill in what is left open and check every field."""
        ...


@dataclass
class Recipe:
    """All that a training run depends on, besides its data.

    Args:
        method: A key of `divid.methods.METHODS`.
        seed: Seed of everything random.
        model: The method's options: DiViD's, or those that `divid.recipes.MODEL_CONFIGS` names.
        data: The drawing of clips.
        training: The loop.
        sampling: How validation grids are sampled, and the exported model's default.
    """

    method: str = "divid"
    seed: int = 0
    model: MethodConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def resolve(self) -> Recipe:
        """Fill in the preset's values and check every field; errors as for `ModelConfig.resolve`."""
        check_range("data.frames_per_sequence", self.data.frames_per_sequence, 2, 512)
        check_range("data.min_frames", self.data.min_frames, 2, self.data.frames_per_sequence)
        check_range("data.min_span", self.data.min_span, 0.05, 1)
        check_range("data.num_workers", self.data.num_workers, 0, 1024)
        check_range("data.num_shards", self.data.num_shards, 1, self.training.batch_size)
        if self.training.batch_size % self.data.num_shards:
            raise ConfigError(
                f"training.batch_size is {self.training.batch_size}, must be a multiple of the {self.data.num_shards} of "
                "data.num_shards: change one of them"
            )
        check_range("data.augmentation", self.data.augmentation, 0, 3)
        check_choice("training.optimizer", self.training.optimizer, get_args(OptimizerName))
        check_range("training.frames_per_clip", self.training.frames_per_clip, 0, self.data.frames_per_sequence)
        if self.training.learning_rate_schedule == "constant" and self.training.learning_rate_decay_start:
            raise ConfigError(
                "training.learning_rate_decay_start is where the schedule cosine begins to fall, and the schedule is constant: "
                "set learning_rate_schedule to cosine, or learning_rate_decay_start to 0"
            )
        for name, low, high in _TRAINING_RANGES:
            check_range(f"training.{name}", getattr(self.training, name), low, high)
        if self.training.shard_weights and self.training.shard_optimizer:
            raise ConfigError(
                "training.shard_weights includes what training.shard_optimizer does: set training.shard_optimizer to false"
            )
        self.sampling.validate()
        told = {"frames_per_sequence": self.data.frames_per_sequence, "num_train_steps": self.training.num_steps}
        return replace(self, model=tell(self.model, told).resolve())


_TRAINING_RANGES: tuple[tuple[str, float, float], ...] = (
    ("num_steps", 1, 10**8), ("batch_size", 1, 10**6), ("learning_rate", 1e-9, 1), ("warmup_steps", 0, 10**8),
    ("learning_rate_decay_start", 0, 0.999), ("weight_decay", 0, 10), ("gradient_clip", 0, 10**9), ("ema_decay", 0, 1),
    ("checkpoint_minutes", 0, 10**6),
    ("validate_every_steps", 0, 10**8), ("num_validation_clips", 0, 10**6), ("max_minutes", 0, 10**6),
    ("fit_minutes", 0, 10**6), ("log_every_steps", 1, 10**8),
)  # fmt: skip


def tell(model: MethodConfig, values: dict[str, Any]) -> MethodConfig:
    """Set what training knows in a method's options, as far as they have a field for it.

    Args:
        model: The options.
        values: Values by field.
    """
    known = {f.name for f in fields(model)}
    return replace(model, **{name: value for name, value in values.items() if name in known})


def to_dict(config: Any) -> dict[str, Any]:
    """Turn a config into plain nested dicts and lists, as JSON and YAML store it.

    Args:
        config: Any dataclass of options.
    """
    return _plain(asdict(config))


def from_dict(cls: type, values: dict[str, Any], where: str = "") -> Any:
    """Build a config from nested dicts.

    Args:
        cls: A dataclass of options.
        values: Values for some or all of its fields.
        where: Dotted place of `values`, for messages.

    Raises:
        ConfigError: A key is unknown; the message names the nearest valid one.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where or cls.__name__} must be a mapping of keys to values, got {values!r}")
    defaults = cls()
    known = {f.name: f for f in fields(cls)}
    arguments = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in known:
            raise ConfigError(f"unknown key {path!r}{nearest(str(key), known)}")
        current = getattr(defaults, key)
        if is_dataclass(current):
            arguments[key] = from_dict(type(current), value, path)
        else:
            arguments[key] = tuple(value) if isinstance(value, list) else value
    return cls(**arguments)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def check_perceptual(name: str, options: PerceptualConfig) -> None:
    """Check the options of a perceptual distance.

    Args:
        name: Dotted name of the group.
        options: Resolved.

    Raises:
        ConfigError: A value is outside its range, or the network needs weights and no file is named.
    """
    check_choice(f"{name}.network", options.network, get_args(FeatureNetworkName))
    check_range(f"{name}.weight", options.weight, 0, 10**6)
    if options.network == "vgg16" and not options.weights_file:
        raise ConfigError(
            f"{name}.network is vgg16, but {name}.weights_file is empty: name a file with VGG-16's weights in torchvision's "
            "format, or take efficientnet_lite0"
        )


def _check_rise(tokens: TokenConfig) -> None:
    """Check that motion augmentation that begins becomes whole before the training ends."""
    start, ramp = tokens.motion_augmentation_start, tokens.motion_augmentation_ramp
    if tokens.motion_augmentation and start < 1 < start + ramp - 1e-9:
        raise ConfigError(
            f"model.tokens.motion_augmentation begins at {start} of the training and rises over {ramp}, so it is never whole: "
            f"let motion_augmentation_start and motion_augmentation_ramp add up to 1 or less, say with a ramp of {1 - start:.2g}"
        )


def _validate_model(model: ModelConfig) -> None:
    encoder, denoiser, tokens = model.encoder, model.denoiser, model.tokens
    assert model.image_size is not None and encoder.patch_size is not None and denoiser.patch_size is not None
    assert denoiser.channels is not None and denoiser.attention_levels is not None and denoiser.norm_groups
    assert tokens.static_dropout is not None and tokens.dynamic_dropout is not None
    check_choice("model.channels", model.channels, (1, 3))
    check_choice("model.tokens.static_source", tokens.static_source, get_args(StaticSource))
    check_choice("model.tokens.motion_augmentation_target", tokens.motion_augmentation_target, get_args(AugmentationTarget))
    check_choice("model.tokens.static_invariance_frame", tokens.static_invariance_frame, get_args(InvarianceFrame))
    check_choice("model.denoiser.conditioning", denoiser.conditioning, get_args(Conditioning))
    check_choice("model.denoiser.canvas_source", denoiser.canvas_source, get_args(CanvasSource))
    check_choice("model.bottleneck.kind", model.bottleneck.kind, get_args(BottleneckKind))
    check_choice("model.bottleneck.profile", model.bottleneck.profile, get_args(BottleneckProfile))
    for name in ("kappa_static", "kappa_dynamic", "beta", "static_share", "dynamic_share"):
        check_range(f"model.bottleneck.{name}", getattr(model.bottleneck, name), 0, 1000)
    check_range("model.bottleneck.start", model.bottleneck.start, 0, 1)
    check_choice("model.diffusion.prediction_type", model.diffusion.prediction_type, get_args(PredictionType))
    check_choice("model.diffusion.schedule", model.diffusion.schedule, get_args(ScheduleName))
    if model.diffusion.scale_input and model.diffusion.prediction_type == "epsilon":
        raise ConfigError(
            "model.diffusion.scale_input hides the noise, which prediction_type epsilon asks for: "
            "set scale_input to false, or prediction_type to v_prediction"
        )
    check_range("model.tokens.static_dropout", tokens.static_dropout, 0, 1)
    check_range("model.tokens.dynamic_dropout", tokens.dynamic_dropout, 0, 1)
    check_range("model.tokens.orthogonality_memory", tokens.orthogonality_memory, 0, 10**6)
    check_range("model.tokens.static_noise", tokens.static_noise, 0, 10)
    check_range("model.tokens.dynamic_noise", tokens.dynamic_noise, 0, 10)
    if model.bottleneck.kind != "none" and (tokens.static_noise or tokens.dynamic_noise):
        raise ConfigError(
            f"model.bottleneck.kind {model.bottleneck.kind} and noise on tokens of a fixed size are two bottlenecks: set "
            "model.tokens.static_noise and model.tokens.dynamic_noise to 0, or model.bottleneck.kind to none"
        )
    check_range("model.tokens.motion_augmentation", tokens.motion_augmentation, 0, 3)
    for what in ("colours", "sideways", "upwards", "proportions"):
        check_range(f"model.tokens.motion_augmentation_{what}", getattr(tokens, f"motion_augmentation_{what}"), 0, 10)
    for what in ("start", "ramp", "proportions_start"):
        check_range(f"model.tokens.motion_augmentation_{what}", getattr(tokens, f"motion_augmentation_{what}"), 0, 1)
    _check_rise(tokens)
    check_range("model.tokens.static_flip", tokens.static_flip, 0, 1)
    check_range("model.tokens.back_translation", tokens.back_translation, 0, 1)
    check_range("model.tokens.back_translation_start", tokens.back_translation_start, 0, 1)
    check_range("model.tokens.dynamic_invariance", tokens.dynamic_invariance, 0, 100)
    check_range("model.tokens.static_invariance", tokens.static_invariance, 0, 100)
    check_perceptual("model.feature_loss", model.feature_loss)
    check_range("model.num_train_steps", model.num_train_steps, 0, 10**9)
    check_range("model.image_size", model.image_size, 8, 1024)
    check_range("model.max_frame_spacing", model.max_frame_spacing, 0, 10**9)
    check_range("model.diffusion.huber_width", model.diffusion.huber_width, 0, 100)
    check_range("model.diffusion.huber_start", model.diffusion.huber_start, 0, 1)
    check_range("model.diffusion.timestep_shift", model.diffusion.timestep_shift, 0.01, 100)
    check_range("model.diffusion.timestep_shift_end", model.diffusion.timestep_shift_end, 0, 1)
    check_range("model.diffusion.num_train_timesteps", model.diffusion.num_train_timesteps, 2, 100_000)
    for name, patch, levels in (
        ("denoiser", denoiser.patch_size, len(denoiser.channels)),
        ("encoder", encoder.patch_size, len(encoder.multipliers)),
    ):
        unit = patch * 2 ** (levels - 1) if name == "denoiser" else 2 ** (levels - 1)
        if model.image_size % unit:
            raise ConfigError(f"model.image_size is {model.image_size}, must be a multiple of {unit} for this {name}")
    for width in denoiser.channels:
        if width % denoiser.norm_groups:
            raise ConfigError(
                f"model.denoiser.channels holds {width}, every width must be a multiple of norm_groups = {denoiser.norm_groups}"
            )
    check_range("model.denoiser.canvas_channels", denoiser.canvas_channels, 0, 4096)
    if denoiser.canvas_warp and not denoiser.canvas_channels:
        raise ConfigError(
            "model.denoiser.canvas_warp moves a map, and model.denoiser.canvas_channels is 0: give the map channels, 32 say, "
            "or set canvas_warp to false"
        )
    assert denoiser.attention_head_width is not None
    check_range("model.denoiser.attention_head_width", denoiser.attention_head_width, 0, 4096)
    wrong = [level for level in denoiser.attention_levels if not 0 <= level < len(denoiser.channels)]
    if wrong:
        raise ConfigError(f"model.denoiser.attention_levels holds {wrong[0]}, levels are 0 to {len(denoiser.channels) - 1}")
