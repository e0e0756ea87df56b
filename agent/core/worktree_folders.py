"""Folders of our worktrees, and what git notes about each in its own folder.

git keeps a folder ``worktrees/NAME`` for every worktree, in which the file ``gitdir`` says where it
is. Ours have names that nobody else uses, so that a killed run's are told from those of others.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from agent.core.folders import remove_tree
from agent.core.held_file import hold

_NOTES = "worktrees"
_OURS = re.compile(r"turbo-\w+-\w+")
_PATIENCE_S = 10.0
"""Whoever holds the worktrees of a repository needs milliseconds, or is stopped."""


def worktree_path(private: Path, name: str) -> Path:
    """Where in a run's private folder its worktree `name` is."""
    return private / f"turbo-{private.name.rpartition('-')[2]}-{name}"


def notes_of(common: Path, worktree: Path) -> Path:
    """What git notes about a worktree of ours; `common` is git's folder."""
    return common / _NOTES / worktree.name


@contextmanager
def held_worktrees(state: Path) -> Iterator[None]:
    """Only one of our processes at a time adds or removes worktrees of a repository: git itself
    does not expect that another one does."""
    with ExitStack() as stack:
        with contextlib.suppress(OSError):  # no locks here, or a read-only disk, which git will say
            stack.enter_context(hold(state / "worktrees.held", patience_s=_PATIENCE_S))
        yield


def remove_worktree(common: Path, worktree: Path) -> None:
    """Remove a worktree of ours with all that is noted about it, whatever state it is in."""
    _remove_all(worktree)
    _remove_notes(notes_of(common, worktree))


def clear_abandoned(common: Path, root: Path) -> None:
    """Forget the worktrees below `root` whose folder was swept. To be called while they are held.

    Those of the user are not ours to prune."""
    for notes in common.glob(f"{_NOTES}/turbo-*"):
        if _OURS.fullmatch(notes.name) and _is_abandoned(notes, root):
            _remove_notes(notes)


def _is_abandoned(notes: Path, root: Path) -> bool:
    try:
        place = (notes / "gitdir").read_text(encoding="utf-8", errors="surrogateescape").strip()
    except FileNotFoundError:
        place = ""
    except OSError:
        return False
    if not place:  # git was killed before it had noted the place
        return True
    worktree = Path(place).parent
    return worktree.is_relative_to(root) and not worktree.exists()


def _remove_notes(notes: Path) -> None:
    shutil.rmtree(notes, ignore_errors=True)
    with contextlib.suppress(OSError):  # others are there; git, too, keeps no empty one
        notes.parent.rmdir()


def _remove_all(folder: Path) -> None:
    """Remove `folder` also where tests took the rights from what is in it."""
    remove_tree(folder)
    if not folder.exists():
        return
    _open_up(folder)
    for place, folders, _ in os.walk(folder):
        for name in folders:
            _open_up(Path(place) / name)
    remove_tree(folder)


def _open_up(folder: Path) -> None:
    with contextlib.suppress(OSError):
        if not folder.is_symlink():
            folder.chmod(stat.S_IRWXU)
