"""Apply what a coder answered, and decide which files a coder may read and write.

Blocks are located in the file as it was, so that no block can hit what another one wrote, and
blocks that would change the same lines do not both apply. Line ends, and whether the file ends in a
newline, stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from agent.core.confined_file import read_confined, write_confined
from agent.core.errors import EditError
from agent.core.repository_path import why_refused
from agent.team.answer_parser import parse_whole_file
from agent.team.hunk_parser import Hunk, parse_hunks
from agent.team.locate import FileLines, Miss, Place

__all__ = [
    "MOST_BYTES",
    "Applied",
    "FailedHunk",
    "Hunk",
    "apply_hunks",
    "check_edit_path",
    "parse_hunks",
    "parse_whole_file",
    "read_file",
    "seen_again",
    "write_file",
]

MOST_BYTES = 1_000_000
"""Largest file that is shown or edited; no context of a small model holds more."""

_NO_TEXT = re.compile(
    r"[\0-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""Control characters, such as those that turn the direction of a line, and half characters."""

_COOKIE = re.compile(r"^[ \t\f\ufeff]*#.*?coding[:=][ \t]*([-\w.]+)", re.ASCII)
"""How the first two lines of Python source name its encoding (PEP 263)."""

_HEAD = 20
_OVERLAP = "it changes the same lines as another block"
_NO_SEARCH = "SEARCH is empty, but the file is not"


@dataclass(frozen=True, kw_only=True)
class FailedHunk:
    """A block that was not applied."""

    hunk: Hunk
    reason: str
    """Why, as part of a sentence for model and user."""

    nearest: str
    """Lines of the file, copied exactly, that come nearest to what was searched."""

    nearest_line: int
    """Line of the file at which `nearest` begins, from 1; 0 when the file is empty."""


@dataclass(frozen=True, kw_only=True)
class Applied:
    """The file after the blocks that could be applied."""

    content: str
    failed: tuple[FailedHunk, ...]


def apply_hunks(content: str, hunks: Sequence[Hunk]) -> Applied:
    """Apply each block at the one place where it fits; what does not fit is in `failed`."""
    lines, ends = _split(content)
    file = FileLines(lines)
    places: list[Place] = []
    failed: list[FailedHunk] = []
    for hunk in hunks:
        found = _place(file, hunk)
        if isinstance(found, Place) and any(_overlap(found, other) for other in places):
            found = Miss(_OVERLAP, (range(found.start, found.end),))
        if isinstance(found, Place):
            places.append(found)
        else:
            failed.append(_failed(file, hunk, found))
    return Applied(content=_replaced(lines, ends, places), failed=tuple(failed))


def seen_again(content: str, failed: FailedHunk) -> FailedHunk:
    """The failed block with reason and nearest lines of `content`, which others have changed since.

    It is not applied, even if it fits by now: it was not written for what the others wrote.
    """
    file = FileLines(_split(content)[0])
    found = _place(file, failed.hunk)
    if isinstance(found, Place):
        around = range(max(0, found.start - 3), min(len(file.lines), found.end + 3))
        found = Miss(failed.reason, (around,))
    elif failed.reason == _OVERLAP:
        found = Miss(_OVERLAP, found.shown)
    return _failed(file, failed.hunk, found)


def check_edit_path(path: str, root: Path) -> Path:
    """Where below `root` the file `path` is. Raises EditError when it may not be written.

    Symbolic links are refused also where they stay inside: git commits the link, and what was
    written through it would be missing from the commit.
    """
    if reason := why_refused(path, root):
        raise EditError(f"{path!r} {reason}")
    place = PurePosixPath(path)
    for part in (place, *place.parents):
        if (root / part).is_symlink() and part.parts:
            what = "is" if part == place else "lies below"
            raise EditError(f"{path!r} {what} a symbolic link")
    return root / path


