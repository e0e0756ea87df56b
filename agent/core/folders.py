"""Folders of ours outside the repository: kept ones, and private ones that go away."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.core.config import cache_dir
from agent.core.errors import EngineError

_PREFIX = "turbo-private-"
_MEMORY_DISK = Path("/dev/shm")  # noqa: S108 - only a private folder with a random name is made
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_MEMORY_NEEDED = 1 << 30
"""Bytes that must be free there; containers often have 64 MiB, less than two saved slots."""


def cache_folder(name: str, *, private: bool = False) -> Path:
    """The folder `name` of the cache, made when needed; one in the temporary folder when the cache
    cannot be written (no home, a full or read-only disk). A `private` one only we can read.

    Raises EngineError when neither can be written."""
    wanted = cache_dir() / name
    if _made(wanted):
        if private:
            with contextlib.suppress(OSError):  # somebody else's: then it is up to them
                wanted.chmod(0o700)
        return wanted
    base = _elsewhere()
    # The name can be guessed, so somebody else may have made it.
    if not (_made(base, mode=0o700) and _is_ours(base) and _made(base / name)):
        raise EngineError(
            f"Neither {wanted} nor {base / name} can be written.",
            fix="Set XDG_CACHE_HOME to a folder of yours with room in it.",
        )
    return base / name


def why_elsewhere() -> str | None:
    """A line when the cache cannot be written and the temporary folder stands in for it."""
    if _made(cache_dir()):
        return None
    return (
        f"{cache_dir()} cannot be written, so {_elsewhere()} is used instead, as by all programs "
        "of yours without a cache. "
        "To keep prefixes and logs, set XDG_CACHE_HOME to a folder that can."
    )


def _elsewhere() -> Path:
    return Path(tempfile.gettempdir()) / f"turbo-local-coder-{os.getuid()}"


@contextmanager
def private_folder(parent: Path | None = None) -> Iterator[Path]:
    """A folder that only we can read, removed at the end; in `parent`, else in memory where there
    is room.

    After SIGKILL of this program it is removed when the next one asks for a folder there: the lock
    on it dies with us. Raises OSError when it cannot be made.
    """
    base = parent if parent is not None else _base()
    _sweep(base)
    # It gets the name by which it can be swept only once it is locked.
    unnamed = Path(tempfile.mkdtemp(prefix="new-turbo-", dir=base))
    handle = os.open(unnamed, os.O_RDONLY)
    folder = base / unnamed.name.replace("new-turbo-", _PREFIX)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unnamed.rename(folder)
        yield folder
    finally:
        try:
            remove_tree(folder)
        except BaseException:  # a signal in the middle of it
            remove_tree(folder)
            raise
        finally:
            os.close(handle)


def remove_tree(folder: Path) -> None:
    """Remove `folder` with all that is in it, as far as that is possible; never an error.

    A test may have left folders in folders, ten thousand deep: no path to the last is short enough
    for the system, and no recursion reaches it. So each folder is moved up beside the first ones
    before it is emptied. Symbolic links are removed, never followed.
    """
    with contextlib.suppress(OSError):
        top = _open_folder(folder)
        try:
            _empty(top)
        finally:
            os.close(top)
        folder.rmdir()


def _empty(top: int) -> None:
    mark = secrets.token_hex(4)
    folders = _without_files(top)
    for number in itertools.count():
        if not folders:
            return
        name = folders.pop()
        with contextlib.suppress(OSError):
            here = _open_folder(name, top)
            try:
                for count, inner in enumerate(_without_files(here)):
                    new = f".{mark}-{number}-{count}"
                    with contextlib.suppress(OSError):
                        os.close(_open_folder(inner, here))  # only what can be written can move
                        os.rename(inner, new, src_dir_fd=here, dst_dir_fd=top)
                        folders.append(new)
            finally:
                os.close(here)
            os.rmdir(name, dir_fd=top)


def _without_files(folder: int) -> list[str]:
    """The folders in `folder`, once all else in it is removed."""
    with os.scandir(folder) as entries:
        inside = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, _ in (each for each in inside if not each[1]):
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)
    return [name for name, is_folder in inside if is_folder]


def _open_folder(folder: Path | str, above: int | None = None) -> int:
    """`folder`, which may be written from now on."""
    handle = os.open(folder, _FOLDER, dir_fd=above)
    with contextlib.suppress(OSError):
        os.fchmod(handle, 0o700)
    return handle


def _base() -> Path:
    with contextlib.suppress(OSError):
        enough = shutil.disk_usage(_MEMORY_DISK).free >= _MEMORY_NEEDED
        if enough and os.access(_MEMORY_DISK, os.W_OK | os.X_OK):
            return _MEMORY_DISK
    return Path(tempfile.gettempdir())


def _sweep(base: Path) -> None:
    for folder in base.glob(f"{_PREFIX}*"):
        if not _is_ours(folder):
            continue
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(folder)
            finally:
                os.close(handle)


def _is_ours(folder: Path) -> bool:
    try:
        about = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid()


def _made(folder: Path, *, mode: int = 0o777) -> bool:
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
