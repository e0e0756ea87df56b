"""What the system had too little of, as an error of ours: a full disk, no more open files or
processes.

It may be met at any write of any library that we use, and is then neither a bug nor the fault of
whoever wrote: the place to tell it apart is where the error arrives.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from pathlib import Path

from agent.core.errors import TurboError, WorkspaceError

FULL_FIX = "Make room on that disk (or raise the quota, or ulimit -f) and run again."
_NEXT_TO_NOTHING = 256 << 10
"""Bytes; what failed for want of room may have left a little of it."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FILES = {errno.EMFILE, errno.ENFILE}
_PROCESSES_FIX = "Raise the limit (ulimit -u), or end what runs besides, and run again."
_FILES_FIX = "Raise the limit (ulimit -n 1024) and run again."


def is_full(folder: str | os.PathLike[str]) -> bool:
    """Whether next to nothing can be written to the disk of `folder`."""
    try:
        return shutil.disk_usage(folder).free < _NEXT_TO_NOTHING
    except OSError:
        return False


def shortage(error: BaseException, folder: Path) -> TurboError | None:
    """`error` as one of ours when the system lacked something; None for any other. `folder` is
    named where the error does not tell which file could not be written."""
    if isinstance(error, BaseExceptionGroup):
        return next((x for x in (shortage(e, folder) for e in error.exceptions) if x), None)
    if isinstance(error, sqlite3.Error):
        # A full disk is also an I/O error, or a journal of SQLite that cannot be opened.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
            return WorkspaceError(f"cannot write in {folder}: {error}", fix=FULL_FIX)
        return None
    if not isinstance(error, OSError):
        return None
    if error.errno in _FILES:
        return WorkspaceError(f"cannot open another file: {error.strerror}", fix=_FILES_FIX)
    if error.errno == errno.EAGAIN:  # of fork(2); nothing that we read or write is non-blocking
        return WorkspaceError("cannot start another process or thread", fix=_PROCESSES_FIX)
    if error.errno in _FULL:
        place = error.filename or folder
        return WorkspaceError(f"cannot write {place}: {error.strerror}", fix=FULL_FIX)
    return None
