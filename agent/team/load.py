"""How many slots of the server work, on average, while a run goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.core.backend_manager import Backend, Decodes
from agent.core.journal import Journal

_EVERY_S = 1.0


class Load:
    """The server's own count of busy slots, since this was made."""

    def __init__(self, backend: Backend, journal: Journal) -> None:
        self._backend = backend
        self._journal = journal
        self._last: Decodes | None = None
        self._batches = 0
        self._busy = 0.0

    @property
    def busy_slots(self) -> float:
        """Slots that took part in a batch, on average; 0 when nothing was decoded or counted."""
        return self._busy / self._batches if self._batches else 0.0

    async def look(self) -> None:
        """Ask the server, and tell the views."""
        now = await self._backend.decodes()
        if now is None:
            return
        last = self._last
        if last is not None:
            if now.batches < last.batches:  # another server took its place and counts from 0
                last = Decodes(batches=0, busy=0.0)
            self._batches += now.batches - last.batches
            self._busy += now.busy - last.busy
        self._last = now
        if self._batches:
            self._journal.show("load", busy_slots=self.busy_slots)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            await self.look()


@asynccontextmanager
async def watch_load(backend: Backend, journal: Journal) -> AsyncIterator[Load]:
    """Look every second until the end."""
    load = Load(backend, journal)
    await load.look()
    looking = asyncio.create_task(load._keep_looking())
    try:
        yield load
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
