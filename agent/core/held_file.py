"""Files that are locked for as long as somebody lives.

The kernel takes a lock of ``flock`` back when its holder ends, be it by SIGKILL, and nobody comes
by it through a pid that is used again. So a file that nobody holds tells that its holder is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOOK_S = 0.25
"""Whoever looks whether a file is held holds it for a moment."""
_PAUSE_S = 0.01
_UNNAMED = ".new-"


@contextmanager
def hold(path: Path, *, patience_s: float = _LOOK_S, shared: bool = False) -> Iterator[bool]:
    """Hold `path`, which is made and stays; False when somebody else still does after `patience_s`
    seconds. Several may hold it at once when all of them do so `shared`.

    Whoever holds it alone may remove it. Raises OSError when it cannot be made or locked.
    """
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    give_up_at = time.monotonic() + patience_s
    while True:
        handle = _opened(path)
        try:
            while not (held := _lock(handle, how)) and time.monotonic() < give_up_at:
                time.sleep(_PAUSE_S)
            if held and not _is_still(path, handle):
                continue  # its holder has removed it while we waited
            yield held
            return
        finally:
            os.close(handle)


def _opened(path: Path) -> int:
    """The file, made where it is missing; so is its folder, which a holder may have removed."""
    flags = os.O_RDWR | os.O_CREAT
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o600)


def _is_still(path: Path, handle: int) -> bool:
    """Whether the file that was opened is the one that has the name now."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def is_held(path: Path) -> bool:
    """Whether somebody holds `path`, alone. Raises OSError when that cannot be told."""
    return not _could_hold(path, fcntl.LOCK_SH)


def is_used(path: Path) -> bool:
    """Whether anybody holds `path`, alone or shared. Raises OSError when that cannot be told."""
    return not _could_hold(path, fcntl.LOCK_EX)


def _could_hold(path: Path, how: int) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        return _lock(handle, how)
    finally:
        os.close(handle)


@contextmanager
def held_note(folder: Path, kind: str, text: str) -> Iterator[None]:
    """Keep a note in `folder` as long as the block lasts and we live.

    Raises OSError when it cannot be written.
    """
    handle, name = tempfile.mkstemp(prefix=_UNNAMED, suffix=f".{kind}", dir=folder)
    unnamed = Path(name)
    note = unnamed.with_name(unnamed.name.removeprefix(_UNNAMED))
    try:
        _lock(handle)
        os.write(handle, text.encode())
        # It gets the name by which it is found only once it is held and whole.
        unnamed.rename(note)
        yield
    finally:
        for path in (unnamed, note):
            path.unlink(missing_ok=True)
        os.close(handle)


def held_notes(folder: Path, kind: str) -> list[str]:
    """The notes of all who live."""
    found = []
    for path in _notes(folder, kind):
        with contextlib.suppress(OSError):
            if is_held(path):
                found.append(path.read_text(encoding="utf-8", errors="replace"))
    return found


def take_abandoned(folder: Path, kind: str) -> Iterator[str]:
    """The notes of those who ended without removing them; each is removed once it was seen to."""
    for path in _notes(folder, kind):
        with contextlib.suppress(OSError), hold(path, patience_s=0) as ours:
            if ours:
                yield path.read_text(encoding="utf-8", errors="replace")
                path.unlink(missing_ok=True)


def _notes(folder: Path, kind: str) -> list[Path]:
    return sorted(path for path in folder.glob(f"*.{kind}") if not path.name.startswith("."))


def _lock(handle: int, how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
