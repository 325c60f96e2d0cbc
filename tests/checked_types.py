"""The type checker that tests put on every function of divid."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintException

_BEARTYPE = beartype(conf=BeartypeConf(is_pep484_tower=True))  # mypy lets an int stand for a float, so this one does too


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check arguments and result at every call.

    Left alone are functions with an annotation that exists for mypy only: imported under `TYPE_CHECKING`, or a protocol that says
    nothing at run time.
    """
    try:
        typing.get_type_hints(function, include_extras=True)
        return _BEARTYPE(function)
    except (NameError, BeartypeDecorHintException):
        return function
