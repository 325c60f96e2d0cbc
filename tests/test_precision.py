"""Precision: what `auto` becomes, and what runs in it."""

import logging

import pytest
import torch
from torch import nn

from divid import precision as precision_module
from divid.errors import ConfigError
from divid.precision import autocast, has_bf16_units, run_recurrent
from divid.recipes import load_recipe


@pytest.mark.parametrize(
    ("precision", "has_units", "expected"),
    [
        ("fp32", True, torch.float32),
        ("bf16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
    ],
)
def test_products_have_the_precision(precision, has_units, expected, monkeypatch):
    monkeypatch.setattr("divid.precision.has_bf16_units", lambda device: has_units)
    with autocast("cpu", precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected


def test_units_are_found_by_what_the_processor_says(monkeypatch):
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda: False)
    assert not has_bf16_units("cpu")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert has_bf16_units("cpu")
    assert not has_bf16_units("mps")


def test_bf16_without_units_is_told_once(monkeypatch, caplog):
    monkeypatch.setattr(precision_module, "has_bf16_units", lambda device: False)
    monkeypatch.setattr(precision_module, "_told", set())
    with caplog.at_level(logging.WARNING, logger="divid"):
        for name in ("fp32", "auto", "bf16", "bf16"):
            autocast("cpu", name)
    assert [record.getMessage() for record in caplog.records] == [
        "this processor has no units for bf16 and may take ten times as long as in fp32: set precision to auto"
    ]


@pytest.mark.parametrize("layer", [nn.LSTM(3, 4, batch_first=True, bidirectional=True), nn.RNN(3, 4, batch_first=True)])
def test_recurrent_layers_stay_in_float32_without_units(layer, monkeypatch):
    monkeypatch.setattr(precision_module, "has_bf16_units", lambda device: False)
    sequence = torch.randn(2, 5, 3)
    expected = layer(sequence)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made, state = run_recurrent(layer, sequence.bfloat16())
        again, _ = run_recurrent(layer, sequence.bfloat16(), state)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, layer(sequence.bfloat16().float())[0], rtol=0, atol=0)
    torch.testing.assert_close(again, layer(sequence.bfloat16().float(), state)[0], rtol=0, atol=0)
    torch.testing.assert_close(run_recurrent(layer, sequence)[0], expected, rtol=0, atol=0)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match=r"sampling\.precision"):
        load_recipe("utd-mhad-cpu", {"sampling.precision": "fp16"})
