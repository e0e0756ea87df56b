"""Text of models and repositories on a terminal."""

from __future__ import annotations

import unicodedata

_LAYOUT = "\n\t"


def printable(text: str) -> str:
    """`text` without control characters: what a model wrote must not steer the terminal."""
    return "".join(x for x in text if x in _LAYOUT or unicodedata.category(x) != "Cc")
