"""One command with its sandbox: what is really started, watched, interrupted and ended.

In bubblewrap the command is a grandchild, in a process namespace of its own: whoever kills the
first process of that kills all. Without it everything that the command started carries a mark in
its environment, by which what has left the process group is found on Linux.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from agent.core.command_limits import Watch, setter
from agent.core.process_group import die_with_parent, end_group, signal_group
from agent.core.sandbox import Sandbox

_LOOK_S = 0.2
_END_S = 2.0
_MARK = "TURBO_COMMAND"


class Confined:
    """A command that is to be started in `folder`."""

    def __init__(
        self,
        argv: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        sandbox: Sandbox | None,
    ) -> None:
        self.argv = tuple(argv)
        self.folder = folder
        self._sandbox = sandbox
        self.isolated = sandbox is not None and sandbox.bubblewrap is not None
        """In namespaces of its own."""
        self.words, self.environment = self.argv, dict(environment)
        self._mark = ""
        if sandbox is not None and argv:
            self.words, self.environment = sandbox.confine(
                argv, folder=folder, environment=environment
            )
            if not self.isolated:
                self._mark = secrets.token_hex(8)
                self.environment[_MARK] = self._mark

    def missing(self) -> int | None:
        """The error number with which the system would refuse the program; None when it would not.
        Bubblewrap has other words for it."""
        name = self.argv[0]
        if os.sep not in name:
            return None if shutil.which(name, path=self.environment.get("PATH")) else errno.ENOENT
        path = self.folder / name
        if not path.exists():
            return errno.ENOENT
        return None if os.access(path, os.X_OK) else errno.EACCES

    def prepare(self) -> Callable[[], None] | None:
        """What is done between fork and exec."""
        steps = [die_with_parent(), setter(self._sandbox.limits) if self._sandbox else None]
        calls = [step for step in steps if step is not None]

        def run() -> None:
            for call in calls:
                call()

        return run if calls else None

    async def watched(
        self, process: asyncio.subprocess.Process, broken: Callable[[], str | None]
    ) -> str | None:
        """Wait for the end; the limit that was passed, when that ended it. `broken` tells whether
        another one was passed than those of the sandbox."""
        watch = Watch(self._sandbox.limits, self.folder) if self._sandbox is not None else None
        ended = asyncio.ensure_future(process.wait())
        try:
            while True:
                done, _ = await asyncio.wait({ended}, timeout=_LOOK_S)
                if done:
                    return None
                if over := broken() or (watch and watch.broken(process.pid)):
                    await self.end(process)
                    return over
        finally:
            ended.cancel()

    def interrupt(self, process: asyncio.subprocess.Process) -> None:
        """INT to what runs, but not to bubblewrap, which would end all at once."""
        if not self.isolated:
            signal_group(process.pid, signal.SIGINT)
            return
        for first in _children(process.pid):
            for inner in _children(first.pid, recursive=True):
                with contextlib.suppress(psutil.Error):
                    inner.send_signal(signal.SIGINT)

    async def end(self, process: asyncio.subprocess.Process) -> None:
        """KILL whatever is left of it."""
        try:
            if self.isolated and process.returncode is None:
                for first in _children(process.pid):
                    with contextlib.suppress(psutil.Error):
                        first.kill()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), _END_S)
        finally:
            try:
                await end_group(process, patience_s=0, terms=0)
            finally:
                self._end_marked()

    def _end_marked(self) -> None:
        """KILL what has left the group. One that clears its environment is not found."""
        if not self._mark:
            return
        for process in _marked(self._mark):
            with contextlib.suppress(psutil.Error):
                process.kill()


def _children(pid: int, *, recursive: bool = False) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=recursive)
    except psutil.Error:
        return []


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(_MARK) == mark:
                yield process
