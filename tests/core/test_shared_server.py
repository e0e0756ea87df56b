"""Several users on one real server: other runs of ours, and clients that know nothing of us."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
from servers import RealServer
from team.conftest import run_turbo

from agent.core.backend_manager import Request, get_backend
from agent.core.prompts import Prompt
from agent.core.sampling import CODING

CHILD = Path(__file__).parent.parent / "fakes" / "share_server.py"


def ask(words: str, seed: int, tokens: int = 60) -> Request:
    prompt = Prompt("You write code.", "def add(a, b):\n", "Complete the code.\n", words)
    sampling = CODING.with_seed(seed).warmer(1.2)
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": 40, "maxItems": 40}
    return Request(prompt=prompt, sampling=sampling, max_tokens=tokens, json_schema=schema)


@asynccontextmanager
async def watched(server: RealServer) -> AsyncIterator[list[int]]:
    """How many requests the server held back because their slot was busy, at any moment."""
    deferred: list[int] = []

    async def watch() -> None:
        while True:
            text = (await client.get("/metrics")).text
            line = next(x for x in text.splitlines() if x.startswith("llamacpp:requests_deferred"))
            deferred.append(int(float(line.split()[-1])))
            await asyncio.sleep(0.005)

    async with stranger_of(server) as client:
        watching = asyncio.create_task(watch())
        try:
            yield deferred
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def stranger_of(server: RealServer) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=server.url, headers=server.headers, timeout=60, trust_env=False
    )


async def busy_slots(client: httpx.AsyncClient) -> set[int]:
    slots = (await client.get("/slots")).json()
    return {slot["id"] for slot in slots if slot["is_processing"]}


@asynccontextmanager
async def occupied(client: httpx.AsyncClient, slot: int) -> AsyncIterator[None]:
    """Somebody else writes something long in a slot."""
    body = {
        "prompt": "x",
        "n_predict": 3500,
        "id_slot": slot,
        "stream": True,
        "json_schema": {"type": "array", "items": {"type": "integer"}, "minItems": 2000},
    }
    async with (
        client.stream("POST", "/completion", json=body) as stream,
        aclosing(stream.aiter_lines()) as lines,
    ):
        await anext(lines)
        yield


async def test_two_backends_on_one_server_share_its_slots_and_never_meet_in_one(
    real_server: RealServer,
) -> None:
    """Each has locks of its own, as two processes have."""
    async with watched(real_server) as deferred, AsyncExitStack() as stack:
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
    assert max(deferred) == 0
    assert len(replies) == 16
    assert all(reply.text.startswith("[") for reply in replies)


def to_attach(server: RealServer) -> dict[str, str]:
    return {"LLAMACPP_URL": server.url, "LLAMACPP_API_KEY": server.api_key}


class Child:
    """Another process that uses the server, see tests/fakes/share_server.py."""

    def __init__(self, process: asyncio.subprocess.Process, asked: set[str]) -> None:
        self.process = process
        self._asked = asked
        self._said: list[str] = []

    @classmethod
    @asynccontextmanager
    async def started(
        cls, server: RealServer, name: str, *, workers: int, each: int, numbers: int
    ) -> AsyncIterator[Child]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, CHILD, name, str(workers), str(each), str(numbers)),
            env={**os.environ, **to_attach(server)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        child = cls(process, {f"{name}{x}.{y}" for x in range(workers) for y in range(each)})
        try:
            assert await child.line() == "ready"
            yield child
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    @property
    def answered(self) -> list[dict[str, Any]]:
        """What it said that it got, as far as it was heard."""
        return [json.loads(line) for line in self._said if line.startswith("{")]

    async def line(self) -> str:
        """The next line; empty at the end."""
        assert self.process.stdout is not None
        self._said.append((await self.process.stdout.readline()).decode().strip())
        return self._said[-1]

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")

    async def answers(self) -> list[dict[str, Any]]:
        """All that it gets until its end, which must be right."""
        while await self.line():
            pass
        assert await self.process.wait() == 0
        assert {each["asked"] for each in self.answered} == self._asked
        for each in self.answered:
            assert json.loads(each["text"])["who"] == each["asked"]
            assert not each["missed"]
        return self.answered


def meetings(uses: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Requests that had the same slot at the same time."""
    return [
        (one["asked"], two["asked"])
        for one, two in combinations(uses, 2)
        if one["slot"] == two["slot"]
        and one["since"] <= two["until"]
        and two["since"] <= one["until"]
    ]


