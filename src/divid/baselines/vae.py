"""What the baselines share: Gaussians and their divergences, the dynamic prior, two backbones, and the sequential VAE itself.

A sequential VAE has one latent s a clip and one z_t a frame, a standard normal prior over s and a recurrent one over z_1..F.
"""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from divid.baselines.options import SMALLEST_DCGAN_MAP, VAEConfig
from divid.baselines.perceptual import PerceptualDistance, load_feature_network
from divid.config import EncoderConfig, SamplingConfig, to_dict
from divid.errors import ConfigError
from divid.models.frame_encoder import GROUPS, FrameEncoder, ResidualBlock
from divid.randomness import Randomness, make_generator
from divid.types import Codes, FrameFeatures, ReferenceFeatures, SamplingCallback, Video

FIRST_DCGAN_WIDTH, LARGEST_DCGAN_WIDTH = 64, 512
ATTENTION_HEADS = 4


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
        hidden, _ = self.cells(functional.pad(drawn[:, :-1], (0, 0, 1, 0)))
        return Gaussian(self.mean(hidden), self.logvar(hidden))

    def draw(self, noise: Float[Tensor, "batch frames dim"]) -> Float[Tensor, "batch frames dim"]:
        """Draw z_1..F one after the other, each after the samples before it.

        Args:
            noise: Standard normal.
        """
        previous, state, drawn = torch.zeros_like(noise[:, :1]), None, []
        for frame in range(noise.shape[1]):
            hidden, state = self.cells(previous, state)
            previous = Gaussian(self.mean(hidden), self.logvar(hidden)).draw(noise[:, frame : frame + 1])
            drawn.append(previous)
        return torch.cat(drawn, dim=1)


