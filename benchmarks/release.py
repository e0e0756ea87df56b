"""How long after an accepting review all slots are free: what a cancelled candidate costs.

    python benchmarks/release.py [--batches 2048/512,256/256] [--quiet 0] [--repeat 1] [--samples 5]
        [--shape qwen2.5-coder-0.5b | --model GGUF] [--threads 2] [--json FILE]

A review runs in one slot and three other requests in the three others, all through our backend.
When the reply to the review is there, the tasks of the other three are cancelled, as candidates.py
does it. Measured from that moment on: *closed*, until the tasks have ended and with them their
connections; *idle*, until our pool first saw in the server's /slots what it then saw again, no slot
at work; *free*, until our pool would hand out any slot at once. The bar is for the latter: 200 ms.

The others *write*; or they *read one*, a prompt of 2,500 new tokens that is the same for all three,
as candidates do at the start of a round; or they *read three*, each its own, as candidates may in
later steps of a plan. Prompts are sent when the review is two tokens before its end. Since the
review writes one token per batch then, a batch has always just begun when it ends.

Three things of llama-server (b10434) decide how long a reading slot stays at work:

- A cancelled request is taken off between two batches. A batch holds tokens of all prompts that are
  being read, up to --batch-size; --ubatch-size, what is computed at a time, does not matter.
- That a connection is closed is noticed when something is to be written to it, or when for one
  second there was nothing to be written to any. A prompt that waits for its turn in the batches
  writes nothing.
- An answer to /slots counts as something written. It comes within milliseconds, in the middle of a
  batch, too; so whoever asks more than once a second whether the slots are idle by now prevents
  that the server notices, and the prompts are read in turn, one batch of each.

`--batches` names pairs of both sizes to compare; 2048/512 is what the server takes by itself and
what our launch plan leaves as it is. What small batches cost is told beside it: the prompt tokens
that are read per second, one prompt alone, by the server's own clock. `--quiet` holds the looks of
our pool back for so many seconds after the cancellation, to show what they do.

By default the model has the shape of a real one and random weights (shape_model.py). Each pair of
sizes has a server of its own per repetition, in turn.

Longer than other files here, because cancelling, looking and the table are of use only together.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Literal

from agent.core.backend_manager import Progress, Request, get_backend
from agent.core.config import Settings
from agent.core.errors import TurboError
from agent.core.folders import cache_folder
from agent.core.llamacpp_backend import LlamaCppBackend
from agent.core.llamacpp_binary import find_binary
from agent.core.prompts import Prompt
from agent.core.sampling import CODING
from agent.core.slots import SlotPool
from benchmarks.schedules import STALL_S, model_of, positive, say, table

BAR_MS = 200.0
OTHERS = 3
READ = 2500
"""Tokens of a prompt, about."""
REVIEW, ANSWER = 12, 1000
"""Tokens of the review, and of the other answers if nobody ended them."""
Doing = Literal["write", "read one", "read three"]
DOINGS: tuple[Doing, ...] = ("write", "read one", "read three")


@dataclass(frozen=True)
class Batch:
    """Tokens that one call of llama_decode takes, and that are computed at a time."""

    batch: int
    ubatch: int

    def __str__(self) -> str:
        return f"{self.batch}/{self.ubatch}"


DEFAULT = Batch(2048, 512)
"""Of llama-server; our launch plan names neither."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """One cancellation; seconds since the reply to the review."""

    batch: Batch
    doing: Doing
    closed_s: float
    """Until the three tasks had ended, and so their connections."""
    idle_s: float
    free_s: float


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One prompt, alone."""

    batch: Batch
    rate: float
    """Tokens per second."""


class Looks:
    """The pool's looks at /slots, passed on and written down."""

    def __init__(self, pool: SlotPool) -> None:
        self._ask = pool._is_idle
        self._quiet_until = 0.0
        self._seen: dict[int, list[float]] = {}
        pool._is_idle = self._look

    def forget(self, quiet_s: float) -> None:
        """Begin anew; nobody looks for `quiet_s` seconds."""
        self._seen = {}
        self._quiet_until = time.perf_counter() + quiet_s

    def idle_at(self) -> float:
        """When the last slot was first seen idle."""
        return max(times[0] for times in self._seen.values())

    async def _look(self, slot: int) -> bool:
        await asyncio.sleep(self._quiet_until - time.perf_counter())
        idle = await self._ask(slot)
        times = self._seen.setdefault(slot, [])
        times.append(time.perf_counter())
        if not idle:
            times.clear()
        return idle


