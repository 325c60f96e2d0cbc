"""A prior over codes, fitted after training: a Gaussian over static tokens, a small autoregressive model over dynamic ones.

Most methods here are no generative models of codes (DiViD has no prior at all), and "sample the motion, keep the person" needs
one. It is fitted to the codes of training clips by a frozen encoder, in the same way for every method, and is no part of it:
every result that rests on it says so.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from divid.errors import ConfigError, DatasetError, ModelError, TrainingError
from divid.evaluation.codes import Told
from divid.randomness import derive_seed, make_generator
from divid.types import Codes, DynamicTokens, StaticToken

CHECK_EVERY = 10
"""Steps between two looks at the clips that are set aside."""
SCALE_RANGE = (-3.0, 2.0)
"""Logarithms of the least and the greatest standard deviation of a component, in units of the whitened tokens.

Deviations without end would let a net learn its clips by heart."""
ROUNDING = 1e-6
"""Deviation, as a share of the greatest, under which a direction of the tokens is rounding and no code."""


@dataclass(frozen=True)
class PriorOptions:
    """How the prior over dynamic tokens is fitted; that over static ones has no options.

    Args:
        hidden: Width of the recurrent net.
        components: Gaussians in the mixture of each next token.
        variance: Share of the tokens' variance that the directions kept must explain.
        max_directions: Most directions that are kept.
        num_steps: Optimiser steps.
        batch_size: Clips a step.
        learning_rate: Of AdamW; it decays along a cosine.
        set_aside: Share of the clips that choose the best step, and are not trained on.
        seed: Of first weights, batches and which clips are set aside.
    """

    hidden: int = 128
    components: int = 8
    variance: float = 0.999
    max_directions: int = 64
    num_steps: int = 600
    batch_size: int = 64
    learning_rate: float = 2e-3
    set_aside: float = 0.1
    seed: int = 0

    def validate(self) -> PriorOptions:
        """Check every value.

        Raises:
            ConfigError: One is outside its range.
        """
        for name, low, high in _RANGES:
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} of the prior is {getattr(self, name)}, must lie between {low} and {high}")
        return self


_RANGES = (
    ("hidden", 1, 4096), ("components", 1, 256), ("variance", 0.01, 1), ("max_directions", 1, 4096), ("num_steps", 1, 10**6),
    ("batch_size", 1, 10**5), ("learning_rate", 1e-9, 1), ("set_aside", 0, 0.9), ("seed", 0, 2**63 - 1),
)  # fmt: skip


class Whitening:
    """Turns vectors into independent numbers of variance 1 along the directions in which they vary most, and back.

    Args:
        rows: The vectors that it is made for, two or more.
        variance: Share of their variance that the directions kept must explain.
        max_directions: Most directions that are kept.
    """

    def __init__(self, rows: Float[Tensor, "rows dim"], variance: float = 1.0, max_directions: int | None = None) -> None:
        rows = rows.double()
        self.mean = rows.mean(0)
        _, deviations, directions = torch.linalg.svd(rows - self.mean, full_matrices=False)
        deviations = deviations / math.sqrt(len(rows) - 1)
        explained = deviations.square().cumsum(0) / deviations.square().sum().clamp_min(1e-300)
        wanted = int((explained < variance).sum()) + 1
        real = int((deviations > ROUNDING * deviations[0]).sum()) if deviations[0] > 0 else 0
        self.num_directions = max(1, min(wanted, real, max_directions or len(deviations)))
        self.explained = float(explained[self.num_directions - 1])
        self._directions = directions[: self.num_directions]
        self._deviations = deviations[: self.num_directions]

    def whiten(self, vectors: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows directions"]:
        """Give the numbers of some vectors, as float32; a direction that does not vary at all gives 0.

        Args:
            vectors: Like those that it was made for.
        """
        along = (vectors.double() - self.mean) @ self._directions.T
        return torch.where(self._deviations > 0, along / self._deviations.clamp_min(1e-300), 0.0).float()

    def restore(self, numbers: Float[Tensor, "*rows directions"]) -> Float[Tensor, "*rows dim"]:
        """Give the vectors of some numbers, as float32.

        Args:
            numbers: As `whiten` gives them.
        """
        return (self.mean + (numbers.double() * self._deviations) @ self._directions).float()


class DynamicPrior(nn.Module):
    """p(z_1..F) = prod p(z_f | z_1..f-1), each a mixture of Gaussians whose parameters a recurrent net gives.

    Args:
        width: Numbers of a (whitened) token.
        hidden: Width of the recurrent net.
        components: Gaussians in a mixture.
    """

    def __init__(self, width: int, hidden: int, components: int) -> None:
        super().__init__()
        self.width, self.components = width, components
        self.recurrent = nn.GRU(width + 1, hidden, batch_first=True)  # the token before, and whether there is none
        self.head = nn.Linear(hidden, components * (1 + 2 * width))

    @torch.no_grad()
    def start_at(self, tokens: Float[Tensor, "components width"]) -> None:
        """Let each component start at a place of its own, with deviation 1: components that start alike stay alike for long.

        Args:
            tokens: One whitened token a component.
        """
        low, high = SCALE_RANGE
        _, means, scales = self.head.bias.view(self.components, -1).split([1, self.width, self.width], dim=1)
        means.copy_(tokens)
        scales.fill_(math.log(-low / high))  # where the log deviation is 0

    def forward(
        self, before: Float[Tensor, "batch frames inputs"], state: Float[Tensor, "1 batch hidden"] | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give log weights, means and log deviations of the mixtures, and the net's state.

        Args:
            before: For each frame the token before it and a 0, or zeros and a 1 at the start.
            state: Of the net; default: that at the start.
        """
        features, state = self.recurrent(before, state)
        values = self.head(features).unflatten(-1, (self.components, 1 + 2 * self.width))
        logits, means, scales = values.split([1, self.width, self.width], dim=-1)
        low, high = SCALE_RANGE
        return logits.squeeze(-1).log_softmax(-1), means, low + (high - low) * scales.sigmoid(), state

    def log_prob(self, tokens: Float[Tensor, "batch frames width"]) -> Float[Tensor, " batch"]:
        """Give ln p(z_1..F) of each clip, in nats.

        Args:
            tokens: Whitened tokens.
        """
        weights, means, scales, _ = self(self._before(tokens))
        errors = (tokens[:, :, None] - means) / scales.exp()
        each = -0.5 * (errors.square() + math.log(2 * math.pi)).sum(-1) - scales.sum(-1)
        return (weights + each).logsumexp(-1).sum(-1)

    @torch.no_grad()
    def sample(self, seeds: Sequence[int], num_frames: int) -> Float[Tensor, "batch frames width"]:
        """Draw clips, token by token.

        Args:
            seeds: One a clip: seed i gives the same clip in any batch.
            num_frames: F.
        """
        generators = [make_generator(seed, "sampled dynamic tokens") for seed in seeds]
        noise = torch.stack([torch.randn(num_frames, self.width, generator=generator) for generator in generators])
        chosen = torch.stack([torch.rand(num_frames, generator=generator) for generator in generators])
        last = torch.cat([torch.zeros(len(seeds), self.width), torch.ones(len(seeds), 1)], dim=1)[:, None]
        tokens, state = [], None
        for f in range(num_frames):
            weights, means, scales, state = self(last, state)
            ends = weights[:, 0].exp().cumsum(-1)
            k = (chosen[:, f : f + 1] > ends).sum(-1).clamp(max=self.components - 1)
            rows = torch.arange(len(seeds))
            token = means[rows, 0, k] + scales[rows, 0, k].exp() * noise[:, f]
            tokens.append(token)
            last = torch.cat([token, torch.zeros(len(seeds), 1)], dim=1)[:, None]
        return torch.stack(tokens, dim=1)

    def _before(self, tokens: Tensor) -> Tensor:
        start = torch.zeros_like(tokens[:, :, :1])
        start[:, 0] = 1
        return torch.cat([functional.pad(tokens, (0, 0, 1, 0))[:, :-1], start], dim=2)


