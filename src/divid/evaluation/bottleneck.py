"""The time-varying bottleneck made visible: at which noise level the denoiser needs which token.

At every step t the error of x_0 is measured with a clip's own tokens, and again with s, or d_f, taken from another clip. The
rise, weighted as in the variational bound, is what the token is worth there: (SNR(t-1) - SNR(t)) / 2 nats for each unit of error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divid.data.clips import ClipDataset
from divid.data.module import middle_video
from divid.diffusion.schedule import add_noise, alphas_cumprod, prediction_to_x_0, prior_divergence, signal_to_noise
from divid.errors import ConfigError, DatasetError, ModelError
from divid.evaluation.quality import Estimate
from divid.model_parts import DiffusionConfig
from divid.models.divid import DividModel
from divid.randomness import make_generator
from divid.types import Codes, Disentangler, Video

TokenName = Literal["static", "dynamic"]
TOKENS: tuple[TokenName, ...] = get_args(TokenName)
SYMBOLS: dict[TokenName, str] = {"static": "s", "dynamic": "d_f"}

BATCH_CLIPS = 8
BITS = 1 / math.log(2)
"""Bits in a nat."""

Predict = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Called with (x_t, t, static, dynamic), one row a frame; gives eps or v."""
Told = Callable[[str, int, int | None], None]
"""Called with (what is done, timesteps done, timesteps in all)."""


@dataclass(frozen=True)
class Block:
    """Neighbouring timesteps for which one of them is measured.

    Args:
        first: The lowest.
        last: The highest.
        middle: The one that is measured.
    """

    first: int
    last: int
    middle: int


@dataclass(frozen=True)
class TokenShare:
    """What a token is worth over all noise levels, and where.

    Args:
        token: `static` or `dynamic`.
        total: Nats a frame, over all timesteps; the interval is over clips.
        noisy: Nats of it where SNR < 1: `x_t` is more noise than signal.
        clear: Nats of it where SNR >= 1.
    """

    token: TokenName
    total: Estimate
    noisy: float
    clear: float

    @property
    def noisy_share(self) -> float | None:
        """Share of the total where SNR < 1; None where the token is worth nothing in all."""
        return self.noisy / self.total.mean if self.total.mean > 0 else None

    @property
    def clear_share(self) -> float | None:
        """Share of the total where SNR >= 1; None as above."""
        return self.clear / self.total.mean if self.total.mean > 0 else None


