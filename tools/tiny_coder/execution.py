"""Run generated functions on drawn arguments, with a time limit (main thread only)."""

from __future__ import annotations

import copy
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_LIMIT_S = 0.05


class TooSlow(Exception):
    """A call ran into the time limit: most likely an endless loop."""


def _raise_too_slow(signal_number: int, frame: FrameType | None) -> None:
    raise TooSlow


@contextmanager
def time_limit(seconds: float = _LIMIT_S) -> Iterator[None]:
    """Raise TooSlow in the block when it takes longer."""
    previous = signal.signal(signal.SIGALRM, _raise_too_slow)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def load(code: str, name: str) -> Callable[..., Any]:
    """The function that the code defines. Raises SyntaxError and whatever the code raises."""
    namespace: dict[str, Any] = {}
    exec(compile(code, "<generated>", "exec"), namespace)
    function: Callable[..., Any] = namespace[name]
    return function


def call(function: Callable[..., Any], arguments: list[Any]) -> Any:
    """The function's answer on copies of the arguments. Raises TooSlow and what it raises."""
    copies = copy.deepcopy(arguments)
    with time_limit():
        return function(*copies)
