"""Code blocks of an answer: every fence with its label, its content and whether it is closed.

Linear in the length of the answer: a line of more than `_MOST_FENCE` characters is no fence, and
the search for another end of a block is bounded.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from agent.core.errors import EditError

_FENCE = re.compile(r"(?P<indent>[ \t]*)(?P<mark>`{3,}|~{3,})[ \t]*(?P<label>[^`]*)")
_MOST_FENCE = 300
_MOST_FENCES = 2_000
"""Of an answer. A document with that many code blocks is larger than any that is asked for."""
_MOST_ENDS = 8
"""Ends that are tried for one block whose content has fences of its own."""
_MOST_AHEAD = 64
"""Fences that are looked at for another end."""

Complete = Callable[[Sequence[str]], bool]


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block."""

    label: str
    """What stands behind the opening fence: a language, perhaps a path."""

    before: str
    """The last line with text between this block and the one before it."""

    lines: tuple[str, ...]
    closed: bool
    """False when the answer ends before the fence does."""

    @property
    def language(self) -> str:
        """The first word of the label, in lower case; empty when there is none."""
        return re.split(r"[\s:{},;=]", self.label.lstrip("{. "), maxsplit=1)[0].lower()


def find_blocks(lines: Sequence[str], *, complete: Complete, greedy: bool = False) -> list[Block]:
    """All blocks, in order.

    A block whose content has fences of its own could end at several of them. It ends at the first
    with which `complete` agrees, else at the very first; with `greedy` at the last (Markdown).
    Raises EditError for more fences than any file has.
    """
    fences = [(n, match) for n, line in enumerate(lines) if (match := _fence(line)) is not None]
    if len(fences) > _MOST_FENCES:
        raise EditError(f"the answer has more than {_MOST_FENCES} fences of code blocks")
    blocks: list[Block] = []
    free = 0
    for at, (start, opening) in enumerate(fences):
        if start < free:
            continue
        ends = _ends(fences, at, greedy=greedy)
        end = _choose(lines, start, ends, complete=complete, greedy=greedy)
        content = _unindent(lines[start + 1 : end], len(opening["indent"]))
        closed = end is not None
        if not closed and (glued := _cut_glued(content, opening["mark"])) is not None:
            content, closed = glued, True
        above = (line.strip() for line in reversed(lines[free:start]))
        blocks.append(
            Block(
                label=opening["label"].strip(),
                before=next((line for line in above if line), ""),
                lines=tuple(content),
                closed=closed,
            )
        )
        free = len(lines) if end is None else end + 1
    return blocks


def _fence(line: str) -> re.Match[str] | None:
    likely = len(line) <= _MOST_FENCE and ("```" in line or "~~~" in line)
    return _FENCE.fullmatch(line) if likely else None


def _ends(fences: Sequence[tuple[int, re.Match[str]]], at: int, *, greedy: bool) -> Iterator[int]:
    """Lines of the fences that can close the one at position `at`, the first found first."""
    opening = fences[at][1]
    mark, indent = opening["mark"], len(opening["indent"])
    last = len(fences) if greedy else 0
    for place in range(at + 1, len(fences)):
        if last and place > last:
            return
        number, fence = fences[place]
        deep = len(fence["indent"]) > indent + 3
        if fence["label"].strip() or deep or not fence["mark"].startswith(mark):
            continue
        last = last or place + _MOST_AHEAD
        yield number


def _choose(
    lines: Sequence[str], start: int, ends: Iterator[int], *, complete: Complete, greedy: bool
) -> int | None:
    if greedy:
        return max(ends, default=None)
    first = next(ends, None)
    if first is None or complete(lines[start + 1 : first]):
        return first
    for end in itertools.islice(ends, _MOST_ENDS):
        if complete(lines[start + 1 : end]):
            return end
    return first


def _unindent(lines: Sequence[str], width: int) -> list[str]:
    """`lines` without the indentation that a fence inside a list has."""
    if not width:
        return list(lines)
    return [line[min(width, len(line) - len(line.lstrip(" \t"))) :] for line in lines]


def _cut_glued(lines: list[str], mark: str) -> list[str] | None:
    """The content of an open block whose fence stands at the end of its last line of code."""
    for number in range(len(lines) - 1, -1, -1):
        text = lines[number].rstrip()
        if text:
            return [*lines[:number], text.removesuffix(mark)] if text.endswith(mark) else None
    return None
