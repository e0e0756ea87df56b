"""What keepers of a server have in common: one revival at a time, and not for ever.

Several requests meet the same dead server at the same moment. The first one starts the revival, the
others wait for that one, and none of them ends it by being cancelled.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.core.errors import EngineError, ServerError

MOST_IN_A_ROW = 3
"""Servers without one answer between them; after that a user should see why."""


class Reviver(ABC):
    """The part of a `Keeper` that decides when to revive; use it as an async context manager."""

    def __init__(self, *, timeout_s: float, on_restart: Callable[[str], None]) -> None:
        """`timeout_s`: seconds that a revival may take. `on_restart` is told the reason each time,
        once the next server is ready."""
        self._timeout_s = timeout_s
        self._tell = on_restart
        self._lives = 1
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

    def answered(self) -> None:
        """See `Keeper.answered`."""
        self._in_a_row = 0

    async def ready(self) -> int:
        """See `Keeper.ready`."""
        if self._reviving is not None:
            await asyncio.wait({self._reviving})
        return self._lives

    async def revive(self, life: int, error: EngineError) -> None:
        """See `Keeper.revive`. Raises ServerError when that takes too long, and when several
        servers in a row gave no answer."""
        if life == self._lives:
            # Shielded: whoever waits for it may be cancelled, and others wait, too.
            await asyncio.shield(self._start_reviving(error.message))

    def revive_soon(self, life: int, reason: str) -> None:
        """See `Keeper.revive_soon`."""
        if life == self._lives:
            self._start_reviving(reason)

    @abstractmethod
    async def _revive(self, reason: str) -> None:
        """Get another server in the place of the one of now, and call `_revived`. Raises
        ServerError."""

    def _revived(self, reason: str) -> None:
        """Another server is there, for `reason`."""
        self._lives += 1
        self._tell(reason.partition("\n")[0])

    def _one_more(self, reason: str, *, whose: str, log: Path, more: str) -> int:
        """How many tries came before this one in a row. Raises ServerError when they are enough;
        `whose` server it is begins that sentence, and `more` ends it."""
        if self._in_a_row == MOST_IN_A_ROW:
            raise ServerError(
                f"{whose} failed {MOST_IN_A_ROW + 1} times in a row without an answer between. "
                f"The last time: {reason}",
                log=log,
                fix="Another model, a smaller LLAMACPP_CONTEXT_SIZE or another llama-server "
                "(LLAMACPP_BINARY_PATH) may do better, or a longer REQUEST_TIMEOUT_S; "
                f"{more} says more.",
            )
        self._in_a_row += 1
        return self._in_a_row - 1

    def _start_reviving(self, reason: str) -> asyncio.Task[None]:
        if self._reviving is None or self._reviving.done():
            self._reviving = asyncio.create_task(self._revive(reason))
            self._reviving.add_done_callback(_look_at_failure)
        return self._reviving


def _look_at_failure(task: asyncio.Task[None]) -> None:
    """Nobody may be waiting: whoever asks next meets the same failure."""
    if not task.cancelled():
        task.exception()
