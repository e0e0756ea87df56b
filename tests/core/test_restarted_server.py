"""A user's own server that goes away under us and comes back with nothing in its slots."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpx
import pytest
from cutting import cut

from agent.core.backend_manager import Request, get_backend
from agent.core.config import Settings, cache_dir, embedded_model
from agent.core.errors import BackendUnavailable
from agent.core.llamacpp_binary import find_binary
from agent.core.process_group import die_with_parent
from agent.core.prompts import Prompt
from agent.core.sampling import CODING


def ask(words: str, tokens: int) -> Request:
    """An answer of that many tokens, whatever the model would like to say."""
    prompt = Prompt("You write code.", "def add(a, b):\n", "Complete the code.\n", words)
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": tokens}
    return Request(prompt=prompt, sampling=CODING, max_tokens=tokens, json_schema=schema)


@asynccontextmanager
async def users_server(port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """A server that a user started on this port, ready; killed at the end of the block."""
    binary = find_binary(Settings(), cache=cache_dir() / "binaries")
    process = await asyncio.create_subprocess_exec(
        *(binary.path, "--model", embedded_model(), "--host", "127.0.0.1", "--port", str(port)),
        *("--parallel", "2", "--ctx-size", "4096", "--threads", "1"),
        env={**os.environ, **binary.environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent(),
    )
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            status = 0
            while status != httpx.codes.OK:
                assert process.returncode is None, "it died; is its port taken?"
                with suppress(httpx.TransportError):
                    status = (await client.get(f"http://127.0.0.1:{port}/health")).status_code
                await asyncio.sleep(0.01)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


async def test_a_server_that_was_started_anew_is_found_empty_once(port: int) -> None:
    one, two = (ask(f"{name} has two legs. " * 20, 12) for name in ("Ann", "Bob"))
    async with AsyncExitStack() as stack:
        async with users_server(port):
            settings = Settings(llamacpp_url=f"http://127.0.0.1:{port}")
            backend = (await stack.enter_async_context(get_backend(settings))).backend
            before = await asyncio.gather(*map(backend.complete, (one, two)))
            assert {reply.slot for reply in before} == {0, 1}
        async with users_server(port):
            after = [await backend.complete(request) for request in (one, two, two)]
    lost, other, again = after
    assert lost.miss is not None
    assert (lost.miss.expected, lost.miss.cached) == (lost.usage.prompt - 1, 0)
    assert other.miss is None, "it counted on the other slot, which it lost too"
    assert other.usage.cached >= other.usage.expected_cached
    assert again.miss is None
    assert again.usage.cached == again.usage.prompt - 1, "it counts on nothing any more"
    assert all(reply.text.startswith("[") for reply in (*before, *after))


async def test_what_runs_while_a_server_goes_away_fails_and_what_comes_then_waits(
    port: int,
) -> None:
    long, short = ask("long", 1500), ask("short", 8)
    async with AsyncExitStack() as stack:
        async with users_server(port) as first:
            settings = Settings(llamacpp_url=f"http://127.0.0.1:{port}")
            backend = (await stack.enter_async_context(get_backend(settings))).backend
            wanted = await backend.complete(short)
            running = await cut(backend, long, first.send_signal)
        with pytest.raises(BackendUnavailable):
            await running
        waiting = asyncio.create_task(backend.complete(short))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        async with users_server(port):
            assert (await waiting).text == wanted.text
            assert (await backend.complete(short)).miss is None
