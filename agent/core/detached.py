"""Starts a program that outlives us, in a session of its own, without our terminal and files."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from agent.core.config import environment_for
from agent.core.errors import ServerError

_PAUSE_S = 0.02


class Detached:
    """A program that was started; whoever started it may still watch and end it."""

    def __init__(self, argv: Sequence[str], *, log: Path) -> None:
        """What it prints is appended to `log`. Raises ServerError when it cannot be started."""
        write = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            self.pid = os.posix_spawn(
                argv[0],
                list(argv),
                environment_for(),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(log), write, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigmask=[],  # ours may be holding signals back
            )
        except OSError as error:
            raise ServerError(
                f"{argv[0]} cannot be started with its log in {log}: {error.strerror or error}",
                fix="Make room on that disk or make the folder writable.",
            ) from None
        self._exit_code: int | None = None

    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        if self._exit_code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._exit_code = os.waitstatus_to_exitcode(status)
        return self._exit_code

    def end(self, *, patience_s: float) -> None:
        """TERM it and wait; KILL it after `patience_s` seconds."""
        for signum in (signal.SIGTERM, signal.SIGKILL):
            if self.exit_code() is None:  # until it is reaped, nobody else can have its pid
                os.kill(self.pid, signum)
            give_up_at = time.monotonic() + patience_s
            while self.exit_code() is None and time.monotonic() < give_up_at:
                time.sleep(_PAUSE_S)
