"""Where in a file a block applies. Exact, then tolerant of blanks; never a guess.

All searching is `str.find` on the joined lines, which is linear, and a bounded number of places is
looked at: a file of ten million equal lines costs no more than any other.
"""

from __future__ import annotations

import difflib
import heapq
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from agent.team.hunk_parser import Hunk

_MOST_PLACES = 6
_MOST_COMPARED = 100_000
"""Lines that are compared to find out how a block is indented."""
_UNITS = (4, 2, 8)
"""Spaces per level where the model wrote spaces for tabs, or the other way round."""
_MOST_LINES = 20_000
"""Lines of a file in which similar ones are looked for."""
_MOST_SHOWN = 40
_MOST_WIDTH = 400

_NOT_THERE = "the SEARCH lines do not occur in the file"
_MIXED = "the REPLACE lines are indented less than the lines that they replace"


@dataclass(frozen=True)
class Place:
    """Lines `start` to `end` (excluded, from 0) of the file become `lines`."""

    start: int
    end: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Miss:
    """Why a block has no place, and the lines of the file (from 0) that show it best."""

    reason: str
    shown: tuple[range, ...]


class FileLines:
    """The lines of one file, and the views of them that a search needs."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines

    @cached_property
    def exact(self) -> str:
        """The lines as they are."""
        return _joined(self.lines)

    @cached_property
    def trimmed(self) -> str:
        """The lines without blanks at their ends."""
        return _joined([line.rstrip() for line in self.lines])

    @cached_property
    def bare(self) -> str:
        """The lines without indentation and without blanks at their ends."""
        return _joined([line.strip() for line in self.lines])

    @cached_property
    def words(self) -> list[frozenset[str]]:
        """The words of each line, of the first lines of a long file."""
        return [_words(line) for line in self.lines[:_MOST_LINES]]

    def locate(self, hunk: Hunk) -> Place | Miss:
        """The one place where `hunk` applies."""
        return (
            self._locate(hunk.search, hunk.replace)
            or self._locate(*_unpadded(hunk))
            or Miss(_NOT_THERE, (self.nearest(hunk.search),))
        )

    def _locate(self, search: Sequence[str], replace: Sequence[str]) -> Place | Miss | None:
        """The place, or why there is none; None when the file holds nothing of the kind."""
        if not search:
            return None
        for text, wanted in (
            (self.exact, list(search)),
            (self.trimmed, [line.rstrip() for line in search]),
        ):
            if starts := _find(text, wanted, _MOST_PLACES):
                return self._only(starts, search, lambda _: list(replace), replace)
        most = max(2, _MOST_COMPARED // len(search))
        starts = _find(self.bare, [line.strip() for line in search], most + 1)
        if len(starts) > most:
            return self._ambiguous(starts, len(search))
        moves = {start: move for start in starts if (move := self._move(start, search)) is not None}
        if not moves:
            return None
        return self._only(list(moves), search, next(iter(moves.values())), replace)

    def _only(
        self, starts: Sequence[int], search: Sequence[str], move: Move, replace: Sequence[str]
    ) -> Place | Miss:
        if len(starts) > 1:
            return self._ambiguous(starts, len(search))
        start = starts[0]
        moved = move(replace)
        if moved is None:
            return Miss(_MIXED, (range(start, start + len(search)),))
        # Lines that stay keep their bytes, and blocks may share them as surroundings.
        most = min(len(search), len(replace))
        head = next((n for n in range(most) if search[n] != replace[n]), most)
        most -= head
        tail = next((n for n in range(most) if search[-1 - n] != replace[-1 - n]), most)
        return Place(
            start + head, start + len(search) - tail, tuple(moved[head : len(moved) - tail])
        )

    def _ambiguous(self, starts: Sequence[int], size: int) -> Miss:
        numbers = ", ".join(str(start + 1) for start in starts[: _MOST_PLACES - 1])
        more = " and more" if len(starts) >= _MOST_PLACES else ""
        reason = (
            f"the SEARCH lines occur several times, on lines {numbers}{more}; "
            "add the lines above or below them"
        )
        around = [self._range(start - 3, min(size, _MOST_SHOWN) + 6) for start in starts[:2]]
        return Miss(reason, tuple(around))

    def _move(self, start: int, search: Sequence[str]) -> Move | None:
        """How the indentation of `search` becomes the file's at `start`; None when it cannot."""
        pairs = [
            (_indent(self.lines[start + n]), _indent(line))
            for n, line in enumerate(search)
            if line.strip()
        ]
        if not pairs:
            return None
        here, there = pairs[0]
        more, less = here.removesuffix(there), there.removesuffix(here)
        if here.endswith(there) and all(f == more + s for f, s in pairs):
            return lambda lines: [more + line if line.strip() else line for line in lines]
        if there.endswith(here) and all(less + f == s for f, s in pairs):
            return lambda lines: _dedented(lines, less)
        for unit in _UNITS:
            for old, new in ((" " * unit, "\t"), ("\t", " " * unit)):
                if all(f == s.replace(old, new) for f, s in pairs):
                    return lambda lines, old=old, new=new: [  # type: ignore[misc]
                        _indent(line).replace(old, new) + line.lstrip(" \t") for line in lines
                    ]
        return None

    def nearest(self, search: Sequence[str]) -> range:
        """The lines that share most with `search`; rare words count more. Not empty, if the file
        is not."""
        wanted = frozenset().union(*(_words(line) for line in search[:_MOST_SHOWN]))
        common = [words & wanted for words in self.words]
        seen = Counter(word for words in common for word in words)
        scores = [sum(1 / seen[word] for word in words) for words in common]
        size = max(1, min(len(search), _MOST_SHOWN))
        windows: list[float] = []
        total = sum(scores[:size])
        for start in range(max(1, len(scores) - size + 1)):
            windows.append(total)
            if start + size < len(scores):
                total += scores[start + size] - scores[start]
        best = heapq.nlargest(5, range(len(windows)), key=windows.__getitem__)
        text = "\n".join(search[:_MOST_SHOWN])[: _MOST_SHOWN * 100]

        def likeness(start: int) -> tuple[float, int]:
            found = "\n".join(self.lines[start : start + size])[: _MOST_SHOWN * 100]
            return difflib.SequenceMatcher(None, found, text, autojunk=False).quick_ratio(), -start

        return self._range(max(best, key=likeness), size)

    def show(self, places: Sequence[range]) -> str:
        """Those lines as they stand in the file, with a line of dots between places."""
        return "\n...\n".join(
            "\n".join(self.lines[n][:_MOST_WIDTH] for n in place) for place in places
        )

    def _range(self, start: int, size: int) -> range:
        return range(max(0, start), min(len(self.lines), start + size))


