"""Reading ahead on a real server: what was read is not read again, and real requests go first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from servers import RealServer

from agent.core.backend_manager import Backend, Progress, Request, get_backend
from agent.core.config import Settings
from agent.core.prompts import Prompt
from agent.core.sampling import CODING

DIFF = "".join(f"+def added_{number}(value):\n" for number in range(60))


def prompt(name: str, *, tests: str = "") -> Prompt:
    return Prompt("You write code.", f"# Repository {name}\n" * 20, "# Role\n", f"{DIFF}{tests}")


def ask(asked: Prompt, tokens: int = 8) -> Request:
    return Request(prompt=asked, sampling=CODING, max_tokens=tokens)


@pytest.mark.parametrize("bank_mb", [0, 64])
@pytest.mark.usefixtures("own_cache")
async def test_what_was_read_ahead_is_not_read_again(bank_mb: int) -> None:
    async with get_backend(Settings(prefix_bank_max_mb=bank_mb)) as opened:
        backend = opened.backend
        seen: list[Progress] = []
        await backend.read_ahead(prompt("a"), seen.append)
        reply = await backend.complete(ask(prompt("a", tests="\n## Tests\nexit code 0")))
    assert seen[-1].done > 600
    assert reply.usage.computed < 20
    assert reply.miss is None


@asynccontextmanager
async def busy_slots(backend: Backend, count: int) -> AsyncIterator[None]:
    """That many slots work until the end."""
    started: asyncio.Queue[int | None] = asyncio.Queue()

    def begun(progress: Progress) -> None:
        if progress.phase == "prefill":
            started.put_nowait(progress.slot)

    tasks = [
        asyncio.create_task(backend.complete(ask(prompt(f"busy {number}"), 2000), begun))
        for number in range(count)
    ]
    working: set[int | None] = set()
    while len(working) < count:
        working.add(await started.get())
    yield
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_it_does_nothing_while_a_slot_works(real_server: RealServer) -> None:
    seen: list[Progress] = []
    async with (
        get_backend(real_server.settings) as opened,
        busy_slots(opened.backend, 1),
    ):
        await opened.backend.read_ahead(prompt("b"), seen.append)
    assert seen == []


async def test_a_request_ends_the_reading(real_server: RealServer) -> None:
    long = replace(prompt("c"), volatile=DIFF * 5)
    seen: list[Progress] = []
    begun = asyncio.Event()

    def watch(progress: Progress) -> None:
        seen.append(progress)
        begun.set()

    async with get_backend(real_server.settings) as opened:
        reading = asyncio.create_task(opened.backend.read_ahead(long, watch))
        await begun.wait()
        reply = await opened.backend.complete(ask(prompt("d")))
        await reading
    assert reply.usage.predicted > 0
    assert seen[-1].done < seen[-1].prompt
