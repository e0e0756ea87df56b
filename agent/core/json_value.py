"""JSON that somebody else wrote: read, and taken for no more than what it is.

The parser of Python has more ways to fail than ValueError, and gives out values that fail later:
infinite numbers, and text that no file and no terminal takes.
"""

from __future__ import annotations

import json
import math
from typing import Any


def read_json(data: str | bytes) -> Any:
    """The value. Raises ValueError, also for one that is nested too deeply."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


def whole(value: Any) -> int:
    """A whole number. Raises ValueError or TypeError for anything that has none."""
    try:
        return int(value)
    except OverflowError:
        raise ValueError(f"{value} is no whole number") from None


def finite(value: Any) -> float:
    """A number that can be reckoned with. Raises ValueError or TypeError for anything else."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("a number without end")
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
