"""What a repository holds of the user's: every byte of the checkout and of git's own folder, except
what is ours. Taken before something is done to it, it tells afterwards what was changed."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

_OURS = re.compile(
    r"\.turbo(/.*)?"
    r"|objects(/.*)?"  # new ones are ours; that none is lost is looked at
    r"|(logs/)?refs/heads/turbo(/.*)?"
    r"|worktrees|worktrees/turbo-[^/]*(/.*)?"
)
"""In git's own folder."""
_LOGS_MADE_BY_GIT = {"logs", "logs/refs", "logs/refs/heads"}
"""Folders that git makes for the log of our branch."""


@dataclass(frozen=True)
class UserState:
    """Take it with `of`."""

    checkout: Path
    found: dict[str, str]
    """Path to kind, rights, digest and, of files, the time of the last change."""
    objects: frozenset[str]
    """Files below ``.git/objects``."""

    @classmethod
    def of(cls, checkout: Path) -> UserState:
        """The state now. git's folder is `.git` of the checkout."""
        found: dict[str, str] = {}
        objects = set()
        for place, folders, files in os.walk(checkout):
            for name in (*folders, *files):
                path = Path(place) / name
                inside = path.relative_to(checkout).as_posix()
                in_git = inside.removeprefix(".git/")
                if in_git != inside and _OURS.fullmatch(in_git):
                    if in_git.startswith("objects/") and name in files:
                        objects.add(in_git)
                elif in_git == inside or in_git not in _LOGS_MADE_BY_GIT:
                    found[inside] = _of(path)
        return cls(checkout, found, frozenset(objects))

    def changes(self) -> list[str]:
        """What differs by now, one line each; none when nothing of the user's was touched."""
        now = UserState.of(self.checkout)
        lines = [f"gone: {x}" for x in sorted(self.found.keys() - now.found.keys())]
        lines += [f"new: {x}" for x in sorted(now.found.keys() - self.found.keys())]
        both = sorted(self.found.keys() & now.found.keys())
        lines += [
            f"changed: {x}: {self.found[x]} -> {now.found[x]}"
            for x in both
            if self.found[x] != now.found[x]
        ]
        return lines + [f"object gone: {x}" for x in sorted(self.objects - now.objects)]


def _of(path: Path) -> str:
    about = path.lstat()
    rights = stat.filemode(about.st_mode)
    if stat.S_ISLNK(about.st_mode):
        return f"{rights} {path.readlink()}"
    if stat.S_ISREG(about.st_mode):
        return f"{rights} {hashlib.sha256(path.read_bytes()).hexdigest()} {about.st_mtime_ns}"
    return rights
