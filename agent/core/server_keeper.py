"""Keeps one server of ours alive: the one that died or hangs is started again, a few times.

The next server has the plan, the port and the key of the one before, so that whoever speaks to it
only has to ask again. What its slots held is lost; what was saved to disk is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from agent.core.errors import EngineError, ServerDied, ServerError
from agent.core.llamacpp_server import LlamaCppServer
from agent.core.server_log import new_log

_MOST_IN_A_ROW = 3
"""Starts without one answer between them; after that a user should see why."""
_BACKOFF_S = (0.0, 0.5, 2.0)
"""Before each of them."""


class ServerKeeper:
    """The `Keeper` of a server that is ours; use it as an async context manager.

    The first server stays its own owner's to end as well; ending twice does nothing.
    """

    def __init__(
        self,
        server: LlamaCppServer,
        *,
        timeout_s: float,
        on_restart: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`timeout_s`: seconds that the next server may take to load. `on_restart` is told the
        reason each time, once the next server is ready."""
        self.server = server
        self._lives = 1
        self._timeout_s = timeout_s
        self._on_restart = on_restart
        self._in_a_row = 0
        self._reviving: asyncio.Task[None] | None = None
        self._owned = AsyncExitStack()

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
        await self._owned.aclose()

    def answered(self) -> None:
        """See `Keeper.answered`."""
        self._in_a_row = 0

    async def ready(self) -> int:
        """See `Keeper.ready`."""
        if self._reviving is not None:
            await asyncio.wait({self._reviving})
        return self._lives

    async def revive(self, life: int, error: EngineError) -> None:
        """See `Keeper.revive`. Raises ServerError when several servers in a row gave no answer."""
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
        reason = self.server.death() or reason
        await self.server.end()
        while True:
            if self._in_a_row == _MOST_IN_A_ROW:
                raise self._given_up(reason)
            await asyncio.sleep(_BACKOFF_S[self._in_a_row])
            self._in_a_row += 1
            try:
                await self._start()
                break
            except ServerDied as death:
                reason = death.message
        self._lives += 1
        self._on_restart(reason.partition("\n")[0])

    async def _start(self) -> None:
        old = self.server
        await self._owned.aclose()
        launch = LlamaCppServer.launch(
            old.plan,
            log=new_log(old.log.parent),
            timeout_s=self._timeout_s,
            api_key=old.api_key,
        )
        self.server = await self._owned.enter_async_context(launch)

    def _given_up(self, reason: str) -> ServerError:
        return ServerError(
            f"llama-server failed {_MOST_IN_A_ROW + 1} times in a row without an answer between. "
            f"The last time: {reason}",
            log=self.server.log,
            fix="Another model, a smaller LLAMACPP_CONTEXT_SIZE or another llama-server "
            "(LLAMACPP_BINARY_PATH) may do better, or a longer REQUEST_TIMEOUT_S; "
            "the log says more.",
        )


def _look_at_failure(task: asyncio.Task[None]) -> None:
    """Nobody may be waiting: whoever asks next meets the same failure."""
    if not task.cancelled():
        task.exception()
