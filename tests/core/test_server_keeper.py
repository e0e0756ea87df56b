"""A server that dies or hangs under its requests: another one answers them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from cutting import cut

from agent.core.backend_manager import Backend, Reply, Request, get_backend
from agent.core.config import Settings
from agent.core.errors import ServerError
from agent.core.prompts import Prompt
from agent.core.sampling import CODING

SHARED = "".join(f"def helper_{number}(value):\n    return value\n" for number in range(40))


NUMBERS = {"type": "array", "items": {"type": "integer"}, "minItems": 200, "maxItems": 200}
"""An answer that is long enough for something to happen meanwhile."""


def ask(name: str) -> Request:
    prompt = Prompt("You write code.", SHARED, "# Role: coder\n", f"Write {name}.")
    return Request(prompt=prompt, sampling=CODING, max_tokens=1500, json_schema=NUMBERS)


@dataclass
class Rig:
    """A backend with a server of its own, and why that was started again."""

    backend: Backend
    restarts: list[str]
    cache: Path

    def servers(self) -> list[psutil.Process]:
        found = []
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                ours = child.environ().get("XDG_CACHE_HOME") == str(self.cache)
                if ours and "llama-server" in child.name():
                    found.append(child)
        return found

    def send(self, signum: signal.Signals) -> None:
        for server in self.servers():
            os.kill(server.pid, signum)

    async def cut(self, name: str) -> asyncio.Task[Reply]:
        """A request whose server is stopped in the midst of its answer."""
        return await cut(self.backend, ask(name), self.send)


@asynccontextmanager
async def rig(cache: Path, *, stall_s: float = 30.0) -> AsyncIterator[Rig]:
    restarts: list[str] = []
    settings = Settings(request_timeout_s=stall_s)
    async with get_backend(settings, on_restart=restarts.append) as opened:
        own = Rig(opened.backend, restarts, cache)
        yield own
    assert own.servers() == []


async def test_a_killed_server_is_followed_by_one_that_answers_the_same(own_cache: Path) -> None:
    async with rig(own_cache) as own:
        undisturbed = await own.backend.complete(ask("a"))
        asked = await own.cut("a")
        own.send(signal.SIGKILL)
        reply = await asked
        others = await asyncio.gather(*(own.backend.complete(ask(x)) for x in "bcd"))
    assert reply.text == undisturbed.text
    assert reply.usage.cached > 400  # what was saved is restored, not computed again
    assert not any(other.miss for other in (reply, *others))
    assert own.restarts == [
        "llama-server was killed (SIGKILL); the system does that when memory runs out"
    ]


async def test_requests_that_die_together_share_one_restart(own_cache: Path) -> None:
    async with rig(own_cache) as own:
        others = [asyncio.create_task(own.backend.complete(ask(x))) for x in "bcd"]
        asked = await own.cut("a")
        own.send(signal.SIGKILL)
        replies = await asyncio.gather(asked, *others)
    assert all(reply.usage.predicted > 0 for reply in replies)
    assert len(own.restarts) == 1


async def test_one_that_hangs_is_replaced_after_the_stall(own_cache: Path) -> None:
    async with rig(own_cache, stall_s=1.5) as own:
        reply = await (await own.cut("a"))
    assert reply.usage.predicted > 0
    assert len(own.restarts) == 1
    assert "1.5 s" in own.restarts[0]


async def test_one_whose_slot_never_becomes_idle_is_replaced(own_cache: Path) -> None:
    async with rig(own_cache, stall_s=1.0) as own:
        asked = await own.cut("a")
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        async with asyncio.timeout(40):
            while not own.restarts:
                await asyncio.sleep(0.05)
        reply = await own.backend.complete(ask("b"))
    assert "was given up" in own.restarts[0]
    assert reply.usage.predicted > 0


async def test_one_that_keeps_dying_is_given_up_with_its_log(own_cache: Path) -> None:
    async def kill_every_server() -> None:
        while True:
            own.send(signal.SIGKILL)
            await asyncio.sleep(0.005)

    async with rig(own_cache) as own:
        killing = asyncio.create_task(kill_every_server())
        with pytest.raises(ServerError, match="4 times in a row") as failed:
            await own.backend.complete(ask("a"))
        killing.cancel()
        with pytest.raises(ServerError, match="4 times in a row"):
            await own.backend.complete(ask("b"))
    assert failed.value.log is not None
    assert failed.value.log.exists()
    assert failed.value.exit_code == 3