async def test_two_processes_on_one_server_never_meet_in_a_slot(real_server: RealServer) -> None:
    async with (
        watched(real_server) as deferred,
        Child.started(real_server, "a", workers=3, each=4, numbers=60) as one,
        Child.started(real_server, "b", workers=3, each=4, numbers=60) as two,
    ):
        one.go()
        two.go()
        ours, theirs = await asyncio.gather(one.answers(), two.answers())
    assert max(deferred) == 0
    assert not meetings(ours + theirs)
    began = [min(use["since"] for use in uses) for uses in (ours, theirs)]
    ended = [max(use["until"] for use in uses) for uses in (ours, theirs)]
    assert max(began) < min(ended), "they came after one another, which proves nothing"


async def test_the_slots_of_a_killed_process_are_free_again(real_server: RealServer) -> None:
    async with (
        watched(real_server) as deferred,
        Child.started(real_server, "a", workers=4, each=4, numbers=1500) as one,
        Child.started(real_server, "b", workers=5, each=1, numbers=20) as two,
    ):
        one.go()
        while (line := await one.line()) != "everywhere":
            assert line, "it ended before it had every slot"
        async with asyncio.TaskGroup() as group:
            two.go()
            group.create_task(two.answers())
            await asyncio.sleep(0.3)
            assert one.process.returncode is None, "it was done too early to prove anything"
            one.process.kill()
        while await one.line():
            pass
    assert max(deferred) == 0


async def test_two_runs_with_more_candidates_than_slots_share_one_server(
    real_server: RealServer, tmp_path: Path
) -> None:
    workflow = ("-m", "agent.team.workflow")
    options = ("--json", "--candidates", "6")
    async with watched(real_server) as deferred:
        runs = await asyncio.gather(
            *(
                run_turbo(*options, cwd=tmp_path, program=workflow, **to_attach(real_server))
                for _ in range(2)
            )
        )
    assert max(deferred) == 0
    for run in runs:
        assert run.exit_code == 0, run.err
        assert run.last["status"] == "accepted"
        assert run.last["candidates"]["started"] == 6
        assert not run.named("cache_miss")


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
    async with stranger_of(real_server) as stranger, occupied(stranger, 0):
        async with get_backend(real_server.settings) as opened:
            replies = await asyncio.gather(
                *(opened.backend.complete(ask(str(x), x, tokens=4)) for x in range(3))
            )
        assert 0 in await busy_slots(stranger), "it was done too early to prove anything"
    assert {reply.slot for reply in replies} == {1, 2, 3}


async def test_while_somebody_else_keeps_all_slots_busy_nothing_is_sent(
    real_server: RealServer,
) -> None:
    async with (
        watched(real_server) as deferred,
        stranger_of(real_server) as stranger,
        get_backend(real_server.settings) as opened,
        AsyncExitStack() as others,
    ):
        third = await others.enter_async_context(AsyncExitStack())
        for slot in range(4):
            await (third if slot == 2 else others).enter_async_context(occupied(stranger, slot))
        task = asyncio.create_task(opened.backend.complete(ask("x", 1, tokens=4)))
        await asyncio.sleep(0.2)
        assert await busy_slots(stranger) == {0, 1, 2, 3}
        assert not task.done()
        await third.aclose()
        reply = await task
        assert {0, 1, 3} <= await busy_slots(stranger), "they were done too early"
    assert reply.slot == 2
    assert max(deferred) == 0
