"""The real command in a process of its own that need not import anything first.

A server process has imported the command line and the graph and forks a child per command. Imports
are more than half of the CPU time of a run with scripted answers, and there are hundreds of them.
What depends on how Python starts (`PYTHON...` variables, another program) starts Python.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO

_PRELOADED = ("agent.cli", "agent.team.session", "agent.team.workflow", "agent.team.graph")

_CONTEXT = multiprocessing.get_context("forkserver")


class Forked:
    """A child that runs the command line; as much of `asyncio.subprocess.Process` as tests use."""

    def __init__(self, arguments: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> None:
        stdin, self._stdin = os.pipe()
        self._stdout, stdout = os.pipe()
        self._stderr, stderr = os.pipe()
        theirs = (stdin, stdout, stderr)
        start_server()
        self._process = _CONTEXT.Process(
            target=_run, args=(tuple(arguments), str(cwd), dict(environment), *map(_Sent, theirs))
        )
        self._process.start()
        for fd in theirs:
            os.close(fd)
        assert self._process.pid is not None
        self.pid = self._process.pid

    def kill(self) -> None:
        self._process.kill()

    async def wait(self) -> int:
        while self._process.exitcode is None:
            await asyncio.sleep(0.005)
        return self._process.exitcode

    async def communicate(self, data: bytes) -> tuple[bytes, bytes]:
        """Standard output and standard error until both are closed, and the end awaited."""
        written = asyncio.to_thread(_write, self._stdin, data)
        outputs = (asyncio.to_thread(_read, fd) for fd in (self._stdout, self._stderr))
        _, out, err = await asyncio.gather(written, *outputs)
        await self.wait()
        return out, err


class _Sent:
    """A file descriptor on its way into the child."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[object, tuple[object]]:
        return _received, (DupFd(self.fd),)


def _received(sent: object) -> int:
    fd: int = sent.detach()  # type: ignore[attr-defined]
    return fd


def start_server() -> None:
    """Begin to import, in a process that has the environment of now; later calls do nothing."""
    _CONTEXT.set_forkserver_preload(list(_PRELOADED))
    forkserver.ensure_running()


def _run(arguments: tuple[str, ...], cwd: str, environment: dict[str, str], *streams: int) -> None:
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.stdin = _text(0, "r")
    sys.stdout = sys.__stdout__ = _text(1, "w")
    sys.stderr = sys.__stderr__ = _text(2, "w")
    from agent.cli import console

    sys.exit(console(arguments))


def _text(fd: int, mode: str) -> IO[str]:
    errors = "backslashreplace" if fd == 2 else "strict"
    buffering = 1 if fd == 2 else -1
    return os.fdopen(fd, mode, buffering, encoding="utf-8", errors=errors, closefd=False)


def _write(fd: int, data: bytes) -> None:
    with open(fd, "wb") as pipe:
        try:
            pipe.write(data)
        except BrokenPipeError:
            return


def _read(fd: int) -> bytes:
    with open(fd, "rb") as pipe:
        return pipe.read()
