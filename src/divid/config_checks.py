"""Checks of single values, with one-line errors that name the option, what it is and what is allowed."""

from __future__ import annotations

from typing import Any

from divid.errors import ConfigError, nearest


def check_choice(name: str, value: Any, allowed: Any) -> None:
    """Check that a value is one of several.

    Args:
        name: Dotted name of the option.
        value: What was given.
        allowed: The values that are valid there.

    Raises:
        ConfigError: It is none of them; the message names the nearest.
    """
    if value not in tuple(allowed):
        raise ConfigError(f"{name} is {value!r}{nearest(str(value), map(str, allowed))}")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Check that a number lies between two others.

    Args:
        name: Dotted name of the option.
        value: What was given.
        low: The lowest that is valid.
        high: The highest.

    Raises:
        ConfigError: It lies outside.
    """
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}, must lie between {low} and {high}")