def read_file(path: str, root: Path) -> str | None:
    """Text of the file `path` below `root` with its line ends; None when there is none.

    Raises EditError for what is no regular file of UTF-8 text, or too large.
    """
    check_edit_path(path, root)
    try:
        data = read_confined(path, root, MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EditError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise EditError(f"{path} is larger than {MOST_BYTES} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise EditError(f"{path} is no UTF-8 text") from None
    if "\0" in text:
        raise EditError(f"{path} is no text")
    return text


def write_file(path: str, root: Path, content: str) -> None:
    """Write the file `path` below `root`, with its folders.

    Raises EditError for what is larger than a file that could be read, and for characters that
    are no text, or show people another text than the one that is there, or a Python encoding that
    does so, and that the file did not hold before.
    """
    before = read_file(path, root) or ""
    if unfit := set(_NO_TEXT.findall(content)) - set(_NO_TEXT.findall(before)):
        raise EditError(f"{path} would hold the character {min(unfit)!a}, which is no text")
    encoding = _other_encoding(path, content)
    if encoding and encoding != _other_encoding(path, before):
        raise EditError(f"{path} would be read as {encoding}: leave the comment out that says so")
    data = content.encode()
    if len(data) > MOST_BYTES:
        raise EditError(f"{path} would be larger than {MOST_BYTES} bytes")
    try:
        write_confined(path, root, data)
    except OSError as error:
        raise EditError(f"{path} cannot be written: {error.strerror}") from None


def _other_encoding(path: str, content: str) -> str | None:
    """The encoding other than UTF-8 in which Python would read a file: people and tools would see
    comments where it sees code."""
    lines = re.split(r"\r\n|\r|\n", content, maxsplit=2)[:2]
    is_script = lines[0].startswith("#!") and "python" in lines[0]
    if not is_script and PurePosixPath(path).suffix.casefold() not in (".py", ".pyi", ".pyw"):
        return None
    for line in lines:
        if found := _COOKIE.match(line):
            name = found[1].casefold().replace("_", "-")
            if name not in ("utf-8", "utf8") and not name.startswith("utf-8-"):
                return found[1]
    return None


def _split(content: str) -> tuple[list[str], list[str]]:
    """Lines without their ends, and the ends."""
    lines = content.split("\n")
    ends = ["\r\n" if line.endswith("\r") else "\n" for line in lines]
    lines[:-1] = [line.removesuffix("\r") for line in lines[:-1]]
    ends[-1] = ""
    return (lines, ends) if lines[-1] else (lines[:-1], ends[:-1])


def _replaced(lines: Sequence[str], ends: Sequence[str], places: Sequence[Place]) -> str:
    end = "\r\n" if ends.count("\r\n") > ends.count("\n") else "\n"
    new_lines: list[str] = []
    new_ends: list[str] = []
    at = 0
    for place in sorted(places, key=lambda place: (place.start, place.end)):
        new_lines += [*lines[at : place.start], *place.lines]
        new_ends += [*ends[at : place.start], *[end] * len(place.lines)]
        at = place.end
    new_lines += lines[at:]
    new_ends += ends[at:]
    if ends and new_ends:  # a line that has become the last one ends as the last one did
        new_ends = [x or end for x in new_ends[:-1]] + [new_ends[-1] if ends[-1] else ""]
    return "".join(f"{line}{x}" for line, x in zip(new_lines, new_ends, strict=True))


def _place(file: FileLines, hunk: Hunk) -> Place | Miss:
    if any(line.strip() for line in hunk.search):
        return file.locate(hunk)
    if any(line.strip() for line in file.lines):
        return Miss(_NO_SEARCH, (range(min(_HEAD, len(file.lines))),))
    return Place(0, len(file.lines), hunk.replace)


def _overlap(one: Place, other: Place) -> bool:
    """They change a common line, or both add at the same place: then nobody knows the order."""
    added, changed = (one, other) if one.start == one.end else (other, one)
    if added.start == added.end:
        if changed.start == changed.end:
            return added.start == changed.start and bool(added.lines and changed.lines)
        return changed.start < added.start < changed.end
    return max(one.start, other.start) < min(one.end, other.end)


def _failed(file: FileLines, hunk: Hunk, miss: Miss) -> FailedHunk:
    shown = [place for place in miss.shown if place]
    return FailedHunk(
        hunk=hunk,
        reason=miss.reason,
        nearest=file.show(shown),
        nearest_line=shown[0].start + 1 if shown else 0,
    )
