"""What the baselines share: Gaussians and their divergences, the dynamic prior, two backbones, and the sequential VAE itself.

A sequential VAE has one latent s a clip and one z_t a frame, a standard normal prior over s and a recurrent one over z_1..F.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from divid.baselines.networks import DCGANDecoder, DCGANEncoder, UpsamplingDecoder, initialise_as_original
from divid.baselines.options import VAEConfig
from divid.config import SamplingConfig, to_dict
from divid.errors import ConfigError
from divid.models.frame_encoder import FrameEncoder
from divid.models.sequence_model import SequenceModel, take_frames
from divid.precision import autocast, run_recurrent
from divid.randomness import Randomness, make_generator
from divid.types import Codes, FrameFeatures, SamplingCallback, Video


@dataclass(frozen=True)
class Gaussian:
    """Normal distributions with diagonal covariance.

    Args:
        mean: mu.
        logvar: log sigma^2.
    """

    mean: Float[Tensor, "*shape"]
    logvar: Float[Tensor, "*shape"]

    def draw(self, noise: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Give mu + sigma noise.

        Args:
            noise: Standard normal.
        """
        return self.mean + (0.5 * self.logvar).exp() * noise


@dataclass(frozen=True)
class Posteriors:
    """What the encoder says of the latents of clips.

    Args:
        static: q(s | x), of shape (B, Ds).
        dynamic: q(z_t | x), of shape (B, F, Dd).
    """

    static: Gaussian
    dynamic: Gaussian

    @property
    def codes(self) -> Codes:
        """The means."""
        return Codes(self.static.mean, self.dynamic.mean)


def at_least_single(values: Tensor) -> Tensor:
    """Give values in float32, or in float64 if they are: sums over many pixels do not fit half precision.

    Args:
        values: Of any floating type.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def standard_divergence(q: Gaussian) -> Float[Tensor, ""]:
    """Give KL(q || N(0, I)) = -1/2 sum(1 + log sigma^2 - mu^2 - sigma^2), summed over all but the clips, averaged over these.

    Args:
        q: One distribution a clip.
    """
    mean, logvar = at_least_single(q.mean), at_least_single(q.logvar)
    return -0.5 * (1 + logvar - mean.square() - logvar.exp()).flatten(1).sum(1).mean()


def divergence(q: Gaussian, p: Gaussian) -> Float[Tensor, ""]:
    """Give KL(q || p) = 1/2 sum(log sigma_p^2 - log sigma_q^2 + (sigma_q^2 + (mu_q - mu_p)^2) / sigma_p^2 - 1), a mean of clips.

    Args:
        q: One distribution a clip.
        p: The same.
    """
    mean_q, logvar_q, mean_p, logvar_p = map(at_least_single, (q.mean, q.logvar, p.mean, p.logvar))
    ratio = (logvar_q - logvar_p).exp() + (mean_q - mean_p).square() * (-logvar_p).exp()
    return 0.5 * (logvar_p - logvar_q + ratio - 1).flatten(1).sum(1).mean()


class DynamicPrior(nn.Module):
    """p(z_t | z_1..t-1): two stacked LSTM cells that begin with zero state and zero input, and linear heads.

    Args:
        dim: Width of z_t.
        hidden: Width of each cell.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.cells = nn.LSTM(dim, hidden, num_layers=2, batch_first=True)
        self.mean = nn.Linear(hidden, dim)
        self.logvar = nn.Linear(hidden, dim)

    def forward(self, drawn: Float[Tensor, "batch frames dim"]) -> Gaussian:
        """Give the prior of every z_t after the posterior's samples before it.

        Args:
            drawn: z_1..F, drawn from the posterior.
        """
        hidden, _ = run_recurrent(self.cells, functional.pad(drawn[:, :-1], (0, 0, 1, 0)))
        return Gaussian(self.mean(hidden), self.logvar(hidden))

    def draw(self, noise: Float[Tensor, "batch frames dim"]) -> Float[Tensor, "batch frames dim"]:
        """Draw z_1..F one after the other, each after the samples before it.

        Args:
            noise: Standard normal.
        """
        previous, state, drawn = torch.zeros_like(noise[:, :1]), None, []
        for frame in range(noise.shape[1]):
            hidden, state = run_recurrent(self.cells, previous, state)
            previous = Gaussian(self.mean(hidden), self.logvar(hidden)).draw(noise[:, frame : frame + 1])
            drawn.append(previous)
        return torch.cat(drawn, dim=1)


