"""Every option of the baselines, as dataclasses (this file imports no torch).

A field that is `None` takes the value of the preset or of the objective; `resolve` fills them all in. `preset`, `image_size`,
`channels`, `encoder` and the two fields that training sets mean what they mean in `divid.config.ModelConfig`, so that any recipe
can be trained with another method.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, Self, get_args

from divid.config import check_perceptual
from divid.config_checks import check_choice, check_range
from divid.errors import ConfigError
from divid.model_parts import EncoderConfig, FeatureNetworkName, PerceptualConfig
from divid.presets import PRESETS, PresetName, fill_in

Backbone = Literal["divid", "dcgan"]
Objective = Literal["paper", "original"]
PixelLoss = Literal["squared", "absolute"]
FirstPosition = Literal["noise", "noise_in_training", "zeros"]

SMALLEST_DCGAN_MAP = 4
"""Height and width at which the strided convolutions of the `dcgan` backbone end."""


@dataclass
class VAEConfig:
    """What both baselines have.

    Args:
        preset: Size of the `divid` backbone, and `image_size`, where they are left at `None`.
        image_size: Height and width of the frames (preset).
        channels: 1 for grey, 3 for RGB.
        max_frame_spacing: As in `ModelConfig`; set by training.
        frames_per_sequence: As in `ModelConfig`; set by training.
        num_train_steps: Steps of the training run, for weights that change with its progress; set by training. 0: unknown, the
            weights are at their final values.
        backbone: `divid`: DiViD's frame encoder and a decoder that mirrors it (what the DiViD paper compares against), or the
            original's `dcgan`.
        encoder: The `divid` backbone (only what concerns the frame encoder counts).
        objective: Weights left at `None`: those of the DiViD paper, with a perceptual loss, or the `original` ones, without.
        pixel_loss: Pixel errors: `squared` or `absolute`.
        perceptual: The perceptual part.
        feature_dim: g, width of a frame's features in the `dcgan` backbone.
        static_dim: Width of s.
        dynamic_dim: Width of each z_t.
        hidden: Width of the dynamic prior's LSTM cells, and of the method's own hidden layers.
    """

    preset: PresetName = "tiny"
    image_size: int | None = None
    channels: int = 3
    max_frame_spacing: int = 0
    frames_per_sequence: int = 10
    num_train_steps: int = 0
    backbone: Backbone = "divid"
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    objective: Objective = "paper"
    pixel_loss: PixelLoss = "squared"
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    feature_dim: int = 256
    static_dim: int = 256
    dynamic_dim: int = 256
    hidden: int = 64

    def resolve(self) -> Self:
        """Fill in the values of preset and objective and check every field.

        Returns:
            A new config without any `None`.

        Raises:
            ConfigError: A value is outside its range, or two do not fit together.
        """
        check_choice("model.preset", self.preset, PRESETS)
        check_choice("model.objective", self.objective, get_args(Objective))
        check_choice("model.backbone", self.backbone, get_args(Backbone))
        check_choice("model.pixel_loss", self.pixel_loss, get_args(PixelLoss))
        if self.perceptual.network is not None:
            check_choice("model.perceptual.network", self.perceptual.network, get_args(FeatureNetworkName))
        preset = PRESETS[self.preset]
        network = "efficientnet_lite0" if self.objective == "paper" else "none"
        resolved = replace(
            self,
            image_size=preset["image_size"] if self.image_size is None else self.image_size,
            encoder=fill_in(self.encoder, preset["encoder"]),
            perceptual=fill_in(self.perceptual, {"network": network}),
        )
        _check_vae(resolved)
        return resolved


@dataclass
class DBSEWeights:
    """Weights of DBSE's objective; those left at `None` are the objective's.

    Args:
        sequence: Of the whole sequence's reconstruction (paper 10; original: Sprites 5, MUG 87).
        first_frame: Of the first frame's reconstruction (original: Sprites 1, MUG 30; paper 2, the same share of `sequence`).
        static_kl: Of the static KL (paper 5; original: Sprites 1, MUG 15).
        dynamic_kl: Of the dynamic KL (1).
    """

    sequence: float | None = None
    first_frame: float | None = None
    static_kl: float | None = None
    dynamic_kl: float | None = None


DBSE_WEIGHTS: dict[str, dict[str, float]] = {
    "paper": {"sequence": 10.0, "first_frame": 2.0, "static_kl": 5.0, "dynamic_kl": 1.0},
    "original": {"sequence": 5.0, "first_frame": 1.0, "static_kl": 1.0, "dynamic_kl": 1.0},
}
"""Weights by objective; the DiViD paper's 10 for reconstructions is split between DBSE's two as in the original."""


@dataclass
class DBSEConfig(VAEConfig):
    """A DBSE model; sizes as in the original on Sprites.

    Args:
        weights: Of the loss terms.
        sequence_starts_at: First frame of the whole sequence's reconstruction: 1, or 2 (original on MUG).
        dynamic_kl_cycles: Cycles over the run in which the dynamic KL's weight rises along a cosine and stays (original on
            MUG 20; 0: constant).
        first_position: What stands in the place of the first frame's residual: `noise` (drawn anew in each training step, one
            seeded draw otherwise; the original draws anew there too), `noise_in_training` (zeros otherwise), or `zeros`.
    """

    weights: DBSEWeights = field(default_factory=DBSEWeights)
    sequence_starts_at: int = 1
    dynamic_kl_cycles: int = 0
    first_position: FirstPosition = "noise"

    def resolve(self) -> Self:
        """Fill in and check as `VAEConfig.resolve`."""
        check_choice("model.first_position", self.first_position, get_args(FirstPosition))
        resolved = super().resolve()
        check_range("model.sequence_starts_at", resolved.sequence_starts_at, 1, 2)
        check_range("model.dynamic_kl_cycles", resolved.dynamic_kl_cycles, 0, 10**6)
        return replace(resolved, weights=_checked_weights(resolved.weights, DBSE_WEIGHTS[resolved.objective]))


@dataclass
class SPYLWeights:
    """Weights of SPYL's objective; those left at `None` are the objective's, which are the same in the paper and the original.

    Args:
        reconstruction: Of the reconstruction (10).
        static_kl: Of the static KL (5).
        dynamic_kl: Of the dynamic KL (1).
        mutual_information: Of the mutual information between s and d (1).
        contrast: c, of the two contrastive terms, once they have begun (1).
    """

    reconstruction: float | None = None
    static_kl: float | None = None
    dynamic_kl: float | None = None
    mutual_information: float | None = None
    contrast: float | None = None


SPYL_WEIGHTS: dict[str, float] = {
    "reconstruction": 10.0,
    "static_kl": 5.0,
    "dynamic_kl": 1.0,
    "mutual_information": 1.0,
    "contrast": 1.0,
}


@dataclass
class SPYLConfig(VAEConfig):
    """A SPYL model; sizes as in the original.

    Args:
        weights: Of the loss terms.
        contrast_starts_at: Share of the steps in which the contrastive terms are left out (original: 50 of 1000 epochs).
        temperature: Of the contrastive terms.
        bank_size: Clips generated for the bank of negatives, a clip of the batch; half of the bank are negatives.
        num_train_clips: N, clips in the training data, which the estimate of mutual information needs; set by training. 0:
            unknown, as many as in a batch.
    """

    feature_dim: int = 128
    dynamic_dim: int = 32
    hidden: int = 256
    weights: SPYLWeights = field(default_factory=SPYLWeights)
    contrast_starts_at: float = 0.05
    temperature: float = 0.5
    bank_size: int = 4
    num_train_clips: int = 0

    def resolve(self) -> Self:
        """Fill in and check as `VAEConfig.resolve`."""
        resolved = super().resolve()
        check_range("model.contrast_starts_at", resolved.contrast_starts_at, 0, 1)
        check_range("model.temperature", resolved.temperature, 1e-3, 100)
        check_range("model.bank_size", resolved.bank_size, 2, 1000)
        check_range("model.num_train_clips", resolved.num_train_clips, 0, 10**9)
        return replace(resolved, weights=_checked_weights(resolved.weights, SPYL_WEIGHTS))


def _checked_weights(weights: Any, defaults: dict[str, float]) -> Any:
    assert is_dataclass(weights)
    filled = fill_in(weights, defaults)
    for f in fields(filled):
        check_range(f"model.weights.{f.name}", getattr(filled, f.name), 0, 10**6)
    return filled


def _check_vae(config: VAEConfig) -> None:
    size = config.image_size
    assert size is not None
    check_choice("model.channels", config.channels, (1, 3))
    check_perceptual("model.perceptual", config.perceptual)
    check_range("model.image_size", size, 8, 1024)
    check_range("model.max_frame_spacing", config.max_frame_spacing, 0, 10**9)
    check_range("model.num_train_steps", config.num_train_steps, 0, 10**9)
    for name in ("feature_dim", "static_dim", "dynamic_dim", "hidden"):
        check_range(f"model.{name}", getattr(config, name), 1, 10**5)
    if config.backbone == "dcgan" and size & (size - 1):
        raise ConfigError(f"model.image_size is {size}, must be a power of two for the dcgan backbone: 32, 64 or 128, say")
    unit = 2 ** (len(config.encoder.multipliers) - 1)
    if config.backbone == "divid" and size % unit:
        raise ConfigError(f"model.image_size is {size}, must be a multiple of {unit} for this encoder")
