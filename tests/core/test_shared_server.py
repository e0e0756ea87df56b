"""Several users on one real server: other runs of ours, and clients that know nothing of us."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import httpx
from servers import RealServer

from agent.core.backend_manager import Request, get_backend
from agent.core.prompts import Prompt
from agent.core.sampling import CODING


def ask(words: str, seed: int, tokens: int = 60) -> Request:
    prompt = Prompt("You write code.", "def add(a, b):\n", "Complete the code.\n", words)
    sampling = CODING.with_seed(seed).warmer(1.2)
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": 40, "maxItems": 40}
    return Request(prompt=prompt, sampling=sampling, max_tokens=tokens, json_schema=schema)


async def watch(server: RealServer, until: asyncio.Event) -> list[int]:
    """How many requests the server held back because their slot was busy, at any moment."""
    deferred = []
    async with httpx.AsyncClient(
        base_url=server.url, headers=server.headers, timeout=30, trust_env=False
    ) as client:
        while not until.is_set():
            text = (await client.get("/metrics")).text
            line = next(x for x in text.splitlines() if x.startswith("llamacpp:requests_deferred"))
            deferred.append(int(float(line.split()[-1])))
            await asyncio.sleep(0.005)
    return deferred


async def test_two_runs_on_one_server_share_its_slots_and_never_meet_in_one(
    real_server: RealServer,
) -> None:
    """Each run has locks of its own, as two processes have."""
    done = asyncio.Event()
    watching = asyncio.create_task(watch(real_server, done))
    async with AsyncExitStack() as stack:
        backends = [
            (await stack.enter_async_context(get_backend(real_server.settings))).backend
            for _ in range(2)
        ]
        replies = await asyncio.gather(
            *(
                backend.complete(ask(f"{number}{index}", 10 * number + index))
                for number, backend in enumerate(backends)
                for index in range(8)
            )
        )
    done.set()
    assert max(await watching) == 0
    assert len(replies) == 16
    assert all(reply.text.startswith("[") for reply in replies)


async def test_what_another_run_did_to_a_slot_is_not_counted_on(real_server: RealServer) -> None:
    async with AsyncExitStack() as stack:
        one, two = [
            (await stack.enter_async_context(get_backend(real_server.settings))).backend
            for _ in range(2)
        ]
        await one.complete(ask("first " * 40, 1))
        for number in range(one.slots):
            await asyncio.gather(
                *(two.complete(ask(f"{number} {x} " * 60, 1)) for x in range(one.slots))
            )
        again = await one.complete(ask("first " * 40, 1))
    assert again.miss is None
    assert again.usage.cached >= again.usage.expected_cached


async def test_a_slot_that_somebody_else_keeps_busy_is_left_alone(real_server: RealServer) -> None:
    async with httpx.AsyncClient(
        base_url=real_server.url, headers=real_server.headers, timeout=60, trust_env=False
    ) as stranger:
        body = {
            "prompt": "x",
            "n_predict": 3000,
            "id_slot": 0,
            "stream": True,
            "json_schema": {"type": "array", "items": {"type": "integer"}, "minItems": 2000},
        }
        async with stranger.stream("POST", "/completion", json=body) as stream:
            lines = stream.aiter_lines()  # dropped, it would close the stream
            await anext(lines)
            async with get_backend(real_server.settings) as opened:
                replies = await asyncio.gather(
                    *(opened.backend.complete(ask(str(x), x, tokens=4)) for x in range(3))
                )
            slots = (await stranger.get("/slots")).json()
    assert slots[0]["is_processing"], "the stranger was done too early to prove anything"
    assert {reply.slot for reply in replies} == {1, 2, 3}
