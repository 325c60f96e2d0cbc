"""From frame features to tokens: the residual, the static MLP and the dynamic LSTM with attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from divid.model_parts import EncoderConfig, TokenConfig
from divid.precision import run_recurrent
from divid.types import Codes, DynamicTokens, FrameFeatures, StaticToken


def residual_features(
    features: Float[Tensor, "batch frames dim"], reference: Float[Tensor, "batch 1 dim"]
) -> Float[Tensor, "batch frames dim"]:
    """Subtract the reference frame's features from every frame's: r_f = h_f - h_1.

    The additive part that all frames share with the reference is gone before motion is encoded, so the dynamic tokens cannot
    simply carry it. What moves still shows the person wherever it moves.

    Args:
        features: h of every frame.
        reference: h_1, as a rule the first frame's own, whose residual is then 0.

    Source:
        Paper section 3.2, "Architectural Bias". Differs: the first frame keeps its place, with r_1 = 0.
    """
    return features - reference


def unit_mean_square(tokens: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
    """Scale each token to a mean square of 1, so that noise of a given size leaves it only so many bits.

    Args:
        tokens: Of either kind.

    Source:
        Not in the paper; the Gaussian channel with limited power (Shannon, 1948), whose capacity is log2(1 + signal / noise) / 2.
    """
    return functional.rms_norm(tokens.float(), tokens.shape[-1:]).to(tokens.dtype)


def keep_variance(layer: nn.Linear | nn.Conv2d, *, is_before_relu: bool = False) -> None:
    """Initialise a layer so that clips differ as much after it as before it, without a bias that they share.

    PyTorch's own initialisation shrinks differences to a third at every layer and adds a common bias: a static token that
    passed four such layers was nearly the same for all clips at the start, and the dynamic tokens learned the person instead.

    Args:
        layer: The layer.
        is_before_relu: A ReLU follows, which halves the variance.
    """
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu" if is_before_relu else "linear")
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


@dataclass(frozen=True)
class TokenDistributions:
    """Tokens as Gaussians, which the explicit bottleneck needs; without it both variances are `None`.

    Args:
        codes: The means.
        static_logvar: log variance of s.
        dynamic_logvar: log variance of d.
    """

    codes: Codes
    static_logvar: StaticToken | None = None
    dynamic_logvar: DynamicTokens | None = None


class SequenceEncoder(nn.Module):
    """Turn the frames' features into one static token and one dynamic token a frame.

    Args:
        config: Widths, resolved.
        tokens: Token widths and the residual switch, resolved.
        num_features: Length of a frame's feature vector.
        has_variances: Give log variances too.

    Source:
        Paper section 4.1, "Static Encoder" and "Dynamic Encoder".
    """

    def __init__(self, config: EncoderConfig, tokens: TokenConfig, num_features: int, *, has_variances: bool = False) -> None:
        super().__init__()
        assert config.static_hidden and tokens.static_dim and tokens.dynamic_dim
        self.use_residual, self.has_variances = tokens.use_residual, has_variances
        self.scales_static, self.scales_dynamic = tokens.static_noise > 0, tokens.dynamic_noise > 0
        heads = 2 if has_variances else 1
        self.static_mlp = nn.Sequential(
            nn.Linear(num_features, config.static_hidden),
            nn.ReLU(),
            nn.Linear(config.static_hidden, config.static_hidden),
            nn.ReLU(),
            nn.Linear(config.static_hidden, heads * tokens.static_dim),
        )
        for layer in self.static_mlp:
            if isinstance(layer, nn.Linear):
                keep_variance(layer, is_before_relu=layer is not self.static_mlp[-1])
        width = 2 * config.lstm_hidden
        self.lstm = nn.LSTM(num_features, config.lstm_hidden, batch_first=True, bidirectional=True)
        self.attention = nn.MultiheadAttention(width, config.attention_heads, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.dynamic_head = nn.Linear(width, heads * tokens.dynamic_dim)

    def forward(
        self,
        features: FrameFeatures,
        reference: Float[Tensor, "batch 1 dim"],
        static_features: Float[Tensor, "batch *seen dim"],
    ) -> TokenDistributions:
        """Give the tokens of the frames.

        Args:
            features: h of the frames, in order.
            reference: h of the frame that is subtracted.
            static_features: h that the static token sees; of several frames: their tokens' mean is the clip's.
        """
        static = self.static_mlp(static_features)
        if static.ndim == 3:
            static = static.mean(1)
        if self.scales_static:
            static = unit_mean_square(static)
        motion = residual_features(features, reference) if self.use_residual else features
        hidden, _ = run_recurrent(self.lstm, motion)
        attended, _ = self.attention(hidden, hidden, hidden, need_weights=False)
        dynamic = self.dynamic_head(self.norm(hidden + attended))
        if self.scales_dynamic:
            dynamic = unit_mean_square(dynamic)
        if not self.has_variances:
            return TokenDistributions(Codes(static, dynamic))
        static_mean, static_logvar = static.chunk(2, dim=-1)
        dynamic_mean, dynamic_logvar = dynamic.chunk(2, dim=-1)
        limits = (-12.0, 6.0)
        return TokenDistributions(
            Codes(static_mean, dynamic_mean), torch.clamp(static_logvar, *limits), torch.clamp(dynamic_logvar, *limits)
        )
