"""Training passes that are replayed: the same numbers, and plain calls wherever a replay would give others.

Without a GPU `torch.cuda.make_graphed_callables` is stood in for by calls that count; `gpu/check.py` compares real graphs.
"""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from torch import nn

from divid.models import cuda_graphs
from divid.models.cuda_graphs import GraphedByShape
from divid.randomness import Randomness
from small_model import make_model


class OnGpu(GraphedByShape):
    """One that takes every input for one on a GPU."""

    def _is_on_gpu(self, inputs):
        return True


@pytest.fixture
def replays(monkeypatch):
    """Shapes that were recorded, and how often anything was replayed."""
    seen = {"recorded": [], "replayed": 0}

    def record(module, samples, **_):
        seen["recorded"].append(tuple(samples[0].shape))

        def replay(*inputs):
            seen["replayed"] += 1
            return module(*inputs)

        return replay

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    return seen


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def inputs(count):
    return torch.linspace(-1, 1, 3 * count).view(count, 3)


def test_every_shape_is_recorded_once_and_gives_the_same_numbers(replays):
    plain = network()
    graphed = OnGpu(copy.deepcopy(plain))
    for count in (2, 5, 2, 2):
        plain.zero_grad(), graphed.network.zero_grad()
        expected, output = plain(inputs(count)), graphed(inputs(count))
        expected.square().sum().backward(), output.square().sum().backward()
        torch.testing.assert_close(output, expected, rtol=0, atol=0)
        torch.testing.assert_close(graphed.network[0].weight.grad, plain[0].weight.grad, rtol=0, atol=0)
    assert replays == {"recorded": [(2, 3), (5, 3)], "replayed": 4}


def test_plain_where_nothing_is_trained(replays):
    graphed = OnGpu(network())
    with torch.no_grad():
        graphed(inputs(2))
    graphed.network.eval()
    graphed(inputs(2))
    on_cpu = GraphedByShape(network())
    on_cpu(inputs(2)).sum().backward()
    assert replays == {"recorded": [], "replayed": 0}


def test_a_second_pass_before_the_gradient_of_the_first_is_plain(replays):
    """A graph has one place for what the backward pass needs."""
    graphed = OnGpu(network())
    first, second = graphed(inputs(2)), graphed(inputs(2) + 1)
    assert replays["replayed"] == 1
    (first.sum() + second.sum()).backward()
    graphed(inputs(2))
    assert replays["replayed"] == 2


def test_a_frozen_network_is_replayed_without_waiting_for_a_gradient(replays):
    graphed = OnGpu(network().requires_grad_(False))
    assert torch.equal(graphed(inputs(2)), graphed(inputs(2)))
    assert replays == {"recorded": [(2, 3)], "replayed": 2}


def test_more_shapes_than_there_is_memory_for_are_plain(replays, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "MOST_SHAPES", 2)
    graphed = OnGpu(network())
    for count in (1, 2, 3, 2):
        graphed(inputs(count)).sum().backward()
    assert replays == {"recorded": [(1, 3), (2, 3)], "replayed": 3}


def test_precisions_have_graphs_of_their_own(replays):
    graphed = OnGpu(network())
    graphed(inputs(2)).sum().backward()
    graphed(inputs(2).double().float().requires_grad_()).sum().backward()
    assert len(replays["recorded"]) == 2


def test_what_cannot_be_recorded_is_plain_and_logged(monkeypatch, caplog):
    attempts = []

    def fail(*args, **kwargs):
        attempts.append(args)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", fail)
    graphed = OnGpu(network())
    with caplog.at_level(logging.WARNING, logger="divid"):
        for _ in range(2):
            torch.testing.assert_close(graphed(inputs(2)), network()(inputs(2)))
    assert len(attempts) == 1
    assert "Sequential is not recorded as a CUDA graph: operation not permitted when stream is capturing" in caplog.text


def test_a_copy_has_weights_of_its_own_and_records_anew(replays):
    graphed = OnGpu(network())
    graphed(inputs(2)).sum().backward()
    twin = copy.deepcopy(graphed)
    assert type(twin) is OnGpu
    assert twin.network is not graphed.network
    twin(inputs(2)).sum().backward()
    assert replays["recorded"] == [(2, 3), (2, 3)]


def test_a_model_trains_through_graphs_as_without(replays, monkeypatch):
    monkeypatch.setattr(GraphedByShape, "_is_on_gpu", lambda self, inputs: True)
    tokens = {"motion_augmentation": 1.0, "static_source": "random"}
    plain, graphed = make_model(tokens=tokens).train(), make_model(tokens=tokens).train()
    graphed.load_state_dict(plain.state_dict())
    graphed.graph_networks()
    assert set(graphed.state_dict()) == set(plain.state_dict())
    video = torch.rand(2, 4, *plain.frame_shape) * 2 - 1
    for model in (plain, graphed):
        model.losses(video, Randomness(0, 3, (0, 1), 2), num_decoded_frames=2)["total"].backward()
    assert replays["replayed"] == 2  # frame encoder and denoiser
    expected = dict(plain.named_parameters())
    for name, weight in graphed.named_parameters():
        if expected[name].grad is not None:
            torch.testing.assert_close(weight.grad, expected[name].grad, msg=lambda said, name=name: f"{name}: {said}")


def test_a_copied_model_calls_its_own_networks():
    """The moving average of the weights is such a copy."""
    model = make_model()
    model.graph_networks()
    twin = copy.deepcopy(model)
    assert twin._train_denoiser.network is twin.denoiser
    assert twin._graphed_encoder.network is twin.frame_encoder
