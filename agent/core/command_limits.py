"""How much a command may take: limits of the kernel per process, and a watch over all of them.

The kernel's limits (setrlimit(2)) are inherited by every child. RLIMIT_DATA bounds the private
writable memory; RLIMIT_AS would also count what programs such as node only reserve. The limit of
processes is of the whole user and does not bind root, and no limit bounds all files together, so a
watch looks at both and ends the command.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

_LOAD = Path("/proc/loadavg")
_ROOM_OF_OTHERS = 256
"""Processes and threads that the user may start elsewhere while a command runs."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one command with all its children."""

    memory: int
    """Bytes of private writable memory per process."""
    processes: int
    """Processes and threads."""
    file_size: int
    """Bytes of one file."""
    disk: int
    """Bytes that the folder of the command may hold more than before."""
    cpu_s: int
    """Seconds of CPU per process."""


def setter(limits: Limits) -> Callable[[], None] | None:
    """A function for ``preexec_fn`` that sets what the kernel can hold; None on Windows."""
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415 - not there on Windows

    wanted = {
        resource.RLIMIT_DATA: limits.memory,
        resource.RLIMIT_FSIZE: limits.file_size,
        resource.RLIMIT_CPU: limits.cpu_s,
        resource.RLIMIT_CORE: 0,
    }
    if os.getuid() != 0:
        # The kernel counts all of the user. Those of the whole machine are more and told at once;
        # counting the user's own would look at every process before every command.
        wanted[resource.RLIMIT_NPROC] = _all_threads() + limits.processes + _ROOM_OF_OTHERS
    values = {}
    for kind, limit in wanted.items():
        _, hard = resource.getrlimit(kind)
        most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        values[kind] = (most, most)

    def set_them() -> None:
        for kind, value in values.items():
            resource.setrlimit(kind, value)

    return set_them


class Watch:
    """Looks from time to time at what a command has taken in all."""

    def __init__(self, limits: Limits, folder: Path) -> None:
        """`folder` is where the command may write."""
        self._limits = limits
        self._folder = folder
        self._threads = _all_threads()
        self._free = _free(folder)
        self._size: int | None = None

    def broken(self, leader: int) -> str | None:
        """Which limit the process `leader` with its children has passed; None: none.

        The first look is cheap; only when the whole machine has changed by more than a limit is it
        found out whose doing that was.
        """
        most = self._limits.processes
        if _all_threads() - self._threads > most and _count(leader) > most:
            return f"more than {most} processes"
        if self._free - _free(self._folder) > self._limits.disk:
            size = _size(self._folder, self._limits.disk)
            if size > self._limits.disk:
                return f"more than {self._limits.disk >> 20} MiB of files"
        return None


def _all_threads() -> int:
    """Of the whole machine; only the processes where the kernel does not tell in one line."""
    try:
        return int(_LOAD.read_text().split()[3].partition("/")[2])
    except (OSError, ValueError, IndexError):
        return len(psutil.pids())


def _count(leader: int) -> int:
    count = 0
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(leader)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                count += process.num_threads()
    return count


def _free(folder: Path) -> int:
    try:
        about = os.statvfs(folder)
    except OSError:
        return 0
    return about.f_bavail * about.f_frsize


def _size(folder: Path, enough: int) -> int:
    """Bytes on disk below `folder`; counting stops above `enough`."""
    size, folders = 0, [str(folder)]
    while folders and size <= enough:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
    return size