class Bench:
    """Our backend on one server."""

    def __init__(self, backend: LlamaCppBackend, batch: Batch, functions: int) -> None:
        """`functions` make a prompt of READ tokens."""
        self._backend = backend
        self._batch = batch
        self._functions = functions
        self._numbers = count()
        self._looks = Looks(backend._slots)

    async def read(self) -> Reading:
        """Let one prompt be read while nothing else runs."""
        reply = await self._backend.complete(self._request(next(self._numbers), 2, long=True))
        return Reading(batch=self._batch, rate=reply.usage.computed / reply.timing.prefill_s)

    async def release(self, doing: Doing, quiet_s: float) -> Release:
        """Cancel what runs as soon as the review is there."""
        phases = ["queued"] * OTHERS
        writing, nearly = asyncio.Event(), asyncio.Event()

        def see_review(progress: Progress) -> None:
            if progress.phase == "decode" and progress.done >= REVIEW - 2:
                nearly.set()

        def see(number: int, progress: Progress) -> None:
            phases[number] = progress.phase
            if set(phases) == {"decode"}:
                writing.set()

        asked = self._backend.complete(
            self._request(next(self._numbers), REVIEW, long=False), see_review
        )
        requests = self._others(doing)
        running = [self._backend.complete(x, partial(see, i)) for i, x in enumerate(requests)]
        if doing == "write":
            others = [asyncio.create_task(x) for x in running]
            await writing.wait()
            await asked
        else:
            review = asyncio.create_task(asked)
            await nearly.wait()
            others = [asyncio.create_task(x) for x in running]
            await review
        began = time.perf_counter()
        if any(x.done() for x in others) or writing.is_set() != (doing == "write"):
            raise RuntimeError(f"the others were no longer at it: {phases}")
        self._looks.forget(quiet_s)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        closed = time.perf_counter()
        while self._backend._slots.free < self._backend.slots:  # noqa: ASYNC110 - a look at ours
            await asyncio.sleep(0.001)
        free = time.perf_counter()
        return Release(
            batch=self._batch,
            doing=doing,
            closed_s=closed - began,
            idle_s=self._looks.idle_at() - began,
            free_s=free - began,
        )

    def _others(self, doing: Doing) -> list[Request]:
        if doing == "read one":
            request = self._request(next(self._numbers), ANSWER, long=True)
            return [replace(request, alike=OTHERS)] * OTHERS
        long = doing == "read three"
        return [self._request(next(self._numbers), ANSWER, long=long) for _ in range(OTHERS)]

    def _request(self, number: int, answer: int, *, long: bool) -> Request:
        text = f"Number {number}.\n" + code(self._functions if long else 1)
        prompt = Prompt("You write code.", "Go on.\n", "", text)
        return Request(prompt=prompt, sampling=CODING.with_seed(number), max_tokens=answer)


def code(functions: int) -> str:
    return "".join(f"def f_{x}(value):\n    return value + {x}\n" for x in range(functions))


@asynccontextmanager
async def opened(settings: Settings, batch: Batch, folder: Path) -> AsyncIterator[Bench]:
    """A server with these sizes. Raises an EngineError."""
    if batch != DEFAULT:
        script = with_sizes(batch, folder)
        settings = settings.model_copy(update={"llamacpp_binary_path": script})
    async with get_backend(settings) as ready:
        backend = ready.backend
        assert isinstance(backend, LlamaCppBackend)
        few, many = 50, 100
        each = (
            await backend.count_tokens(code(many)) - await backend.count_tokens(code(few))
        ) / few
        functions = round(READ / each)
        yield Bench(backend, batch, functions)


def with_sizes(batch: Batch, folder: Path) -> Path:
    """A program that is our llama-server, with these sizes; there is no setting for them."""
    binary = find_binary(Settings(), cache=cache_folder("binaries"))
    exports = [f"export {name}={shlex.quote(x)}" for name, x in binary.environment.items()]
    sizes = f"--batch-size {batch.batch} --ubatch-size {batch.ubatch}"
    start = f'exec {shlex.quote(str(binary.path))} "$@" {sizes}'
    script = folder / f"llama-server-{batch.batch}-{batch.ubatch}"
    script.write_text("\n".join(["#!/bin/sh", *exports, start, ""]), encoding="utf-8")
    script.chmod(0o700)
    return script


