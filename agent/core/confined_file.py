"""Read and write files below a folder in which others may change anything at any moment.

The commands of a test run write to the same worktree. A path that was checked a moment ago may lead
elsewhere by now, so every folder on the way is opened by itself, relative to the one before, and a
symbolic link is never followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SOURCE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""Not blocking: a named pipe would wait for a writer."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def read_confined(path: str, root: Path, limit: int) -> bytes:
    """At most `limit` + 1 bytes of the regular file `path` below `root`.

    Raises OSError: FileNotFoundError when there is none, another one when a link, a device or
    something that is no folder is in the way.
    """
    with _folder_of(path, root, make=False) as (folder, name):
        handle = os.open(name, _SOURCE, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EINVAL, "no regular file")
            with open(handle, "rb", closefd=False) as file:
                return file.read(limit + 1)
        finally:
            os.close(handle)


def write_confined(path: str, root: Path, data: bytes) -> None:
    """Make `data` the file `path` below `root`, with the folders on the way. Raises OSError.

    It is always a new file, with the permissions of the old one: what else has a name for the old
    one keeps it, and a link that lies there is replaced.
    """
    with _folder_of(path, root, make=True) as (folder, name):
        mode = 0o666
        with contextlib.suppress(FileNotFoundError):
            old = os.stat(name, dir_fd=folder, follow_symlinks=False)
            os.unlink(name, dir_fd=folder)
            if stat.S_ISREG(old.st_mode):
                mode = stat.S_IMODE(old.st_mode) & 0o777
        with os.fdopen(os.open(name, _NEW, mode, dir_fd=folder), "wb") as file:
            file.write(data)


@contextlib.contextmanager
def _folder_of(path: str, root: Path, *, make: bool) -> Iterator[tuple[int, str]]:
    """A handle of the folder that holds `path`, and the name in it."""
    *above, name = PurePosixPath(path).parts
    # the folder itself is ours, and what leads to it may be a link
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in above:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=folder)
            deeper = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = deeper
        yield folder, name
    finally:
        os.close(folder)
