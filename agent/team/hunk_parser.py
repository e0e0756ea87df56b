"""Search/replace blocks, found in what a small model answered.

::

    <<<<<<< SEARCH
    lines copied exactly from the file
    =======
    the lines that replace them
    >>>>>>> REPLACE

Tolerant about the markers (five to nine characters, blanks, fences around them) and exact about
their order: an answer of which a part is unclear is refused as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from agent.core.errors import EditError
from agent.team.answer_parser import answer_lines, is_header

_SEARCH = re.compile(r"[ \t]*<{5,9}[ \t]*SEARCH\b.*", re.IGNORECASE)
_DIVIDER = re.compile(r"[ \t]*={5,9}[ \t]*")
_REPLACE = re.compile(r"[ \t]*>{5,9}[ \t]*(?:REPLACE\b.*)?", re.IGNORECASE)
_MOST_MARKER = 300
"""A longer line is no marker."""
_MOST_HUNKS = 200


@dataclass(frozen=True, kw_only=True)
class Hunk:
    """One replacement. Lines are without their ends."""

    search: tuple[str, ...]
    """Lines of the file as the model remembers them; empty for a new file."""

    replace: tuple[str, ...]
    """What stands there afterwards; empty to delete the lines."""

    line: int = 0
    """Line of the answer on which the block begins, from 1."""


def parse_hunks(answer: str, *, path: str) -> list[Hunk]:
    """All blocks of the answer, each once, in order.

    Raises EditError when there is none, or when one is malformed; the message names its line.
    """
    lines = answer_lines(answer)
    hunks: dict[tuple[tuple[str, ...], ...], Hunk] = {}
    start = -1
    for number, line in enumerate(lines):
        if len(line) > _MOST_MARKER:
            continue
        if _SEARCH.fullmatch(line):
            if start >= 0:
                raise _malformed(path, start, "has no >>>>>>> REPLACE line before the next block")
            start = number
        elif start >= 0 and _REPLACE.fullmatch(line):
            hunk = _build(lines[start + 1 : number], start, path)
            hunks.setdefault((hunk.search, hunk.replace), hunk)
            start = -1
        elif start < 0 and ">" in line and "REPLACE" in line and _REPLACE.fullmatch(line):
            raise _malformed(path, number, "has no <<<<<<< SEARCH line")
    if start >= 0:
        raise _malformed(path, start, "has no >>>>>>> REPLACE line; perhaps the answer was cut")
    if not hunks:
        raise EditError(f"{path}: the answer has no search/replace block")
    if len(hunks) > _MOST_HUNKS:
        raise EditError(f"{path}: the answer has more than {_MOST_HUNKS} blocks")
    return list(hunks.values())


def _build(inner: Sequence[str], start: int, path: str) -> Hunk:
    dividers = [n for n, line in enumerate(inner) if len(line) < 80 and _DIVIDER.fullmatch(line)]
    if len(dividers) > 1:  # underlines of headings look alike; the marker itself is exact
        dividers = [n for n in dividers if inner[n] == "======="]
    if len(dividers) != 1:
        found = "no ======= line" if not dividers else "more than one ======= line"
        raise _malformed(path, start, f"has {found}")
    search, replace = inner[: dividers[0]], inner[dividers[0] + 1 :]
    if not path.endswith((".md", ".markdown")):
        search, replace = _unfenced(search), _unfenced(replace)
    text = [*search, *replace]
    if any("\0" in line or any(0xD800 <= ord(x) < 0xE000 for x in line) for line in text):
        raise _malformed(path, start, "has characters that no text file holds")
    return Hunk(
        search=tuple(_untitled(search, path)),
        replace=tuple(_untitled(replace, path)),
        line=start + 1,
    )


def _unfenced(lines: Sequence[str]) -> Sequence[str]:
    """`lines` without the fence that wraps all of them."""
    if len(lines) >= 2 and lines[0].startswith("```") and lines[-1].strip() == "```":
        return lines[1:-1]
    return lines


def _untitled(lines: Sequence[str], path: str) -> Sequence[str]:
    """`lines` without the title under which a prompt shows the file; `# path` may be code."""
    if lines and lines[0].startswith(("### ", "File:")) and is_header(lines[0], path):
        return lines[1:]
    return lines


def _malformed(path: str, number: int, reason: str) -> EditError:
    return EditError(f"{path}: the block on line {number + 1} of the answer {reason}")