@dataclass(frozen=True)
class CodePrior:
    """A prior over codes that was fitted to those of some clips.

    Args:
        static: Mean and directions of the Gaussian over static tokens.
        whitening: Of the dynamic tokens.
        dynamic: The model of the whitened ones.
        facts: What a reader has to know of the fit.
    """

    static: Whitening
    whitening: Whitening
    dynamic: DynamicPrior
    facts: dict[str, Any]

    def sample_static(self, seeds: Sequence[int]) -> StaticToken:
        """Draw static tokens.

        Args:
            seeds: One a clip: seed i gives the same token in any batch.
        """
        width = self.static.num_directions
        noise = [torch.randn(width, generator=make_generator(seed, "sampled static token")) for seed in seeds]
        return self.static.restore(torch.stack(noise))

    def sample_dynamic(self, seeds: Sequence[int], num_frames: int) -> DynamicTokens:
        """Draw dynamic tokens.

        Args:
            seeds: One a clip: seed i gives the same tokens in any batch.
            num_frames: F.
        """
        return self.whitening.restore(self.dynamic.sample(seeds, num_frames))

    def to_text(self) -> str:
        """Give in one sentence what it is and that it is no part of the method."""
        facts = self.facts
        return (
            f"The prior was fitted afterwards to the codes of {facts['num_clips']} training clips and is no part of the method: "
            f"a Gaussian over static tokens ({facts['static_directions']} directions), a recurrent mixture of Gaussians over "
            f"dynamic tokens ({facts['dynamic_directions']} directions with {facts['dynamic_variance']:.1%} of their variance)."
        )