async def measure(
    arguments: argparse.Namespace, folder: Path
) -> tuple[list[Release], list[Reading]]:
    """Everything, each pair of sizes on a server of its own per repetition."""
    settings = Settings(
        llamacpp_model_path=model_of(arguments),
        llamacpp_threads=arguments.threads,
        llamacpp_parallel=OTHERS + 1,
        llamacpp_context_size=4096,
        request_timeout_s=STALL_S,
    )
    releases: list[Release] = []
    readings: list[Reading] = []
    for repetition in range(arguments.repeat):
        for batch in arguments.batches:
            async with opened(settings, batch, folder) as bench:
                await bench.release("write", 0)  # the first requests find everything cold
                readings.append(await bench.read())
                for _ in range(arguments.samples):
                    releases += [await bench.release(x, arguments.quiet) for x in DOINGS]
            last = releases[-len(DOINGS) * arguments.samples :]
            times = ", ".join(f"{x.doing} {x.free_s * 1000:.0f}" for x in last)
            say(f"{repetition + 1} of {arguments.repeat}, {batch}: free after ms: {times}")
    return releases, readings


def lines(releases: Sequence[Release], readings: Sequence[Reading]) -> list[str]:
    """In Markdown; milliseconds."""
    head = ["batch/ubatch", "the others", "samples", "closed", "idle", "free", "worst idle"]
    head += ["worst free", f"free <= {BAR_MS:g} ms", "prompt tokens/s"]
    rows = []
    for batch in dict.fromkeys(x.batch for x in releases):
        rate = statistics.median(x.rate for x in readings if x.batch == batch)
        for doing in DOINGS:
            mine = [x for x in releases if (x.batch, x.doing) == (batch, doing)]
            times = [[x.closed_s for x in mine], [x.idle_s for x in mine], [x.free_s for x in mine]]
            within = sum(x.free_s * 1000 <= BAR_MS for x in mine)
            rows.append(
                [
                    str(batch),
                    doing,
                    str(len(mine)),
                    *(f"{statistics.median(x) * 1000:.0f}" for x in times),
                    *(f"{max(x) * 1000:.0f}" for x in times[1:]),
                    f"{within}/{len(mine)}",
                    f"{rate:.0f}",
                ]
            )
    return table(head, rows)


def batches(text: str) -> list[Batch]:
    found = []
    for pair in text.replace(",", " ").split():
        batch, _, ubatch = pair.partition("/")
        found.append(Batch(positive(batch), positive(ubatch)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--shape", default="qwen2.5-coder-0.5b", help="see shape_model.py")
    model.add_argument("--model", type=Path, help="a GGUF file instead of a shape")
    parser.add_argument("--batches", type=batches, default=str(DEFAULT), help="BATCH/UBATCH,...")
    parser.add_argument("--quiet", type=float, default=0.0, help="seconds without a look")
    parser.add_argument("--threads", type=positive, default=2, help="of the server")
    parser.add_argument("--repeat", type=positive, default=1, help="servers per pair of sizes")
    parser.add_argument("--samples", type=positive, default=5, help="of both kinds, per server")
    parser.add_argument("--json", type=Path, help="where the raw figures go")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="turbo-release-") as name:
        os.environ["XDG_CACHE_HOME"] = name
        try:
            releases, readings = asyncio.run(measure(arguments, Path(name)))
        except TurboError as error:
            sys.exit(str(error))
    command = shlex.join(["python", "benchmarks/release.py", *sys.argv[1:]])
    about = [
        "milliseconds since the reply to the review; medians, then the worst",
        f"the others: {OTHERS} requests, cancelled then; prompts have {READ:,} tokens",
        f"`{command}`",
    ]
    print("\n".join([*lines(releases, readings), "", *(f"- {line}" for line in about)]))
    if arguments.json is not None:
        raw = {
            "command": command,
            "bar_ms": BAR_MS,
            "releases": [asdict(x) for x in releases],
            "readings": [asdict(x) for x in readings],
        }
        arguments.json.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