class SequentialVAE(SequenceModel):
    """A sequential VAE with a frame encoder, a dynamic prior and a frame decoder; meets `divid.types.Disentangler`.

    A method adds the networks of its posteriors, `posteriors` and `losses`, and ends its construction with `finish`.

    Args:
        options: Resolved.
    """

    decodes_in_one_pass: ClassVar[bool] = True
    """Solver and steps of sampling mean nothing here."""

    def __init__(self, options: VAEConfig) -> None:
        super().__init__()
        assert options.image_size
        self.options = options
        self.register_to_config(options=to_dict(options))
        size, channels, latent_dim = options.image_size, options.channels, options.static_dim + options.dynamic_dim
        self.frame_encoder: nn.Module
        self.frame_decoder: nn.Module
        if options.backbone == "dcgan":
            self.frame_encoder = DCGANEncoder(size, channels, options.feature_dim)
            self.frame_decoder = DCGANDecoder(size, channels, latent_dim)
        else:
            self.frame_encoder = FrameEncoder(options.encoder, size, channels)
            self.frame_decoder = UpsamplingDecoder(options.encoder, size, channels, latent_dim)
        self.num_features: int = self.frame_encoder.num_features
        self.prior = DynamicPrior(options.dynamic_dim, options.hidden)

    def blocks(self) -> list[nn.Module]:
        """Give the parts by which weights are gathered that processes share out; see `SequenceModel.blocks`."""
        return [*super().blocks(), self.frame_decoder]

    def finish(self) -> None:
        """Initialise the weights as the original does, if the backbone is the original's."""
        if self.options.backbone == "dcgan":
            initialise_as_original(self)

    @abstractmethod
    def posteriors(self, features: FrameFeatures, randomness: Randomness | None = None) -> Posteriors:
        """Give the posteriors of the latents.

        Args:
            features: g of the frames, in order.
            randomness: The training step's, in training.
        """

    @abstractmethod
    def losses(self, video: Video, randomness: Randomness, num_decoded_frames: int = 0) -> dict[str, Tensor]:
        """Give the terms of the objective; see `Disentangler.losses`."""

    def sequence_codes(self, features: FrameFeatures) -> Codes:
        """Turn the features of a whole sequence into posterior means."""
        return self.posteriors(features).codes

    @torch.no_grad()
    def decode(
        self,
        codes: Codes,
        *,
        seeds: Sequence[int],
        sampling: SamplingConfig | None = None,
        first_frame: int = 0,
        callback: SamplingCallback | None = None,
    ) -> Video:
        """Make video from codes; see `Disentangler.decode`. Nothing is drawn here, so every seed gives the same video.

        Raises:
            ConfigError: Seeds and clips differ in number.
        """
        sampling = (sampling or SamplingConfig()).validate()
        if len(seeds) != len(codes.static):
            raise ConfigError(f"decode got {len(seeds)} seeds for {len(codes.static)} clips, give one a clip")
        like = next(self.parameters())
        static, dynamic = codes.static.to(like), codes.dynamic.to(like)
        frames_at_once = max(1, sampling.chunk_frames // len(seeds))
        with autocast(like.device.type, sampling.precision):
            video = torch.cat([self.render(static, part) for part in dynamic.split(frames_at_once, dim=1)], dim=1)
        video = at_least_single(video)
        if callback:
            callback(1, 1, video)
        return video

    @torch.no_grad()
    def draw_codes(self, seeds: Sequence[int], num_frames: int) -> Codes:
        """Draw codes from the priors, as for clips that nobody filmed.

        Args:
            seeds: One a clip.
            num_frames: F.
        """
        like = next(self.parameters())
        shapes = {"static": (self.options.static_dim,), "dynamic": (num_frames, self.options.dynamic_dim)}
        noise = {
            name: torch.stack([torch.randn(shape, generator=make_generator(seed, name, "prior")) for seed in seeds]).to(like)
            for name, shape in shapes.items()
        }
        return Codes(noise["static"], self.prior.draw(noise["dynamic"]))

    def render(self, static: Float[Tensor, "batch static_dim"], dynamic: Float[Tensor, "batch frames dynamic_dim"]) -> Video:
        """Decode every frame from [z_t, s], with gradients.

        Args:
            static: s.
            dynamic: z_1..F.
        """
        latents = torch.cat([dynamic, static[:, None].expand(-1, dynamic.shape[1], -1)], dim=-1)
        frames = self.frame_decoder(latents.flatten(0, 1))
        return 2 * frames.unflatten(0, dynamic.shape[:2]) - 1

    def draw_posteriors(self, posteriors: Posteriors, randomness: Randomness) -> Codes:
        """Draw s and z_1..F of the clips of a training step.

        Args:
            posteriors: Of the clips.
            randomness: The step's.
        """
        static, dynamic = posteriors.static, posteriors.dynamic
        return Codes(
            static.draw(randomness.normal("static latent", static.mean.shape[1:], static.mean.device)),
            dynamic.draw(randomness.normal("dynamic latents", dynamic.mean.shape[1:], dynamic.mean.device)),
        )

    def pixel_errors(self, made: Video, real: Video) -> Float[Tensor, "batch frames"]:
        """Give each frame's squared (or absolute) error, summed over its values on the scale from 0 to 1.

        Args:
            made: Decoded.
            real: What was encoded.
        """
        errors = (at_least_single(made) - real) / 2
        errors = errors.abs() if self.options.pixel_loss == "absolute" else errors.square()
        return errors.sum((2, 3, 4))

    def reconstruction_errors(self, made: Video, real: Video) -> dict[str, Float[Tensor, "batch frames"]]:
        """Give each frame's errors: `pixels`, `perceptual` if the model has that part, and their weighted sum `both`.

        Args:
            made: Decoded.
            real: What was encoded.

        Raises:
            ConfigError, ModelError, MissingExtraError: The feature network cannot be loaded.
        """
        errors = {"pixels": self.pixel_errors(made, real)}
        options = self.options.perceptual
        if options.network == "none":
            return {**errors, "both": errors["pixels"]}
        distances = self.perceptual_distance(options)(made.flatten(0, 1), real.flatten(0, 1)).unflatten(0, real.shape[:2])
        errors["perceptual"] = at_least_single(distances) * math.prod(self.frame_shape)
        return {**errors, "both": errors["pixels"] + options.weight * errors["perceptual"]}

    def frame_errors(
        self, codes: Codes, real: Video, picked: Int[Tensor, "batch picked"]
    ) -> dict[str, Float[Tensor, "batch picked"]]:
        """Decode some frames of each clip and give their errors, as `reconstruction_errors` does.

        Args:
            codes: Of the clips, with all frames.
            real: The clips.
            picked: Places of the frames of each clip.
        """
        return self.reconstruction_errors(
            self.render(codes.static, take_frames(codes.dynamic, picked)), take_frames(real, picked)
        )

    def progress(self, randomness: Randomness) -> float:
        """Give the share of the run that is over, in [0, 1]; 1 where its length is unknown, and for held-out clips.

        Args:
            randomness: The step's; held-out clips have negative steps.
        """
        steps = self.options.num_train_steps
        return min(1.0, randomness.step / steps) if steps and randomness.step >= 0 else 1.0


def weighted_total(terms: dict[str, Tensor], weights: Any) -> Tensor:
    """Give the weighted sum of those terms that have a weight.

    Args:
        terms: Scalars by name.
        weights: A dataclass with a field for each weighted term.
    """
    return torch.stack([getattr(weights, name) * term for name, term in terms.items() if hasattr(weights, name)]).sum()
