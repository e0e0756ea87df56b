"""What git's listings tell about paths that are not just files of ours. Pure but for links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

_LINK = "160000 "
"""The mode of a tree entry that is a commit of another repository."""

_PROGRAMS = re.compile(
    r"core\.(?:fsmonitor|sshcommand|editor|pager|attributesfile|askpass)|sequence\.editor"
    r"|filter\..+\.(?:clean|smudge|process)|diff\..+\.(?:command|textconv)|diff\.external"
    r"|merge\..+\.driver|(?:merge|diff)tool\..+\.(?:cmd|path)|alias\..+|credential\..*helper"
    r"|gpg\..*program|interactive\.difffilter"
)
"""Keys, in lower case, whose values are commands, or files that name some."""


def gitlinks(listing: str) -> tuple[str, ...]:
    """The paths of submodules in the output of ``ls-tree -r -z``, sorted."""
    entries = (entry.partition("\t") for entry in listing.split("\0"))
    return tuple(sorted(path for mode, _, path in entries if mode.startswith(_LINK)))


def paths_of_config(listing: str, root: Path) -> tuple[str, ...]:
    """The paths below `root` that the output of ``config --list --show-origin -z`` names as
    configuration, or as something that git runs or looks into for what it runs, sorted."""
    fields = listing.split("\0")
    found: set[str] = set()
    for origin, entry in zip(fields[::2], fields[1::2], strict=False):
        key, _, value = entry.partition("\n")
        named = [origin.removeprefix("file:")] if origin.startswith("file:") else []
        if _PROGRAMS.fullmatch(key.lower()):
            named += _words(value)
        found |= {inside for name in named if (inside := _below(name, root, Path.is_file))}
        if key.lower() == "core.hookspath" and (inside := _below(value, root, Path.is_dir)):
            found.add(inside)
    return tuple(sorted(found))


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command.removeprefix("!"))
    except ValueError:  # an open quote
        return command.split()


def _below(name: str, root: Path, is_there: Callable[[Path], bool]) -> str | None:
    """`name` as a path of the repository; None when it is none, or one of git's own."""
    try:
        place = (root / name).resolve()
        inside = place.relative_to(root.resolve())
        there = is_there(place)
    except (OSError, ValueError, RuntimeError):
        return None
    own = not inside.parts or inside.parts[0] == ".git"
    return None if own or not there else inside.as_posix()
