"""What our backend adds to a request over a bare httpx stream of the same /completion body.

    python benchmarks/overhead.py [--pairs 60] [--url URL --api-key KEY]

Both sides alternate in one run against one server with the embedded model, so that whatever else
the machine does hits both. The bare side posts the same body, with the ids already computed, and
reads the stream to its end without looking into it. Ours does everything: chat template and
tokenizer where the prompt is new, lease, events, book-keeping.

`repeated`: the prompt of a candidate, which the encoder knows. `new`: a prompt never seen, with a
known beginning. The bar holds for the median of both: 3 ms per request.

Memory is that of a process of its own per side (overhead_side.py), looked at from here: what is
resident, in MiB, when the side is ready for its first request, and after 960 new prompts in
batches of 16 at once; and what a request left behind on average since the fortieth batch. The
interpreter and httpx are part of both sides, pages of libraries that processes share are counted
in each. What the two differ by is what our imports and our book-keeping take: it is not the memory
of `turbo run`, which has the graph, git and the report as well.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from agent.core.backend_manager import Request
from agent.core.config import Settings
from agent.core.llamacpp_backend import LlamaCppBackend
from agent.core.prompts import Prompt
from agent.core.sampling import CODING
from benchmarks.overhead_side import bare_client, stream

BAR_MS = 3.0
TOKENS = 32
BATCHES, BATCH = 60, 16
"""Requests of each side whose memory is looked at."""
MEMORY_FIRST = 20_000
"""Number of their first prompt: none that the other measurements have sent."""
MIB = 1 << 20
WARM = 40
"""Batches after which the memory of both sides has settled; a leak would go on."""
SHARED = "".join(f"def function_{x}(value):\n    return value + {x}\n" for x in range(30))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table; milliseconds are per request."""

    prompts: str
    at_once: int
    pairs: int
    bare_ms: float
    ours_ms: float
    added_ms: float
    """Median of the differences within the pairs."""
    bare_cpu_ms: float
    """Processor time of this program, user and system."""
    ours_cpu_ms: float


@dataclass(frozen=True, kw_only=True)
class Memory:
    """One side; resident memory of its process."""

    side: str
    ready_mib: float
    settled_mib: float
    left_kib: float
    """What each request left behind, once everything had settled."""


class Bare:
    """httpx and nothing else; ids of prompts are computed outside the measured time."""

    def __init__(self, client: httpx.AsyncClient, slots: int) -> None:
        self._client = client
        self._slots = slots

    async def body(self, request: Request, number: int) -> bytes:
        """The body of the request that is number `number` of its batch."""
        template = await self._client.post(
            "/apply-template", json={"messages": request.prompt.messages}
        )
        text = {"content": template.json()["prompt"], "add_special": True, "parse_special": True}
        tokens = await self._client.post("/tokenize", json=text)
        body = {
            "prompt": tokens.json()["tokens"],
            # From the far end, so that one request at a time does not share a slot with ours.
            "id_slot": self._slots - 1 - number % self._slots,
            "n_predict": request.max_tokens,
            "cache_prompt": True,
            "stream": True,
            "return_progress": True,
            "seed": request.sampling.seed,
            "samplers": ["top_k", "top_p", "temperature"],
            "top_k": request.sampling.top_k,
            "top_p": request.sampling.top_p,
            "temperature": request.sampling.temperature,
        }
        return json.dumps(body).encode()

    async def complete(self, body: bytes) -> None:
        """Stream it to the end."""
        await stream(self._client, body)


def request(number: int) -> Request:
    prompt = Prompt("You write code.", SHARED, "Complete the code.\n", f"def f_{number:05}(x):")
    return Request(prompt=prompt, sampling=CODING, max_tokens=TOKENS)


async def measure(ours: LlamaCppBackend, bare: Bare, *, new: bool, at_once: int, pairs: int) -> Row:
    counter = iter(range(at_once * 1000, 10**9))
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    cpu: dict[str, float] = {"bare": 0.0, "ours": 0.0}

    async def batch(side: str, measured: bool) -> None:
        requests = [request(next(counter) if new else x) for x in range(at_once)]
        bodies = [await bare.body(x, i) for i, x in enumerate(requests)] if side == "bare" else []
        cpu_before, began = cpu_seconds(), time.perf_counter()
        if side == "bare":
            await asyncio.gather(*(bare.complete(body) for body in bodies))
        else:
            await asyncio.gather(*(ours.complete(x) for x in requests))
        if measured:
            times[side].append((time.perf_counter() - began) * 1000 / at_once)
            cpu[side] += (cpu_seconds() - cpu_before) * 1000 / at_once

    for pair in range(-3, pairs):
        for side in ("bare", "ours") if pair % 2 else ("ours", "bare"):
            await batch(side, pair >= 0)
    differences = [b - a for a, b in zip(times["bare"], times["ours"], strict=True)]
    return Row(
        prompts="new" if new else "repeated",
        at_once=at_once,
        pairs=pairs,
        bare_ms=statistics.median(times["bare"]),
        ours_ms=statistics.median(times["ours"]),
        added_ms=statistics.median(differences),
        bare_cpu_ms=cpu["bare"] / pairs,
        ours_cpu_ms=cpu["ours"] / pairs,
    )


