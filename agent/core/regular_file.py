"""Read a small file of a repository, which may be anything else under that name.

Git keeps symbolic links, and a clone may hold one to a device that never ends, to a terminal that
waits for somebody, or to a pipe without a writer.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MOST_BYTES = 1_000_000
"""More than any file of settings has."""

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def read_regular(path: Path, most: int = MOST_BYTES) -> bytes:
    """At most `most` + 1 bytes of a regular file, or of one that a link leads to.

    Raises OSError, also for a folder, a device, a pipe and a socket, and ValueError for a path that
    can be none.
    """
    # Opening alone does something to some devices, so they are told apart before that as well.
    _refuse_irregular(path.stat().st_mode)
    handle = os.open(path, _FLAGS)
    with os.fdopen(handle, "rb") as file:
        _refuse_irregular(os.fstat(handle).st_mode)
        return file.read(most + 1)


def _refuse_irregular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a device, a pipe or a socket, not a file")
