"""Keeps one server of ours alive: the one that died or hangs is started again, a few times.

The next server has the plan, the port and the key of the one before, so that whoever speaks to it
only has to ask again. What its slots held is lost; what was saved to disk is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType

from agent.core.errors import ServerDied
from agent.core.llamacpp_server import LlamaCppServer
from agent.core.reviving import Reviver
from agent.core.server_log import new_log

_BACKOFF_S = (0.0, 0.5, 2.0)
"""Before each start without one answer between them."""


class ServerKeeper(Reviver):
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
        super().__init__(timeout_s=timeout_s, on_restart=on_restart)
        self.server = server
        self._owned = AsyncExitStack()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await super().__aexit__(kind, error, traceback)
        await self._owned.aclose()

    async def _revive(self, reason: str) -> None:
        reason = self.server.death() or reason
        await self.server.end()
        while True:
            tried = self._one_more(
                reason, whose="llama-server", log=self.server.log, more="the log"
            )
            await asyncio.sleep(_BACKOFF_S[tried])
            try:
                await self._start()
                break
            except ServerDied as death:
                reason = death.message
        self._revived(reason)

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