async def measure_memory(side: str, url: str, key: str | None, bare: Bare) -> Memory:
    """What one side takes in a process of its own."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, Path(__file__).with_name("overhead_side.py"), side),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin
    assert child.stdout
    try:
        child.stdin.write(json.dumps([url, key]).encode() + b"\n")
        await said(child.stdout, side)
        resident = [psutil.Process(child.pid).memory_info().rss]
        for batch in range(BATCHES):
            numbers = range(MEMORY_FIRST + batch * BATCH, MEMORY_FIRST + (batch + 1) * BATCH)
            entries: list[Any] = list(numbers)
            if side == "bare":
                entries = [(await bare.body(request(x), i)).decode() for i, x in enumerate(numbers)]
            child.stdin.write(json.dumps(entries).encode() + b"\n")
            await child.stdin.drain()
            await said(child.stdout, side)
            resident.append(psutil.Process(child.pid).memory_info().rss)
    finally:
        child.stdin.close()
        await child.wait()
    return Memory(
        side=side,
        ready_mib=resident[0] / MIB,
        settled_mib=resident[-1] / MIB,
        left_kib=(resident[-1] - resident[WARM]) / 1024 / (BATCH * (BATCHES - WARM)),
    )


async def said(output: asyncio.StreamReader, side: str) -> None:
    if not await output.readline():
        raise RuntimeError(f"the process of the side {side!r} ended too early; see its error above")


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@asynccontextmanager
async def server(url: str | None, key: str | None) -> AsyncIterator[tuple[str, str | None]]:
    if url is not None:
        yield url, key
        return
    from agent.core.server_launching import open_server

    async with open_server(Settings()) as started:
        yield started.url, started.api_key


async def run(arguments: argparse.Namespace) -> tuple[list[Row], list[Memory]]:
    async with AsyncExitStack() as stack:
        url, key = await stack.enter_async_context(server(arguments.url, arguments.api_key))
        ours = await stack.enter_async_context(
            LlamaCppBackend(url, api_key=key, stall_timeout_s=60)
        )
        client = await stack.enter_async_context(bare_client(url, key))
        bare = Bare(client, ours.slots)
        rows = []
        for new in (False, True):
            for at_once in (1, 4, 16):
                pairs = max(8, arguments.pairs // at_once)
                rows.append(await measure(ours, bare, new=new, at_once=at_once, pairs=pairs))
        return rows, [await measure_memory(side, url, key, bare) for side in ("bare", "ours")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=60, help="pairs of requests per row")
    parser.add_argument("--url", help="a llama-server that runs already")
    parser.add_argument("--api-key", help="its key")
    arguments = parser.parse_args()
    rows, memory = asyncio.run(run(arguments))
    print(
        f"{'prompts':>9} {'at once':>8} {'pairs':>6} {'bare ms':>8} {'ours ms':>8} {'added ms':>9}"
        f" {'cpu bare':>9} {'cpu ours':>9}"
    )
    for row in rows:
        print(
            f"{row.prompts:>9} {row.at_once:>8} {row.pairs:>6} {row.bare_ms:>8.2f}"
            f" {row.ours_ms:>8.2f} {row.added_ms:>9.2f} {row.bare_cpu_ms:>9.2f}"
            f" {row.ours_cpu_ms:>9.2f}"
        )
    worst = max(row.added_ms for row in rows)
    print(f"worst median: {worst:.2f} ms added per request; the bar is {BAR_MS:g} ms")
    print(f"{'side':>9} {'ready MiB':>10} {'settled MiB':>12} {'left per request KiB':>21}")
    for x in memory:
        print(f"{x.side:>9} {x.ready_mib:>10.1f} {x.settled_mib:>12.1f} {x.left_kib:>21.2f}")
    added = memory[1].settled_mib - memory[0].settled_mib
    print(f"{added:.1f} MiB added")
    raw = {"rows": [asdict(row) for row in rows], "memory": [asdict(x) for x in memory]}
    print(json.dumps({"bar_ms": BAR_MS, **raw}))


if __name__ == "__main__":
    main()
