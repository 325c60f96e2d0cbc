"""Muon: orthogonal updates of matrices, AdamW's of everything else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from divid.training import muon
from divid.training.muon import ADAM_RMS, Muon, is_matrix, orthogonalise


def random_matrix(rows, columns, scale=1.0):
    return scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 16, 3), nn.GroupNorm(2, 16), nn.Flatten(), nn.Linear(16 * 36, 12), nn.Linear(12, 3))


def backward(model, number=0):
    model.zero_grad()
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(number))
    model(images).square().mean().backward()


@pytest.mark.parametrize(("rows", "columns"), [(24, 24), (16, 90), (90, 16)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_singular_values_come_near_1_and_vectors_stay(rows, columns, scale):
    matrix = random_matrix(rows, columns, scale)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    large = values > values.norm() / 100  # what is smaller takes more iterations
    result = orthogonalise(matrix)
    inside = left.T @ result @ right.T
    assert inside.diagonal()[large].min() > 0.6
    assert inside.diagonal().max() < 1.3
    assert (inside - inside.diag().diag()).abs().max() < 0.05


@pytest.mark.parametrize(("has_units", "tolerance"), [(True, 0.03), (False, 1e-5)])
@pytest.mark.parametrize("columns", [20, 40, 400])
def test_iterates_in_bf16_only_where_the_device_has_units(has_units, tolerance, columns, monkeypatch):
    monkeypatch.setattr(muon, "has_bf16_units", lambda device: has_units)
    matrix = random_matrix(16, columns)
    a, b, c = muon.COEFFICIENTS
    exact = matrix.double() / matrix.double().norm()
    for _ in range(muon.NUM_ITERATIONS):
        gram = exact @ exact.mT
        exact = a * exact + (b * gram + c * gram @ gram) @ exact
    error = (orthogonalise(matrix) - exact).abs().max()
    assert error < tolerance
    assert has_units == bool(error > 1e-5)


def test_small_singular_values_do_not_drown_in_a_gram_matrix(monkeypatch):
    """Those of the matrix span six powers of ten; products of its shorter side only hold their squares."""
    monkeypatch.setattr(muon, "has_bf16_units", lambda device: False)
    left, right = (torch.linalg.qr(random_matrix(rows, 24).double())[0] for rows in (24, 240))
    matrix = (left * torch.logspace(0, -6, 24, dtype=torch.float64)) @ right.T
    exact = muon._iterated((matrix / matrix.norm())[None])[0]
    assert (orthogonalise(matrix.float()) - exact).abs().max() < 1e-4 * exact.abs().max()


def test_zeros_stay_zeros():
    assert torch.equal(orthogonalise(torch.zeros(8, 9)), torch.zeros(8, 9))


def test_several_at_once_are_as_one_by_one():
    matrices = torch.randn(3, 10, 20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(orthogonalise(matrices), torch.stack([orthogonalise(m) for m in matrices]), atol=0.02, rtol=0)


def test_kernels_are_matrices_and_vectors_and_thin_ones_are_not():
    assert [is_matrix(p) for p in network().parameters()] == [True, False, False, False, True, False, False, False]


def test_what_is_no_matrix_is_stepped_as_by_adamw():
    ours, theirs = network(), network()
    for model in (ours, theirs):
        for parameter in model.parameters():
            parameter.requires_grad_(not is_matrix(parameter))
    muon = Muon([p for p in ours.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    adamw = torch.optim.AdamW([p for p in theirs.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    for number in range(5):
        for model, optimizer in ((ours, muon), (theirs, adamw)):
            backward(model, number)
            optimizer.step()
    torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()), atol=1e-6, rtol=1e-5)


def test_an_update_is_as_large_as_one_of_adamw_whatever_the_gradient():
    weight = nn.Parameter(random_matrix(64, 256))
    before = weight.detach().clone()
    weight.grad = random_matrix(64, 256, 1e-3)
    Muon([weight], lr=0.1, weight_decay=0.0).step()
    assert (weight - before).square().mean().sqrt().item() == pytest.approx(0.1 * ADAM_RMS, rel=0.25)


def test_decay_is_apart_from_the_gradient():
    weight = nn.Parameter(random_matrix(16, 16))
    before = weight.detach().clone()
    weight.grad = torch.zeros(16, 16)
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), before * 0.95)


def test_goes_on_from_a_saved_state():
    whole, parts = network(), network()
    optimizer = Muon(whole.parameters())
    first = Muon(parts.parameters())
    for number in range(2):
        for model, stepping in ((whole, optimizer), (parts, first)):
            backward(model, number)
            stepping.step()
    second = Muon(parts.parameters())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for model, stepping in ((whole, optimizer), (parts, second)):
        backward(model, 2)
        stepping.step()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_a_closure_gives_the_loss_and_parameters_without_gradient_stay():
    model = network()
    frozen = model[4].weight.detach().clone()
    optimizer = Muon(list(model.parameters())[:6])

    def closure():
        backward(model)
        return torch.tensor(2.0)

    model[3].weight.requires_grad_(False)
    still = model[3].weight.detach().clone()
    assert optimizer.step(closure).item() == 2.0
    assert torch.equal(model[3].weight, still)
    assert torch.equal(model[4].weight, frozen)


class OnGpu(Muon):
    """One that takes its parameters for parameters on a GPU."""

    def _is_on_gpu(self, parameters):
        return True


class Computed(muon.RecordedUpdates):
    """Updates that are computed each time, where there is no GPU to record them on."""

    made = 0

    def __init__(self, momenta):
        type(self).made += 1
        self._inputs = [momentum.clone() for momentum in momenta]

    def __call__(self, momenta):
        torch._foreach_copy_(self._inputs, list(momenta))
        return self._compute()


def test_recorded_updates_are_those_that_are_computed(monkeypatch):
    monkeypatch.setattr(muon, "RecordedUpdates", Computed)
    monkeypatch.setattr(Computed, "made", 0)
    plain, recorded = network(), network()
    optimizers = Muon(plain.parameters(), lr=1e-2), OnGpu(recorded.parameters(), lr=1e-2, has_graph=True)
    for number in range(3):
        for model, optimizer in zip((plain, recorded), optimizers, strict=True):
            backward(model, number)
            optimizer.step()
    assert Computed.made == 1
    for weight, expected in zip(recorded.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)


def test_an_optimiser_that_cannot_be_recorded_steps_plainly_and_says_so(monkeypatch, caplog):
    def fail(momenta):
        raise RuntimeError("no graphs here\nand more")

    monkeypatch.setattr(muon, "RecordedUpdates", fail)
    plain, other = network(), network()
    for model, optimizer in ((plain, Muon(plain.parameters())), (other, OnGpu(other.parameters(), has_graph=True))):
        backward(model)
        optimizer.step()
    assert "the optimiser's step is not recorded as a CUDA graph: no graphs here" in caplog.text
    for weight, expected in zip(other.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=0, atol=0)
