"""Precision: what `auto` becomes, and what runs in it."""

import logging

import pytest
import torch

from divid import precision as precision_module
from divid.errors import ConfigError
from divid.precision import autocast, has_bf16_units
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


def test_an_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match=r"sampling\.precision"):
        load_recipe("utd-mhad-cpu", {"sampling.precision": "fp16"})
