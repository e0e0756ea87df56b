"""One side of overhead.py alone in a process, so that its memory can be looked at from outside.

    python benchmarks/overhead_side.py bare|ours

Reads JSON lines from standard input: first the server's URL and key, then one list per batch. Sends
the requests of a batch at the same time; prints a line when it is ready, and one when all answers
of a batch have come. An entry is the body of a request (bare) or the number of one (ours, see
`overhead.request`). The bare side imports httpx and nothing of ours.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

Send = Callable[[Any], Awaitable[Any]]


def bare_client(url: str, key: str | None) -> httpx.AsyncClient:
    """What somebody without our backend would use."""
    return httpx.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=60,
        limits=httpx.Limits(),
        trust_env=False,
    )


async def stream(client: httpx.AsyncClient, body: bytes) -> None:
    """One request to the end of its stream."""
    # llama-server closes the connection of a stream without announcing it.
    close = {"Connection": "close"}
    async with client.stream("POST", "/completion", content=body, headers=close) as response:
        async for _ in response.aiter_lines():
            pass


@asynccontextmanager
async def bare(url: str, key: str | None) -> AsyncIterator[Send]:
    async with bare_client(url, key) as client:
        yield lambda body: stream(client, body.encode())


@asynccontextmanager
async def ours(url: str, key: str | None) -> AsyncIterator[Send]:
    from agent.core.llamacpp_backend import LlamaCppBackend
    from benchmarks.overhead import request

    async with LlamaCppBackend(url, api_key=key, stall_timeout_s=60) as backend:
        yield lambda number: backend.complete(request(number))


async def serve(side: str) -> None:
    url, key = json.loads(sys.stdin.readline())
    async with {"bare": bare, "ours": ours}[side](url, key) as send:
        print(flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            await asyncio.gather(*(send(entry) for entry in json.loads(line)))
            print(flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
