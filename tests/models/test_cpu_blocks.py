"""The quicker blocks of the U-Net give diffusers' numbers and gradients, and step aside where they do not know how."""

import copy

import pytest
import torch
from diffusers.models.activations import GEGLU
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import nn

from divid.models import cpu_blocks
from divid.models.cpu_blocks import as_in_diffusers, linear, modulated_norm, quicken, upsample_and_convolve


class Unet(nn.Module):
    """One block of diffusers."""

    def __init__(self, block, *further, **options):
        super().__init__()
        self.block, self.further, self.options = block, further, options

    def forward(self, x):
        result = self.block(x, *self.further, **self.options)
        return result[0] if isinstance(result, tuple) else result


def resnet(**options):
    values = {"temb_channels": 6, "groups": 4, "time_embedding_norm": "scale_shift"} | options
    torch.manual_seed(1)
    return Unet(ResnetBlock2D(in_channels=8, **values), torch.randn(3, 6))


BLOCKS = {
    "gated unit": (lambda: Unet(GEGLU(8, 12)), (3, 5, 8)),
    "upsampling": (lambda: Unet(Upsample2D(8, use_conv=True)), (3, 8, 5, 6)),
    "residual": (lambda: resnet(out_channels=8), (3, 8, 5, 6)),
    "residual to other channels": (lambda: resnet(out_channels=12), (3, 8, 5, 6)),
    "transformer": (lambda: Unet(Transformer2DModel(2, 4, in_channels=8, norm_num_groups=4), return_dict=False), (3, 8, 5, 6)),
    "upsampling without a convolution": (lambda: Unet(Upsample2D(8)), (3, 8, 5, 6)),
    "residual, other norm": (lambda: resnet(time_embedding_norm="default"), (3, 8, 5, 6)),
    "residual, rescaled": (lambda: resnet(output_scale_factor=2.0), (3, 8, 5, 6)),
}


def result_and_gradients(network, x):
    x = x.detach().requires_grad_()
    result = network(x)
    return result, *torch.autograd.grad(result.square().sum(), [x, *network.parameters()])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", BLOCKS)
def test_results_and_gradients_are_those_of_diffusers(name, layout):
    make, shape = BLOCKS[name]
    torch.manual_seed(0)
    theirs, x = make(), torch.randn(shape)
    if x.ndim == 4:
        theirs, x = theirs.to(memory_format=layout), x.to(memory_format=layout)
    ours = copy.deepcopy(theirs)
    quicken(ours)
    assert type(ours.block) is not type(theirs.block)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for own, other in zip(result_and_gradients(ours, x), result_and_gradients(theirs, x), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)
    as_in_diffusers(ours)
    assert [type(module) for module in ours.modules()] == [type(module) for module in theirs.modules()]
    quicken(ours)
    before = x.clone()
    with torch.inference_mode():
        sampled = ours(x)
    torch.testing.assert_close(sampled, theirs(x), rtol=1e-4, atol=1e-5)
    assert torch.equal(x, before), "what a block is given is kept for the skip connections"
    if x.ndim == 4:
        assert sampled.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("name", BLOCKS)
def test_half_precision_stays_with_diffusers(name):
    make, shape = BLOCKS[name]
    torch.manual_seed(0)
    theirs, x = make(), torch.randn(shape)
    ours = copy.deepcopy(theirs)
    quicken(ours)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0.05 if name == "gated unit" else 0)


def test_on_another_device_blocks_are_diffusers(monkeypatch):
    for name in ("linear", "upsample_and_convolve", "modulated_norm"):
        monkeypatch.setattr(cpu_blocks, name, None)  # whoever calls it fails
    for make, shape in BLOCKS.values():
        network = make()
        quicken(network)
        network.further = tuple(tensor.to("meta") for tensor in network.further)
        assert network.to("meta")(torch.zeros(shape, device="meta")).device.type == "meta"


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 2)])
def test_doubling_and_convolving_at_once_at_the_border(size):
    torch.manual_seed(0)
    x, conv = torch.randn(2, 3, *size).double(), nn.Conv2d(3, 5, 3, padding=1).double()
    large = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
    torch.testing.assert_close(upsample_and_convolve(x, conv.weight, conv.bias), conv(large))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_scale_and_shift_are_of_each_image(layout):
    norm = nn.GroupNorm(2, 4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x, scale, shift = torch.randn(3, 4, 5, 6).to(memory_format=layout), torch.randn(3, 4), torch.randn(3, 4)
    expected = norm(x) * (1 + scale[..., None, None]) + shift[..., None, None]
    torch.testing.assert_close(modulated_norm(norm, x, scale, shift), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("has_onednn", [True, False])
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_linear_layer_in_sampling_is_that_of_training(has_onednn, has_bias, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: has_onednn)
    layer, x = nn.Linear(6, 4, bias=has_bias), torch.randn(2, 3, 6)
    with torch.no_grad():
        torch.testing.assert_close(linear(x, layer.weight, layer.bias), layer(x))
