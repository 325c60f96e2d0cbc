"""The baselines' frame encoders and decoders: the original DCGAN pair, and a decoder for divid's own frame encoder."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from divid.baselines.options import SMALLEST_DCGAN_MAP
from divid.model_parts import EncoderConfig
from divid.models.frame_encoder import GROUPS, ResidualBlock

FIRST_DCGAN_WIDTH, LARGEST_DCGAN_WIDTH = 64, 512
ATTENTION_HEADS = 4


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
