"""Is a path that a task or a model names one of the repository? The only place that decides it.

The rules are those of every system at once: a commit that was made here is checked out elsewhere.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

_GIT_FOLDER = re.compile(r"(\.git|git~\d+)[ .]*(:.*)?", re.IGNORECASE)
"""``.git`` and the spellings that file systems of Windows and macOS take for it."""

_MODULES = re.compile(r"\.gitmodules[ .]*(:.*)?", re.IGNORECASE)

_SHORT_NAME = re.compile(r"[^.]{1,6}~\d(\.[^.]{0,3})?")
"""Windows' other name for a file, such as ``GITHUB~1`` for ``.github``."""

_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])")
"""Devices of Windows, in every folder and with any suffix."""

_NOT_ON_WINDOWS = re.compile(r"[<>:\"|?*]")

_LONGEST_NAME = 255
"""Bytes of one part of a path that the usual file systems hold."""

_LONGEST_PATH = 200
"""Characters; Windows holds 259, with the folder of the repository."""


def why_refused(path: str, root: Path) -> str | None:
    """The reason why `path` may not be read or written below `root`; None when it may.

    Looks at the spelling first and then at the disk: a symbolic link may lead out of `root`, and a
    folder or a device is no file. A path of which nothing exists yet is fine.
    """
    return _bad_spelling(path) or _bad_place(path, root)


def _bad_spelling(path: str) -> str | None:
    plain = tidy_path(path)  # "./~" is "~", and "a/ /." is "a/ "
    if not plain.strip() or plain != plain.strip():
        return "is empty or has blanks around it"
    # Cf: HFS+ ignores such characters, so that ".g\u200cit" would be ".git"
    if any(unicodedata.category(x) in ("Cc", "Cf", "Cs") for x in path):
        return "has control characters"
    if "\\" in path:
        return "has a backslash; folders are separated by /"
    if plain.startswith(("/", "~")) or PureWindowsPath(plain).drive:
        return "is not relative to the repository"
    parts = PurePosixPath(path).parts
    if ".." in parts:
        return "leaves the repository with .."
    if any(_GIT_FOLDER.fullmatch(part) for part in parts):
        return "is inside .git"
    if any(_MODULES.fullmatch(part) for part in parts):
        return "says where submodules come from"
    if not parts or path.endswith("/"):
        return "is a folder"
    if len(path) > _LONGEST_PATH:
        return f"is longer than {_LONGEST_PATH} characters"
    return next((reason for part in parts if (reason := _not_everywhere(part))), None)


def _not_everywhere(name: str) -> str | None:
    """Why not every system holds a file of that name."""
    if _DEVICE.fullmatch(name.split(".", maxsplit=1)[0].rstrip(" ").casefold()):
        return f"names a device of Windows: {name}"
    if _SHORT_NAME.fullmatch(name):
        return f"may be the name that Windows gives another file: {name}"
    if found := _NOT_ON_WINDOWS.search(name):
        return f"has {found[0]}, which no name on Windows has"
    if name.endswith((" ", ".")):
        return "has a name that ends in a blank or a dot, which Windows drops"
    if len(name.encode()) > _LONGEST_NAME:
        return f"has a name that is longer than {_LONGEST_NAME} bytes"
    return None


def _bad_place(path: str, root: Path) -> str | None:
    try:
        base = root.resolve()
        place = (base / path).resolve()
        if not place.is_relative_to(base):
            return "leads out of the repository through a symbolic link"
        inner = place.relative_to(base)
        if any(_GIT_FOLDER.fullmatch(part) for part in inner.parts):
            return "leads into .git through a symbolic link"
        if place.is_dir():
            return "is a folder"
        if place.exists() and not place.is_file():
            return "is no regular file"
        parents = (base / above for above in inner.parents)
        if any(parent.exists() and not parent.is_dir() for parent in parents):
            return "lies below something that is no folder"
    except RuntimeError:  # how pathlib reports a loop before Python 3.13
        return "is a symbolic link to itself"
    except OSError as error:
        return f"cannot be used: {error.strerror}"
    return None


def why_not_beside(path: str, tracked: Collection[str], submodules: Iterable[str]) -> str | None:
    """The reason why `path` cannot be a file of its own among the `tracked` ones; None when it can.

    A file in a submodule belongs to another repository. On the disks of Windows and macOS a new
    name that differs from another one by case alone is the same file, or the same folder.
    """
    place = PurePosixPath(path)
    mine = {_folded(str(x)): str(x) for x in (place, *place.parents) if x.parts}
    for submodule in submodules:
        if _folded(submodule) in mine:
            return f"is in the submodule {submodule}"
    for other in () if path in tracked else tracked:
        if not _folded(other).startswith(_folded(place.parts[0])):
            continue
        for theirs in (PurePosixPath(other), *PurePosixPath(other).parents):
            same = mine.get(_folded(str(theirs))) if theirs.parts else None
            if same is not None and same != str(theirs):
                return f"differs from {theirs} only by case"
    return None


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def tidy_path(path: str) -> str:
    """One spelling per file, because paths are compared as texts; a final / stays to be refused."""
    return path if path.endswith("/") else str(PurePosixPath(path))