@dataclass(frozen=True)
class BottleneckCurve:
    """What each token is worth at each measured timestep; everything in float64 and a frame, summed over its pixels.

    Args:
        blocks: The measured timesteps, and those that each stands for, from clear to noisy.
        snr: SNR(t) at each.
        weight: (SNR(t-1) - SNR(t)) / 2 at each.
        block_weight: The sum of that over all timesteps that it stands for.
        error: Squared error of x_0 with the clip's own tokens.
        rises: By token, its rise with another clip's, for each clip.
        divergence: KL(q(x_t | x_0) || N(0, I)) in nats: all that x_t itself tells of x_0.
        num_frames: Frames of each clip.
        seed: Of the noise and of the exchange of tokens.
    """

    blocks: tuple[Block, ...]
    snr: Float[Tensor, " points"]
    weight: Float[Tensor, " points"]
    block_weight: Float[Tensor, " points"]
    error: Float[Tensor, " points"]
    rises: dict[TokenName, Float[Tensor, "points clips"]]
    divergence: Float[Tensor, " points"]
    num_frames: int
    seed: int

    @property
    def num_clips(self) -> int:
        """Clips that were measured."""
        return self.rises["static"].shape[1]

    def nats(self, token: TokenName) -> Float[Tensor, " points"]:
        """Give what a token is worth at each measured timestep, mean over the clips.

        Args:
            token: Which one.
        """
        return self.weight * self.rises[token].mean(1)

    def cumulative(self, token: TokenName) -> Float[Tensor, " points"]:
        """Give what a token has been worth from pure noise down to each measured timestep and those that it stands for.

        Args:
            token: Which one.
        """
        return (self.block_weight * self.rises[token].mean(1)).flip(0).cumsum(0).flip(0)

    def share(self, token: TokenName) -> TokenShare:
        """Give a token's total, and its parts on both sides of SNR = 1 (by the measured timestep).

        Args:
            token: Which one.
        """
        nats = self.block_weight[:, None] * self.rises[token]
        is_noisy = self.snr < 1
        noisy, clear = (float(nats[chosen].sum(0).mean()) for chosen in (is_noisy, ~is_noisy))
        return TokenShare(token, Estimate.of(nats.sum(0).tolist()), noisy, clear)

    def to_text(self) -> str:
        """Give the table of where each token matters."""
        lines = [
            f"nats a frame (bits in brackets), {self.num_clips} clips of {self.num_frames} frames, "
            f"{len(self.blocks)} timesteps, seed {self.seed}",
            f"{'token':<8}{'in all':>24}{'95 % interval':>24}{'where SNR < 1':>24}{'where SNR >= 1':>24}",
        ]
        for token in TOKENS:
            share = self.share(token)
            lines.append(
                f"{SYMBOLS[token]:<8}{_nats_and_bits(share.total.mean):>24}{_interval(share.total):>24}"
                f"{_part(share.noisy, share.noisy_share):>24}{_part(share.clear, share.clear_share):>24}"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Give the table as JSON stores it; null where there is no number."""
        tokens = {}
        for token in TOKENS:
            share = self.share(token)
            tokens[token] = {
                "nats": share.total.mean,
                "bits": share.total.mean * BITS,
                "interval_nats": [share.total.low, share.total.high],
                "noisy_nats": share.noisy,
                "clear_nats": share.clear,
                "noisy_share": share.noisy_share,
                "clear_share": share.clear_share,
            }
        return {"num_clips": self.num_clips, "num_frames": self.num_frames, "seed": self.seed, "tokens": tokens}


def measure_bottleneck(
    model: Disentangler, clips: ClipDataset, *, num_points: int = 40, seed: int = 0, told: Told | None = None
) -> BottleneckCurve:
    """Measure what each token of a trained model is worth at each noise level.

    Args:
        model: A `DividModel` on its device, in evaluation mode.
        clips: Held-out clips, two or more.
        num_points: Timesteps to measure; all, if there are no more.
        seed: Of the noise and of the exchange of tokens.
        told: Hears of the progress.

    Raises:
        ConfigError: The method has no denoiser, or no timestep is to be measured.
        DatasetError: There is only one clip.
        ModelError: The model's answers are not finite.

    Source:
        Paper section 3.2, the time-varying information bottleneck; the measure is ours.
    """
    if not isinstance(model, DividModel):
        raise ConfigError(f"{type(model).__name__} has no denoiser, so no timesteps to look at: give a model of the method divid")
    options = model.options
    video = middle_video(clips, list(range(len(clips))), options.frames_per_sequence)
    with torch.no_grad():
        parts = [model.encode(part.to(model.abar.device)).to("cpu") for part in video.split(BATCH_CLIPS)]
    codes = Codes(torch.cat([part.static for part in parts]), torch.cat([part.dynamic for part in parts]))
    return information_curve(
        model.predict, video, codes, options.diffusion, num_points=num_points, seed=seed, device=model.abar.device, told=told
    )


@torch.no_grad()
def information_curve(
    predict: Predict,
    video: Video,
    codes: Codes,
    diffusion: DiffusionConfig,
    *,
    num_points: int = 40,
    seed: int = 0,
    device: torch.device | str = "cpu",
    told: Told | None = None,
) -> BottleneckCurve:
    """Measure what each token is worth to a denoiser at each noise level.

    Noise is a function of (seed, clip, timestep), the same with own and with foreign tokens. Which clip's tokens are put in their
    place is drawn once by the seed; they may be of the same person or action, so the worth of a token is, if anything, too small.

    Args:
        predict: The denoiser.
        video: The clips.
        codes: Their codes.
        diffusion: Forward process and what is predicted.
        num_points: Timesteps to measure.
        seed: Of noise and exchange.
        device: Where the denoiser lives.
        told: Hears of the progress.

    Raises:
        ConfigError: No timestep is to be measured.
        DatasetError: There is only one clip.
        ModelError: The denoiser's answers are not finite.
    """
    assert diffusion.schedule and diffusion.prediction_type
    if num_points < 1:
        raise ConfigError(f"{num_points} timesteps are to be measured, must be 1 or more")
    if len(video) < 2:
        raise DatasetError("the tokens of one clip are exchanged for another's, but there is only one clip: take 2 or more")
    abar = alphas_cumprod(diffusion.schedule, diffusion.num_train_timesteps)
    blocks = timestep_blocks(abar, num_points)
    partner = derangement(len(video), seed)
    foreign = {"static": Codes(codes.static[partner], codes.dynamic), "dynamic": Codes(codes.static, codes.dynamic[partner])}
    errors: dict[str, list[Tensor]] = {"own": [], **{token: [] for token in TOKENS}}
    for done, block in enumerate(blocks, start=1):
        noise = _noise(video, seed, block.middle)
        for name, given in (("own", codes), *foreign.items()):
            errors[name].append(_squared_errors(predict, video, given, noise, block.middle, abar, diffusion, device))
        if told:
            told("timesteps", done, len(blocks))
    own = torch.stack(errors["own"])
    snr = signal_to_noise(abar)
    first, last, middle = (torch.tensor([getattr(block, name) for block in blocks]) for name in ("first", "last", "middle"))
    return BottleneckCurve(
        blocks=blocks,
        snr=snr[middle],
        weight=(snr[middle - 1] - snr[middle]) / 2,
        block_weight=(snr[first - 1] - snr[last]) / 2,
        error=own.mean(1),
        rises={token: torch.stack(errors[token]) - own for token in TOKENS},
        divergence=prior_divergence(video.flatten(0, 1), abar[middle]),
        num_frames=video.shape[1],
        seed=seed,
    )


def timestep_blocks(abar: Float[Tensor, " timesteps"], num_points: int) -> tuple[Block, ...]:
    """Cut the timesteps 1 to T - 1 into at most so many blocks, evenly in log SNR, from clear to noisy.

    The error falls about as fast as the SNR grows, so that equal steps of its logarithm weigh about equally. Timestep 0 is left
    out: its term of the bound is a likelihood of pixels, not a difference of SNRs.

    Args:
        abar: From `alphas_cumprod`.
        num_points: Most blocks; with T - 1 or more every timestep has its own, and nothing is approximated.
    """
    log_snr = signal_to_noise(abar).log()
    steps = range(1, len(abar))
    if num_points >= len(steps):
        return tuple(Block(t, t, t) for t in steps)
    height = (log_snr[1] - log_snr[1:]) / (log_snr[1] - log_snr[-1])
    numbers = (height * num_points).long().clamp(max=num_points - 1).tolist()
    blocks = []
    for number in sorted(set(numbers)):
        members = [t for t in steps if numbers[t - 1] == number]
        centre = (log_snr[members[0]] + log_snr[members[-1]]) / 2
        blocks.append(Block(members[0], members[-1], min(members, key=lambda t: abs(float(log_snr[t] - centre)))))
    return tuple(blocks)


def derangement(count: int, seed: int) -> Int[Tensor, " count"]:
    """Give every clip another one as its partner, each once: a cycle through all of them in random order.

    Args:
        count: Number of clips, 2 or more.
        seed: The same seed gives the same partners.
    """
    order = torch.randperm(count, generator=make_generator(seed, "bottleneck partners"))
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)
    return partner


def _noise(video: Video, seed: int, t: int) -> Video:
    draws = [
        torch.randn(video.shape[1:], generator=make_generator(seed, "bottleneck noise", clip, t)) for clip in range(len(video))
    ]
    return torch.stack(draws)


def _squared_errors(
    predict: Predict,
    video: Video,
    codes: Codes,
    noise: Video,
    t: int,
    abar: Float[Tensor, " timesteps"],
    diffusion: DiffusionConfig,
    device: torch.device | str,
) -> Float[Tensor, " clips"]:
    """Give each clip's squared error of x_0, summed over pixels and averaged over frames, in float64."""
    assert diffusion.prediction_type
    results = []
    for start in range(0, len(video), BATCH_CLIPS):
        chosen = slice(start, start + BATCH_CLIPS)
        x_0 = video[chosen].double()
        count, num_frames = x_0.shape[:2]
        static = codes.static[chosen, None].expand(-1, num_frames, -1).flatten(0, 1).to(device)
        x_t = add_noise(x_0, noise[chosen].double(), abar[t]).flatten(0, 1).to(static.dtype)
        steps = torch.full((len(x_t),), t, device=device)
        prediction = predict(x_t.to(device), steps, static, codes.dynamic[chosen].flatten(0, 1).to(device)).cpu()
        if not prediction.isfinite().all():
            raise ModelError(f"the model's prediction at timestep {t} holds NaN or infinite values: train it again")
        estimate = prediction_to_x_0(prediction.double(), x_t.double(), abar[t], diffusion.prediction_type)
        results.append((estimate.unflatten(0, (count, num_frames)) - x_0).square().sum((2, 3, 4)).mean(1))
    return torch.cat(results)


def _nats_and_bits(nats: float) -> str:
    return f"{nats:.4g} ({nats * BITS:.4g})"


def _interval(estimate: Estimate) -> str:
    return f"[{estimate.low:.4g}, {estimate.high:.4g}]"


def _part(nats: float, share: float | None) -> str:
    return f"{nats:.4g}  {'no share' if share is None else f'{share:.1%}'}"
