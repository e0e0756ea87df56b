"""Run one command to its end: an argument vector in, a `CommandResult` out.

A red test is a result; only a command that cannot be started at all is an error. Whatever a
command does - print for ever, ignore TERM, leave children behind that keep its output open - it
ends at its deadline, its process group ends with it, and it holds a bounded part of our memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.core.config import command_environment
from agent.core.confined import Confined
from agent.core.errors import CommandError
from agent.core.process_group import end_group
from agent.core.sandbox import Sandbox

_INTERRUPT_S = 3.0
_TERM_S = 1.0
"""Seconds that a late command has after INT and after TERM. pytest takes one or two after INT to
say in which line it was."""

_CHUNK = 65_536
_FLOOD = 256 << 20
"""Bytes of output after which a command is ended: it prints for ever, and reading it takes the CPU
that the model needs. Only its head and its tail are of use anyway."""
_REST = 1_048_576
"""Most bytes read after the leader has exited: the capacity of a pipe is at most that."""

LEFT_OUT = "[... output left out ...]"
"""The line between head and tail. It names no amount: equal failures must stay equal texts."""


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """What became of a command."""

    argv: tuple[str, ...]

    exit_code: int | None
    """None when the deadline killed it; negative for the signal that ended it."""

    output: str
    """Standard output and standard error as they came, head and tail of it when it is long."""

    duration_s: float
    """Wall seconds."""

    over: str | None = None
    """The limit that it passed and was ended for."""

    @property
    def timed_out(self) -> bool:
        """The deadline came first."""
        return self.exit_code is None

    @property
    def ok(self) -> bool:
        """It ended by itself, with 0."""
        return self.exit_code == 0


async def run_command(
    argv: Sequence[str],
    *,
    cwd: Path,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    output_limit: int = 200_000,
    sandbox: Sandbox | None = None,
) -> CommandResult:
    """Run `argv` in `cwd` for at most `timeout_s` wall seconds.

    `env` is the whole environment of the command (default: `command_environment()`);
    `output_limit` is in bytes. In a `sandbox` it reaches and takes no more than that lets it;
    without one it is a command of ours that is trusted. When this call is cancelled everything that
    it started is killed first. Raises CommandError when the command cannot be started.
    """
    begin = time.monotonic()
    output = _Output(output_limit)
    given = command_environment() if env is None else env
    over: str | None = None
    with _pipe() as (reader, writer):
        confined = Confined(argv, cwd, given, sandbox)
        process = await _start(confined, writer)
        loop = asyncio.get_running_loop()
        loop.add_reader(reader, _take, reader, output)
        try:
            late = False
            try:
                async with asyncio.timeout(timeout_s):
                    over = await confined.watched(process, output.flooded)
            except TimeoutError:
                late = process.returncode is None
                await _interrupt(process, confined)
        finally:
            # Also after a normal end: what the command left behind is still there.
            try:
                await confined.end(process)
            finally:
                loop.remove_reader(reader)
        _take_rest(reader, output)
    return CommandResult(
        argv=tuple(argv),
        exit_code=None if late else process.returncode,
        output=output.text(),
        duration_s=time.monotonic() - begin,
        over=over,
    )


async def _start(confined: Confined, writer: int) -> asyncio.subprocess.Process:
    _check(confined)
    try:
        return await asyncio.create_subprocess_exec(
            *confined.words,
            cwd=confined.folder,
            env=confined.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            start_new_session=True,
            preexec_fn=confined.prepare(),
        )
    except (OSError, ValueError) as error:
        raise _explain(confined.argv[0], error) from None


async def _interrupt(process: asyncio.subprocess.Process, confined: Confined) -> None:
    """End a command that is late. INT comes first: test runners then tell where they hang."""
    confined.interrupt(process)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), _INTERRUPT_S)
    if not confined.isolated:
        await end_group(process, patience_s=_TERM_S)


def _check(confined: Confined) -> None:
    """Refuse what the system, or the sandbox, would blame on the program."""
    argv = confined.argv
    if not argv or not argv[0]:
        raise CommandError("The command is empty.", fix="Name a program to run.")
    if not confined.folder.is_dir():
        raise CommandError(f"{argv[0]} cannot be run in {confined.folder}: no such folder.")
    if confined.isolated and (reason := confined.missing()) is not None:
        raise _explain(argv[0], OSError(reason, os.strerror(reason)))


def _explain(program: str, error: OSError | ValueError) -> CommandError:
    match getattr(error, "errno", None):
        case errno.ENOENT:
            reason, fix = "not found", f"Install {program}, or correct the name of the program."
        case errno.EACCES:
            reason, fix = "not executable", f"chmod +x {program}, or run it by its interpreter."
        case errno.ENOEXEC:
            reason, fix = "no program", "Start the script with a line like #!/bin/sh."
        case errno.E2BIG:
            reason, fix = "its arguments are too long", "Pass fewer or shorter arguments."
        case _:
            reason, fix = str(error), "Correct the command."
    return CommandError(f"{program} cannot be started: {reason}.", fix=fix)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """A pipe of our own. With asyncio's, the wait for the process is also, in some versions of
    Python, a wait for everybody who holds the pipe open."""
    reader, writer = os.pipe()
    try:
        os.set_blocking(reader, False)
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


def _take(reader: int, output: _Output) -> int:
    """Read what is there, once; the number of bytes. We hold the write end: there is no EOF."""
    try:
        data = os.read(reader, _CHUNK)
    except BlockingIOError:
        return 0
    output.add(data)
    return len(data)


def _take_rest(reader: int, output: _Output) -> None:
    taken = 0
    while taken < _REST and (got := _take(reader, output)):
        taken += got


class _Output:
    """The head and the tail of a stream of bytes, in hardly more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._total = 0
        self._first = max(limit // 2, 1)
        self._last = max(limit - self._first, 1)
        self._head = bytearray()
        self._tail = bytearray()
        self._cut = False

    def flooded(self) -> str | None:
        """The limit that the whole stream has passed; None: none."""
        return f"more than {_FLOOD >> 20} MiB of output" if self._total > _FLOOD else None

    def add(self, data: bytes) -> None:
        self._total += len(data)
        room = self._first - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > self._last + _CHUNK:
            self._cut = True
            del self._tail[: -self._last]

    def text(self) -> str:
        if len(self._tail) > self._last:
            self._cut = True
            del self._tail[: -self._last]
        if not self._cut:
            return (self._head + self._tail).decode("utf-8", errors="replace")
        # Whole lines, where there are any: half a line, or half a character, misleads.
        head = self._head[: self._head.rfind(b"\n") + 1] or self._head + b"\n"
        tail = self._tail[self._tail.find(b"\n") + 1 :] or self._tail
        texts = (part.decode("utf-8", errors="replace") for part in (head, tail))
        return f"{LEFT_OUT}\n".join(texts)
