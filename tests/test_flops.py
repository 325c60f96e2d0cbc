"""Counted operations are those of the closed form."""

import torch
from torch import nn
from torch.nn import functional

from divid.flops import count_flops
from divid.models.cpu_blocks import linear


def small_network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(8 * 6 * 5, 7))


def test_flops_of_a_small_network_are_those_of_the_closed_form():
    network, images = small_network(), torch.randn(4, 3, 6, 5)
    convolution, linear = 2 * 4 * 6 * 5 * 8 * 3 * 9, 2 * 4 * (8 * 6 * 5) * 7
    assert count_flops(lambda: network(images)) == convolution + linear
    # Backward: the weights of both, and the input of the second, since nobody asks for the images' gradient.
    assert count_flops(lambda: network(images).sum().backward()) == 2 * convolution + 3 * linear


def test_flops_of_attention_on_a_cpu_are_counted_forward_and_backward():
    query, key, value = (torch.randn(2, 3, 600, 16, requires_grad=True) for _ in range(3))
    product = 2 * 2 * 3 * 600 * 600 * 16
    attend = functional.scaled_dot_product_attention
    assert count_flops(lambda: attend(query, key, value)) == 2 * product
    assert count_flops(lambda: attend(query, key, value).sum().backward()) == 2 * product + 5 * product


def test_flops_of_a_linear_layer_do_not_depend_on_who_computes_it():
    layer, x = nn.Linear(6, 4), torch.randn(2, 3, 6)

    def run():
        linear(x, layer.weight, layer.bias)

    with torch.no_grad():
        assert count_flops(run) == 2 * 2 * 3 * 6 * 4
    assert count_flops(run) == 2 * 2 * 3 * 6 * 4
