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

from agent.core.daemon_record import (
    Serving,
    daemon_folder,
    daemon_lives,
    note_answer,
    read_record,
)
from agent.core.errors import ServerError
from agent.core.reviving import Reviver

_PAUSE_S = 0.05
_LONG_S = 2.0


class DaemonKeeper(Reviver):
    """The `Keeper` of a run on the daemon's server; use it as an async context manager."""

    def __init__(
        self,
        serving: Serving,
        *,
        timeout_s: float,
        on_restart: Callable[[str], None] = lambda _: None,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`timeout_s`: seconds that the daemon may take to start its server again. `on_restart` is
        told the reason each time, once the next server is ready; `notice` gets a line when that
        takes long."""
        super().__init__(timeout_s=timeout_s, on_restart=on_restart)
        self._serving = serving
        self._notice = notice
        self._folder = daemon_folder()
        self._used_at = time.monotonic()

    def death(self) -> ServerError | None:
        """Why the server of now is gone; None while it lives."""
        if self._serving.process.lives():
            return None
        return ServerError("The daemon's llama-server ended.", log=self._serving.log)

    def answered(self) -> None:
        """See `Keeper.answered`."""
        super().answered()
        self._used_at = time.monotonic()
        note_answer(self._folder)

    async def ready(self) -> int:
        """See `Keeper.ready`."""
        await super().ready()
        if not self._look() and self._may_have_slept():
            self._lives += 1  # it woke with empty slots, as if it had been started again
        self._used_at = time.monotonic()
        return self._lives

    async def _revive(self, reason: str) -> None:
        self._one_more(
            reason,
            whose="The daemon's llama-server",
            log=self._serving.log,
            more="`turbo server logs`",
        )
        self._serving.process.send_group(signal.SIGKILL)
        began = time.monotonic()
        give_up_at, told = began + self._timeout_s, False
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
            if not told and time.monotonic() > began + _LONG_S:
                told = True
                self._notice("Waiting for the daemon, which has to start its llama-server again.")
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
        self._revived(reason or now.reason)
        return True
