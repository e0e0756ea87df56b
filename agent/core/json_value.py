"""JSON that somebody else wrote: read, and taken for no more than what it is.

The parser of Python has more ways to fail than ValueError, and gives out values that fail later:
infinite numbers, and text that no file and no terminal takes.
"""

from __future__ import annotations

import json
from typing import Any

_MOST = 2**53
"""Nothing that is counted comes to that; above it JSON's numbers are not exact."""


def read_json(data: str | bytes) -> Any:
    """The value. Raises ValueError, also for one that is nested too deeply."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


def whole(value: Any) -> int:
    """How many there are of something. Raises ValueError for anything else."""
    return int(finite(value))


def finite(value: Any) -> float:
    """How much there is of something. Raises ValueError for anything else: JSON of Python also has
    infinity, and less than nothing."""
    if type(value) not in (int, float) or not 0 <= value < _MOST:
        raise ValueError(f"{shown(value)[:40]} is no amount")
    number: float = value
    return number


def text(value: Any) -> str:
    """Text that can be written somewhere. Raises TypeError or ValueError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} instead of a text")
    value.encode()  # half of a surrogate pair has no bytes
    return value


def shown(value: Any) -> str:
    """What people are told of any value."""
    return str(value).encode(errors="replace").decode()
