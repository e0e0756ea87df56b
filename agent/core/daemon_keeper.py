"""Keeps a run going while the daemon starts its server again.

The daemon's next server has the port and the key of the one before (server_keeper.py), so a run
only has to wait for it and ask again. A run never starts a server in the daemon's place. It ends
one that hangs, which the daemon then sees; it names that one by pid and start, so that several runs
that notice the same do not end the next one, too.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from agent.core.daemon_record import (
    Serving,
    daemon_folder,
    daemon_lives,
    note_answer,
    read_record,
)
from agent.core.errors import EngineError, ServerError

_MOST_IN_A_ROW = 3
"""Servers that may fail under requests of ours without one answer between them."""
_PAUSE_S = 0.05


class DaemonKeeper:
    """The `Keeper` of a run on the daemon's server; use it as an async context manager."""

    def __init__(
        self,
        serving: Serving,
        *,
        timeout_s: float,
        on_restart: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`timeout_s`: seconds that the daemon may take to start its server again. `on_restart` is
        told the reason each time, once the next server is ready."""
        self._serving = serving
        self._timeout_s = timeout_s
        self._on_restart = on_restart
        self._folder = daemon_folder()
        self._lives = 1
        self._used_at = time.monotonic()
        self._in_a_row = 0
        self._reviving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._reviving is not None:
            self._reviving.cancel()
            await asyncio.gather(self._reviving, return_exceptions=True)

    def death(self) -> ServerError | None:
        """Why the server of now is gone; None while it lives."""
        if self._serving.process.lives():
            return None
        return ServerError("The daemon's llama-server ended.", log=self._serving.log)

    def answered(self) -> None:
        """See `Keeper.answered`."""
        self._in_a_row = 0
        self._used_at = time.monotonic()
        note_answer(self._folder)

    async def ready(self) -> int:
        """See `Keeper.ready`."""
        if self._reviving is not None:
            await asyncio.wait({self._reviving})
        if not self._look() and self._may_have_slept():
            self._lives += 1  # it woke with empty slots, as if it had been started again
        self._used_at = time.monotonic()
        return self._lives

    async def revive(self, life: int, error: EngineError) -> None:
        """See `Keeper.revive`. Raises ServerError when the daemon has gone, when it takes too long,
        and when several servers in a row gave no answer."""
        if life == self._lives:
            # Shielded: whoever waits for it may be cancelled, and others wait, too.
            await asyncio.shield(self._start_reviving(error.message))

    def revive_soon(self, life: int, reason: str) -> None:
        """See `Keeper.revive_soon`."""
        if life == self._lives:
            self._start_reviving(reason)

    def _start_reviving(self, reason: str) -> asyncio.Task[None]:
        if self._reviving is None or self._reviving.done():
            self._reviving = asyncio.create_task(self._revive(reason))
            self._reviving.add_done_callback(_look_at_failure)
        return self._reviving

    async def _revive(self, reason: str) -> None:
        if self._in_a_row == _MOST_IN_A_ROW:
            raise ServerError(
                f"The daemon's llama-server failed {_MOST_IN_A_ROW + 1} times in a row without an "
                f"answer between. The last time: {reason}",
                log=self._serving.log,
                fix="Another model, a smaller LLAMACPP_CONTEXT_SIZE or another llama-server "
                "(LLAMACPP_BINARY_PATH) may do better; `turbo server logs` says more.",
            )
        self._in_a_row += 1
        self._serving.process.send_group(signal.SIGKILL)
        give_up_at = time.monotonic() + self._timeout_s
        while not self._look(reason):
            if not daemon_lives():
                raise ServerError(
                    "The daemon ended, and its llama-server with it.",
                    fix="Run again: the run starts a server of its own, or `turbo server start` "
                    "starts the daemon. `turbo server logs` may say why it ended.",
                )
            if time.monotonic() > give_up_at:
                raise ServerError(
                    f"The daemon did not start its llama-server again in {self._timeout_s:g} s.",
                    log=self._serving.log,
                    fix="`turbo server restart --force` starts both again.",
                )
            await asyncio.sleep(_PAUSE_S)

    def _may_have_slept(self) -> bool:
        idle_s = self._serving.sleep_idle_s
        return idle_s is not None and time.monotonic() - self._used_at >= idle_s

    def _look(self, reason: str = "") -> bool:
        """Whether another server has taken the place of the one of now."""
        record = read_record()
        now = record.serving if record else None
        before = self._serving
        if now is None or now.process == before.process:
            return False
        if (now.url, now.api_key) != (before.url, before.api_key):
            return False  # that of another daemon
        self._serving = now
        self._lives += 1
        self._on_restart(reason.partition("\n")[0] or now.reason)
        return True


def _look_at_failure(task: asyncio.Task[None]) -> None:
    """Nobody may be waiting: whoever asks next meets the same failure."""
    if not task.cancelled():
        task.exception()
