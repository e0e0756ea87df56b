"""Who to turn to when a server fails in the middle of a request."""

from __future__ import annotations

from typing import Protocol

from agent.core.errors import EngineError


class Keeper(Protocol):
    """Keeps a server alive, or does not."""

    async def ready(self) -> int:
        """Wait while a server is being started; then the number of the server of now, from 1."""
        ...

    async def revive(self, life: int, error: EngineError) -> None:
        """Start another server because number `life` failed with `error`, unless that has been
        done already. Raises an EngineError when there will be no other one."""
        ...

    def revive_soon(self, life: int, reason: str) -> None:
        """The same without waiting for it; who asks next learns what came of it."""
        ...

    def answered(self) -> None:
        """The server of now has done what it is for."""
        ...


class NotOurs:
    """The keeper of a server that somebody else started: nobody starts another one."""

    async def ready(self) -> int:
        """At once."""
        return 1

    async def revive(self, life: int, error: EngineError) -> None:
        """Raises `error`."""
        raise error

    def revive_soon(self, life: int, reason: str) -> None:
        """Nothing."""

    def answered(self) -> None:
        """Nothing."""
