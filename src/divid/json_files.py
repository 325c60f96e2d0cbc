"""Reading and writing files that hold one JSON object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from divid.errors import DividError
from divid.outputs import atomic_path, describe


def read_json(path: Path, error: type[DividError], remedy: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        error: What is raised if that fails.
        remedy: What the person can do then: the end of the message.

    Raises:
        DividError: `error`: the file cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as reason:
        raise error(f"{path} cannot be read ({describe(reason)[:300]}): {remedy}") from reason
    if not isinstance(value, dict):
        raise error(f"{path} must hold a JSON object, got {type(value).__name__}: {remedy}")
    return value


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object, whole or not at all.

    Args:
        path: The file; its folder is made if missing.
        values: What JSON can hold; NaN and infinities may not be among them.

    Raises:
        OutputError: It cannot be written.
        ValueError: A number is NaN or infinite.
    """
    with atomic_path(path) as temporary:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
