"""Notice a generation that loops, so that it does not use up its whole token budget."""

from __future__ import annotations

_LONGEST_UNIT = 160
"""Characters; two or three lines of code."""
_REPEATS = 16
_CHARACTERS = 600
"""Grids, tables and separators repeat too: only what is both many times and long is a loop."""
_STRIDE = 64
"""New characters between two looks."""


class RepetitionWatch:
    """Fed with the text of one generation as it grows."""

    def __init__(self) -> None:
        self._tail = ""
        self._unseen = 0

    def feed(self, piece: str) -> bool:
        """True when the text now ends in a short unit, repeated over and over."""
        self._tail += piece
        self._unseen += len(piece)
        if self._unseen < _STRIDE:
            return False
        self._unseen = 0
        self._tail = self._tail[-_LONGEST_UNIT * (_REPEATS + 1) :]
        return any(_repeats(self._tail, unit) for unit in range(1, _LONGEST_UNIT + 1))


def _repeats(text: str, unit: int) -> bool:
    """A text has the period `unit` when it equals itself shifted by that much."""
    span = max(_CHARACTERS, unit * _REPEATS)
    return len(text) >= span and text[-span:-unit] == text[-span + unit :]
