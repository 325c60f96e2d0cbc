from __future__ import annotations

import pytest
import torch

from divid.errors import ConfigError
from divid.interpolation import interpolate_tokens, resample_tokens


@pytest.mark.parametrize("path", ["linear", "slerp"])
def test_ends_are_kept(path):
    first, second = torch.randn(2, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(interpolate_tokens(first, second, 0.0, path), first)
    torch.testing.assert_close(interpolate_tokens(first, second, 1.0, path), second)


def test_slerp_turns_at_constant_speed():
    first, second = torch.tensor([2.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 4.0], dtype=torch.float64)
    third = interpolate_tokens(first, second, 1 / 3, "slerp")
    torch.testing.assert_close(torch.atan2(third[1], third[0]), torch.tensor(torch.pi / 6, dtype=torch.float64))
    torch.testing.assert_close(third.norm(), torch.tensor(2 + 2 / 3, dtype=torch.float64))


@pytest.mark.parametrize("second", [[1.0, 1.0], [-1.0, -1.0], [0.0, 0.0]])
def test_slerp_is_finite_where_the_turn_is_undefined(second):
    middle = interpolate_tokens(torch.tensor([1.0, 1.0]), torch.tensor(second), 0.5, "slerp")
    torch.testing.assert_close(middle, (torch.tensor([1.0, 1.0]) + torch.tensor(second)) / 2)


def test_an_unknown_path():
    with pytest.raises(ConfigError, match="did you mean 'slerp'"):
        interpolate_tokens(torch.zeros(2), torch.zeros(2), 0.5, "slurp")


def test_resampling_keeps_ends_and_lines():
    tokens = torch.arange(5.0)[None, :, None].repeat(1, 1, 2)
    torch.testing.assert_close(resample_tokens(tokens, 9)[0, :, 0], torch.arange(9.0) / 2)
    assert resample_tokens(tokens, 5) is tokens
