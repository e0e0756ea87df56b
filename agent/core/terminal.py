"""Text of models and repositories on a terminal, in a log or in a report.

What they wrote must neither steer the terminal nor pass for a line of ours.
"""

from __future__ import annotations

import unicodedata

_LAYOUT = "\n\t"
_UNSEEN = {"Cf", "Zl", "Zp"}
"""Unicode's categories of what changes the order or the lines of other characters, or shows
nothing."""


def printable(text: str) -> str:
    """`text` without control characters, and with an escape for each one that cannot be seen, such
    as those that turn the direction of writing round."""
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text))


def one_line(text: str) -> str:
    """`text` as one printable line, with single spaces."""
    return printable(" ".join(text.split()))


def hanging(text: str) -> str:
    """Printable `text` of which only the first line begins in the first column."""
    first, *rest = printable(text).split("\n")
    return "\n".join([first, *map(_indented, rest)])


def quoted(text: str) -> list[str]:
    """The printable lines of `text`, none of which begins in the first column."""
    return [f"  {line}" for line in printable(text).split("\n")] if text else []


def _indented(line: str) -> str:
    return line if line.startswith("  ") or not line else f"  {line}"


def _shown(character: str) -> str:
    if character in _LAYOUT:
        return character
    category = unicodedata.category(character)
    if category == "Cc":
        return ""
    return ascii(character)[1:-1] if category in _UNSEEN else character