@torch.enable_grad()
def fit_prior(codes: Codes, options: PriorOptions | None = None, *, told: Told | None = None) -> CodePrior:
    """Fit a prior to the codes of training clips.

    Args:
        codes: Of training clips, on the CPU.
        options: How; default: all defaults.
        told: Hears of the progress.

    Raises:
        ConfigError: An option is outside its range.
        DatasetError: There are fewer than two clips.
        ModelError: The codes are not finite.
        TrainingError: The loss is not a number.
    """
    options = (options or PriorOptions()).validate()
    if len(codes.static) < 2:
        raise DatasetError(f"a prior over codes is fitted to those of 2 training clips or more, got {len(codes.static)}")
    if not (codes.static.isfinite().all() and codes.dynamic.isfinite().all()):
        raise ModelError("the model gives codes that hold NaN or infinite values, so no prior can be fitted: train it again")
    static = Whitening(codes.static)
    whitening = Whitening(codes.dynamic.flatten(0, 1), options.variance, options.max_directions)
    tokens = whitening.whiten(codes.dynamic)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(options.seed, "first weights of the prior"))
        dynamic = DynamicPrior(whitening.num_directions, options.hidden, options.components)
    rows = tokens.flatten(0, 1)
    generator = make_generator(options.seed, "places of the prior's components")
    dynamic.start_at(rows[torch.randint(len(rows), (options.components,), generator=generator)])
    facts = {
        "num_clips": len(tokens),
        "static_directions": static.num_directions,
        "dynamic_directions": whitening.num_directions,
        "dynamic_variance": whitening.explained,
        "components": options.components,
        **_train(dynamic, tokens, options, told),
    }
    return CodePrior(static, whitening, dynamic, facts)


def _train(model: DynamicPrior, tokens: Tensor, options: PriorOptions, told: Told | None) -> dict[str, Any]:
    """Train, and keep the weights that suit the clips set aside best (of few clips: the last); gives what came of it."""
    order = torch.randperm(len(tokens), generator=make_generator(options.seed, "clips set aside by the prior"))
    num_aside = int(options.set_aside * len(tokens))
    aside, kept = tokens[order[:num_aside]], tokens[order[num_aside:]]
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.num_steps)
    best, best_step, best_state = math.inf, options.num_steps, None
    for step in range(1, options.num_steps + 1):
        generator = make_generator(options.seed, step, "batch of the prior")
        rows = torch.randperm(len(kept), generator=generator)[: options.batch_size]
        loss = -model.log_prob(kept[rows]).mean() / tokens[0].numel()
        if not torch.isfinite(loss):
            raise TrainingError(f"the loss of the prior over codes is not a number in step {step}: take another --seed")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if num_aside and (step % CHECK_EVERY == 0 or step == options.num_steps):
            value = _nats(model, aside)
            if value < best:
                best, best_step, best_state = value, step, copy.deepcopy(model.state_dict())
        if told:
            told("fitting the prior", step, options.num_steps)
    if best_state is not None:
        model.load_state_dict(best_state)
    return {
        "nats_a_number": _nats(model, kept),
        "nats_a_number_set_aside": best if num_aside else None,
        "num_set_aside": num_aside,
        "step": best_step,
        "seed": options.seed,
    }


@torch.no_grad()
def _nats(model: DynamicPrior, tokens: Tensor) -> float:
    """Give the mean of -ln p over clips, frames and numbers; 1.42 for independent standard normal numbers."""
    return float(-model.log_prob(tokens).mean() / tokens[0].numel())
