"""Search/replace blocks: parsed and applied, they change what they name and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hypothesis import note

from agent.core.errors import EditError
from agent.team.edits import Hunk, apply_hunks, parse_hunks, seen_again
from fuzz.source import Source

LINES = (
    "a",
    "b",
    "  a",
    "\ta",
    "    a",
    "        b",
    "c c",
    "",
    " ",
    "b ",
    "=====",
    "def f():",
    "\r",
)
MARKS = (
    *("<<<<<<< SEARCH\n", "=======\n", ">>>>>>> REPLACE\n", "```\n", "```python\n", "### a.py\n"),
    *("<<<<< search x\n", "=====\n", ">>>>>>>>>\n", "  >>>>>>> REPLACE", "\r\n", "\n", "a\n", "<"),
)
_MOST = 4


def check(source: Source, folder: Path) -> None:
    """Blocks that were made for a file apply exactly; any others leave the rest of it alone."""
    if source.one_in(3):
        _check_made_for_it(source)
    else:
        _check_any(source)


def _check_made_for_it(source: Source) -> None:
    lines = [
        f"{source.pick(('', '    ', chr(9)))}{source.pick(LINES[:4]).strip()} {number}"
        for number in range(source.below(14))
    ]
    end = source.pick(("\n", "\r\n"))
    closed = not lines or not source.one_in(3)
    blocks: list[Hunk] = []
    expected: list[str] = []
    at = 0
    while at < len(lines) and len(blocks) < _MOST:
        start = min(len(lines), at + source.below(4))
        stop = min(len(lines), start + 1 + source.below(3))
        expected += lines[at:start]
        if start == stop:
            at = start
            break
        kept = lines[start : start + source.below(3)]
        new = [*kept, *(f"new {source.pick(LINES[:3])}" for _ in range(source.below(3)))]
        blocks.append(Hunk(search=tuple(lines[start:stop]), replace=tuple(new)))
        expected += new
        at = min(len(lines), stop + 1)  # two blocks that add at one place are not to be ordered
        expected += lines[stop:at]
    expected += lines[at:]
    answer = "".join(_written(source, block) for block in blocks)
    content = end.join(lines) + (end if closed and lines else "")
    note((content, answer))
    if not blocks:
        return
    parsed = parse_hunks(answer, path="a.py")
    assert [(x.search, x.replace) for x in parsed] == [(x.search, x.replace) for x in blocks]
    if "\n" not in content:
        end = "\n"  # a single line without an end shows none to go by
    applied = apply_hunks(content, parsed)
    assert applied.failed == ()
    assert applied.content == end.join(expected) + (end if closed and expected else "")


def _check_any(source: Source) -> None:
    path = source.pick(("a.py", "b.md"))
    lines = source.several(lambda: source.piece(LINES), 12)
    if source.one_in(16):
        lines *= 1 << source.below(11)
    content = source.pick(("\n", "\r\n")).join(lines)
    blocks = [
        Hunk(
            search=tuple(_some(source, lines)),
            replace=tuple(_some(source, lines)),
        )
        for _ in range(1 + source.below(_MOST))
    ]
    if source.one_in(2):
        answer = "Thus:\n" + "".join(_written(source, block) for block in blocks)
        answer = source.mutated(answer, (*MARKS, *LINES))
        note((path, content[:2000], answer[:3000]))
        try:
            blocks = parse_hunks(answer, path=path)
        except EditError as error:
            assert path in error.message or "longer" in error.message
            return
        for line in (line for block in blocks for line in (*block.search, *block.replace)):
            assert line in answer
            line.encode()
    note((content[:2000], blocks))
    applied = apply_hunks(content, blocks)
    refused = [failed.hunk for failed in applied.failed]
    done = [block for block in blocks if not any(block is other for other in refused)]
    _assert_rest_untouched(content, applied.content, done)
    for failed in applied.failed:
        assert failed.reason
        assert all(line in content for line in failed.nearest.split("\n") if line != "...")
        again = seen_again(applied.content, failed)
        assert again.hunk is failed.hunk
        assert again.reason


def _some(source: Source, lines: Sequence[str]) -> list[str]:
    """Lines of a file, as a model remembers them."""
    start = source.below(len(lines) + 1)
    part = list(lines[start : start + source.below(5)])
    for _ in range(source.below(3)):
        at = source.below(len(part) + 1)
        part[at : at + source.below(2)] = [source.piece(LINES)] * source.below(3)
    if source.one_in(6):
        part = [f"  {line}" for line in part]
    return [line.replace("\n", "") for line in part]


def _written(source: Source, block: Hunk) -> str:
    search, replace = [*block.search], [*block.replace]
    if source.one_in(6):
        search = ["### a.py", *search]
    if source.one_in(6):
        search, replace = ["```python", *search, "```"], ["```", *replace, "```"]
    lines = [
        source.pick(("<<<<<<< SEARCH", "<<<<<SEARCH", "  <<<<<<< Search a.py")),
        *search,
        "=======",
        *replace,
        source.pick((">>>>>>> REPLACE", ">>>>>>>>>", " >>>>> replace it")),
    ]
    return "\n".join(lines) + source.pick(("\n", "\n\nand\n\n", "\n```\n"))


def _assert_rest_untouched(before: str, after: str, done: Sequence[Hunk]) -> None:
    """Lines that no applied block can mean are still there, in their order, with their ends."""
    if not done:
        assert after == before
        return
    old, new = before.split("\n"), after.split("\n")
    if old[-1]:  # a line that becomes the last one has no end then, as the last one has none
        old, new = ([line.rstrip("\r") for line in each] for each in (old, new))
    named = _named(old, done)
    kept = [n for n in range(len(old)) if n not in named]
    first, last = min(named, default=0), max(named, default=-1)
    assert new[:first] == old[:first]
    tail = old[last + 1 :]
    assert not tail or new[len(new) - len(tail) :] == tail
    rest = iter(new)
    for n in kept[:-1]:
        assert old[n] in rest, (n, old[n])


def _named(lines: Sequence[str], blocks: Sequence[Hunk]) -> set[int]:
    """Lines at which a block may stand, blanks around them aside."""
    bare = [line.strip() for line in lines]
    if not any(bare):
        return set(range(len(lines)))
    found: set[int] = set()
    for block in blocks:
        wanted = [line.strip() for line in block.search]
        full = [n for n, line in enumerate(wanted) if line]
        for part in (wanted, wanted[full[0] : full[-1] + 1]) if full else ():
            for start in range(len(bare) - len(part) + 1):
                if bare[start] == part[0] and bare[start : start + len(part)] == part:
                    found.update(range(start, start + len(part)))
    return found


def test_blocks_change_what_they_name_and_nothing_else(explored) -> None:
    assert explored(check) >= 300