def dcgan_widths(image_size: int) -> list[int]:
    """Give the widths of the strided convolutions that bring an image to 4x4: 64, 128, 256, 512 for 64x64.

    Args:
        image_size: A power of two, 8 or more.
    """
    num_halvings = int(math.log2(image_size // SMALLEST_DCGAN_MAP))
    return [min(FIRST_DCGAN_WIDTH * 2**level, LARGEST_DCGAN_WIDTH) for level in range(num_halvings)]


class DCGANEncoder(nn.Module):
    """Strided convolutions down to 4x4, then one to a vector of numbers in [-1, 1].

    Args:
        image_size: A power of two.
        channels: 1 or 3.
        feature_dim: g.
    """

    def __init__(self, image_size: int, channels: int, feature_dim: int) -> None:
        super().__init__()
        self.num_features = feature_dim
        layers: list[nn.Module] = []
        for width in dcgan_widths(image_size):
            layers += [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
            channels = width
        layers += [nn.Conv2d(channels, feature_dim, SMALLEST_DCGAN_MAP), nn.BatchNorm2d(feature_dim), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, frames: Float[Tensor, "images channels height width"]) -> Float[Tensor, "images features"]:
        """Give g_t.

        Args:
            frames: In [-1, 1].
        """
        return self.layers((frames + 1) / 2).flatten(1)


class DCGANDecoder(nn.Module):
    """The encoder's mirror: transposed convolutions from a vector to 4x4, and on to the image.

    Args:
        image_size: A power of two.
        channels: 1 or 3.
        latent_dim: Width of [z_t, s].
    """

    def __init__(self, image_size: int, channels: int, latent_dim: int) -> None:
        super().__init__()
        widths = dcgan_widths(image_size)[::-1]
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent_dim, widths[0], SMALLEST_DCGAN_MAP)]
        for width, next_width in zip(widths, [*widths[1:], channels], strict=True):
            layers += [nn.BatchNorm2d(width), nn.LeakyReLU(0.2), nn.ConvTranspose2d(width, next_width, 4, stride=2, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Float[Tensor, "images latent_dim"]) -> Float[Tensor, "images channels height width"]:
        """Give frames in [0, 1]."""
        return self.layers(latents[:, :, None, None]).sigmoid()


class SpatialAttention(nn.Module):
    """Self-attention over the places of a feature map, beside a straight path.

    Args:
        channels: Width of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.queries_keys_values = nn.Conv2d(channels, 3 * channels, 1)
        self.head = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "images channels height width"]) -> Float[Tensor, "images channels height width"]:
        """Attend."""
        heads = self.queries_keys_values(self.norm(x)).unflatten(1, (3, ATTENTION_HEADS, -1)).flatten(4)
        queries, keys, values = heads.transpose(3, 4).unbind(1)  # images, heads, places, width
        attended = functional.scaled_dot_product_attention(queries, keys, values)
        return x + self.head(attended.transpose(2, 3).reshape(x.shape))


class UpsamplingDecoder(nn.Module):
    """The mirror of DiViD's frame encoder: residual levels, upsampling between them, spatial attention at the coarsest.

    Args:
        config: The frame encoder's, resolved.
        image_size: Height and width of the frames.
        channels: 1 or 3.
        latent_dim: Width of [z_t, s].

    Source:
        Paper section 4.2, "Baselines", says no more than that; the widths are the encoder's.
    """

    def __init__(self, config: EncoderConfig, image_size: int, channels: int, latent_dim: int) -> None:
        super().__init__()
        assert config.base_channels and config.blocks_per_level and config.patch_size and config.feature_channels
        widths = [config.base_channels * m for m in config.multipliers]
        skipped = int(math.log2(config.patch_size))
        doubles = [level > skipped for level in range(len(widths))]  # after this level, on the way up
        side = image_size // config.patch_size // 2 ** sum(doubles)
        self.patch_size = config.patch_size
        self.first_shape = (config.feature_channels, side, side)
        self.input = nn.Linear(latent_dim, config.feature_channels * side**2)
        self.stem = nn.Conv2d(config.feature_channels, widths[-1], 3, padding=1)
        layers: list[nn.Module] = []
        current = widths[-1]
        for level in reversed(range(len(widths))):
            for _ in range(config.blocks_per_level):
                layers.append(ResidualBlock(current, widths[level]))
                current = widths[level]
            if level == len(widths) - 1:
                layers.append(SpatialAttention(current))
            if doubles[level]:
                layers += [nn.Upsample(scale_factor=2.0, mode="nearest"), nn.Conv2d(current, current, 3, padding=1)]
        self.levels = nn.Sequential(*layers)
        self.norm = nn.GroupNorm(GROUPS, current)
        self.head = nn.Conv2d(current, channels * config.patch_size**2, 3, padding=1)

    def forward(self, latents: Float[Tensor, "images latent_dim"]) -> Float[Tensor, "images channels height width"]:
        """Give frames in [0, 1]."""
        x = self.levels(self.stem(self.input(latents).unflatten(1, self.first_shape)))
        x = self.head(functional.silu(self.norm(x)))
        return functional.pixel_shuffle(x, self.patch_size).sigmoid()


def initialise_as_original(model: nn.Module) -> None:
    """Draw the weights of Conv2d and Linear from N(0, 0.01^2), with zero biases; the rest stays as PyTorch has it.

    Args:
        model: The network.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@contextlib.contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Normalise by the running statistics, and leave them alone, while clips pass that the model made itself.

    Args:
        model: The network.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d) and module.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


class SequentialVAE(ModelMixin, ConfigMixin, ABC):
    """A sequential VAE with a frame encoder, a dynamic prior and a frame decoder; meets `divid.types.Disentangler`.

    A method adds the networks of its posteriors, `posteriors` and `losses`, and ends its construction with `finish`.

    Args:
        options: Resolved.
    """

    config_name = "config.json"

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
        self._perceptual: PerceptualDistance | None = None

    def finish(self) -> None:
        """Initialise the weights as the original does, if the backbone is the original's."""
        if self.options.backbone == "dcgan":
            initialise_as_original(self)

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the frames."""
        assert self.options.image_size
        return self.options.channels, self.options.image_size, self.options.image_size

    @abstractmethod
    def posteriors(self, features: FrameFeatures, randomness: Randomness | None = None) -> Posteriors:
        """Give the posteriors of the latents.

        Args:
            features: g of the frames, in order.
            randomness: The training step's, in training.
        """

    @abstractmethod
    def losses(self, video: Video, randomness: Randomness) -> dict[str, Tensor]:
        """Give the terms of the objective; see `Disentangler.losses`."""

    def frame_features(self, video: Video) -> FrameFeatures:
        """Encode every frame by itself: g_t.

        Raises:
            ConfigError: The frames have another size or number of channels than the model's.
        """
        if tuple(video.shape[2:]) != self.frame_shape:
            raise ConfigError(
                f"the model takes frames of (C, H, W) = {self.frame_shape}, got {tuple(video.shape[2:])}: "
                "prepare the data at that size, or set model.image_size and model.channels"
            )
        return self.frame_encoder(video.flatten(0, 1)).unflatten(0, video.shape[:2])

    def codes_from_features(self, features: FrameFeatures, reference: ReferenceFeatures | None = None) -> Codes:
        """Turn frame features into posterior means; see `Disentangler.codes_from_features`."""
        if reference is None:
            return self.posteriors(features).codes
        codes = self.posteriors(torch.cat([reference, features], dim=1)).codes
        return Codes(codes.static, codes.dynamic[:, 1:])

    def encode(self, video: Video) -> Codes:
        """Split clips into codes: posterior means."""
        return self.codes_from_features(self.frame_features(video))

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
        if self._perceptual is None:
            assert options.network
            self._perceptual = PerceptualDistance(load_feature_network(options.network, options.weights_file))
        distances = self._perceptual(made.flatten(0, 1), real.flatten(0, 1)).unflatten(0, real.shape[:2])
        errors["perceptual"] = at_least_single(distances) * math.prod(self.frame_shape)
        return {**errors, "both": errors["pixels"] + options.weight * errors["perceptual"]}

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
