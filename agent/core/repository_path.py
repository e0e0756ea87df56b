"""Is a path that a task or a model names one of the repository? The only place that decides it."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

_GIT_FOLDER = re.compile(r"(\.git|git~\d+)[ .]*(:.*)?", re.IGNORECASE)
"""``.git`` and the spellings that file systems of Windows and macOS take for it."""


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
    if not parts or path.endswith("/"):
        return "is a folder"
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


def tidy_path(path: str) -> str:
    """One spelling per file, because paths are compared as texts; a final / stays to be refused."""
    return path if path.endswith("/") else str(PurePosixPath(path))