Move = Callable[[Sequence[str]], "list[str] | None"]
"""What turns the lines of a REPLACE into lines of the file; None when it is impossible."""


def _joined(lines: Sequence[str]) -> str:
    return "\n" + "\n".join(lines) + "\n"


def _find(text: str, wanted: Sequence[str], most: int) -> list[int]:
    """Numbers of the lines, from 0, at which `wanted` stands in `text`; at most `most` of them."""
    needle = _joined(wanted)
    starts: list[int] = []
    line, counted = 0, 0
    at = text.find(needle)
    while at >= 0 and len(starts) < most:
        line += text.count("\n", counted, at)
        counted = at
        starts.append(line)
        at = text.find(needle, at + 1)
    return starts


def _unpadded(hunk: Hunk) -> tuple[Sequence[str], Sequence[str]]:
    """The block without the blank lines that a model puts around SEARCH and around REPLACE."""
    return _unpad(hunk.search), _unpad(hunk.replace)


def _unpad(lines: Sequence[str]) -> Sequence[str]:
    full = [n for n, line in enumerate(lines) if line.strip()]
    return lines[full[0] : full[-1] + 1] if full else ()


def _dedented(lines: Sequence[str], prefix: str) -> list[str] | None:
    if any(line.strip() and not line.startswith(prefix) for line in lines):
        return None
    return [line.removeprefix(prefix) if line.strip() else line for line in lines]


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" \t"))]


def _words(line: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", line[:_MOST_WIDTH]))
