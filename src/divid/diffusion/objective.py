"""The terms of the objective, eq. (3) to (5) of the paper, and the explicit bottleneck's divergence."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed
from torch.nn import functional

from divid.model_parts import BottleneckConfig
from divid.types import DynamicTokens, StaticToken


def simple_loss(prediction: Tensor, target: Tensor) -> Float[Tensor, ""]:
    """Give the mean squared error of the prediction, in float32.

    Args:
        prediction: The network's output.
        target: eps or v.

    Source:
        Paper eq. (3), the simple DDPM loss. Differs: v by default instead of epsilon.
    """
    return functional.mse_loss(prediction.float(), target.float())


def pseudo_huber_loss(prediction: Tensor, target: Tensor, width: float) -> Float[Tensor, ""]:
    """Give 2 c (sqrt(r^2 + c^2) - c) of the prediction's errors r, averaged, in float32: r^2 where small, 2 c |r| where large.

    Where tokens and noisy frame do not tell exactly where an edge lies, the squared error asks for the mean of all its places,
    which is a blurred and broader edge; this asks for something nearer to the median, which is a sharp one.

    Args:
        prediction: The network's output.
        target: eps or v.
        width: c, above 0, in the target's units: of v, frames in [-1, 1].

    Source:
        Charbonnier et al. (1994); in diffusion Song and Dhariwal, "Improved Techniques for Training Consistency Models" (2024).
        Not in the paper, whose eq. (3) is the squared error.
    """
    error = prediction.float() - target.float()
    return (2 * width * ((error.square() + width**2).sqrt() - width)).mean()


def orthogonality_loss(static: StaticToken, dynamic: DynamicTokens) -> Float[Tensor, ""]:
    """Penalise what static and dynamic tokens have in common.

    At equal widths L_orth = mean_f cos(s, d_f)^2, which random pairs of width D hold at 1/D. At unequal widths no cosine is
    defined: then it is the mean squared correlation, over the batch's N clips and their frames, of every entry of s with every
    entry of d, less the 1/(N - 1) that independent tokens show among N clips, and at least 0.

    Without that allowance a small batch is nothing but chance: then a token lowers the value most by being the same for every
    clip, and so they did in training, first s, then d. For the same reason s has no gradient in this form.

    Args:
        static: s.
        dynamic: d_1..F.

    Source:
        Paper eq. (4), whose formula is lost; inferred from the text.
    """
    if static.shape[-1] == dynamic.shape[-1]:
        return functional.cosine_similarity(static[:, None], dynamic, dim=-1).square().mean()
    num_frames = dynamic.shape[1]
    static, dynamic = from_all_processes(static), from_all_processes(dynamic)
    chance = 1 / max(1, len(static) - 1)
    s = _standardise(static.detach().repeat_interleave(num_frames, dim=0))
    d = _standardise(dynamic.flatten(0, 1))
    with torch.autocast(s.device.type, enabled=False):
        return functional.relu((s.T @ d / len(d)).square().mean() - chance)


def decorrelation_loss(
    static: Float[Tensor, "clips static_dim"],
    summary: Float[Tensor, "clips features"],
    remembered_static: Float[Tensor, "earlier static_dim"],
    remembered_summary: Float[Tensor, "earlier features"],
) -> Float[Tensor, ""]:
    """Penalise what clips' dynamic tokens tell of their static ones: `orthogonality_loss` with a memory.

    The mean squared correlation, over the N clips of this batch and of the memory, of every entry of s with every entry of a
    summary of d_1..F, less the 1/(N - 1) that independent tokens show, and at least 0. Over hundreds of clips that allowance is
    small and a leak shows, which among the 8 of a batch it cannot.

    Only this batch's d has a gradient, N / B times as large as the value's own, since each of the N clips would have one in its
    turn. s has none: it would lower the value by varying no more, or by growing beyond all bounds.

    Args:
        static: s of this batch's B clips.
        summary: Mean and standard deviation over the frames of their d_1..F.
        remembered_static: s of earlier clips; there may be none.
        remembered_summary: The same summary of theirs.

    Source:
        The aim of paper eq. (4). Not in the paper.
    """
    with torch.autocast(static.device.type, enabled=False):
        s = _standardise(torch.cat([static.detach().float(), remembered_static]))
        d = _standardise(torch.cat([summary.float(), remembered_summary]))
        value = functional.relu((s.T @ d / len(d)).square().mean() - 1 / max(1, len(s) - 1))
        return value.detach() + len(s) / len(static) * (value - value.detach())


def token_distance(one: Float[Tensor, "*batch dim"], other: Float[Tensor, "*batch dim"]) -> Float[Tensor, ""]:
    """Give the mean squared distance of two sets of tokens that should be equal, in units of twice each entry's variance.

    0: equal; about 1: as far apart as tokens of any two clips. The variance, over the global batch, has its gradient as well: a
    ratio cannot be lowered by shrinking all tokens.

    Args:
        one: Tokens of some clips, of either kind.
        other: Tokens of the same clips, seen in another way.

    Source:
        Not in the paper. Invariance to augmentation as in joint-embedding methods, e.g. Bardes et al., "VICReg" (2022); what
        keeps tokens from collapsing here is the denoiser, which needs them.
    """
    everyone = torch.cat([from_all_processes(one), from_all_processes(other)])
    variance = everyone.float().flatten(0, -2).var(0).clamp_min(1e-6)
    return ((one.float() - other.float()).square() / (2 * variance)).mean()


def channel_profile(abar_t: Tensor, config: BottleneckConfig, progress: Tensor) -> Tensor:
    """Give w(t), the profile of the explicit bottleneck.

    Args:
        abar_t: abar at each step.
        config: Holds the profile's name.
        progress: t / (T - 1) at each step.
    """
    if config.profile == "one_minus_abar":
        return 1 - abar_t
    return progress if config.profile == "linear" else torch.ones_like(abar_t)


def channel_variance(logvar: Tensor, kappa: float, weight: Tensor) -> Tensor:
    """Give the variance sigma^2 + kappa w(t) with which the token that step t sees is drawn.

    Args:
        logvar: log sigma^2 of the token.
        kappa: Strength of the channel's noise.
        weight: w(t), broadcastable to `logvar`.

    Source:
        Method section 4, explicit option.
    """
    return logvar.exp() + kappa * weight


def channel_divergence(mean: Tensor, variance: Tensor, kappa: float, weight: Tensor) -> Float[Tensor, ""]:
    """Compute KL(N(mu, sigma^2 + kappa w) || N(0, 1 + kappa w)) in nats a token: summed over its entries, averaged over the rest.

    Args:
        mean: mu.
        variance: From `channel_variance`.
        kappa: As there.
        weight: w(t), as there.
    """
    prior = 1 + kappa * weight
    divergence = 0.5 * ((variance + mean.square()) / prior - 1 - (variance / prior).log())
    return divergence.sum(-1).mean()


def from_all_processes(clips: Tensor, *, even_without_gradients: bool = False) -> Tensor:
    """Join the processes' clips, since a correlation over the batch means the global batch; gradients flow back to each.

    Without gradients the clips stay as they are, where nothing else is said: process 0 validates alone, and would wait for the
    others for ever.

    Args:
        clips: This process's, one a row.
        even_without_gradients: All processes are here, though gradients are off.
    """
    is_shared = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
    if not is_shared or not (torch.is_grad_enabled() or even_without_gradients):
        return clips
    return _Gathered.apply(clips)


class _Gathered(torch.autograd.Function):
    """All processes' clips, process 0's first; each gets the sum of what the processes' losses have to say of its own."""

    @staticmethod
    def forward(ctx: Any, clips: Tensor) -> Tensor:
        ctx.num_clips = len(clips)
        parts = [torch.empty_like(clips, memory_format=torch.contiguous_format) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, clips.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(gradient)
        return gradient[distributed.get_rank() * ctx.num_clips :][: ctx.num_clips]


def _standardise(rows: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
    centred = rows - rows.mean(0)
    return centred / (centred.square().mean(0) + 1e-12).sqrt()
