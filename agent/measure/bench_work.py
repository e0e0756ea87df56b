"""The work of a benchmark: requests to a backend, and the clock beside them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from agent.core.backend_manager import Backend, Opened, Progress, Request
from agent.core.prompts import Prompt
from agent.core.sampling import CODING, Sampling
from agent.measure.bench_prompts import Prompts, marked, new_mark

_COLD = 64
"""A cold prompt may share this many tokens with what a slot holds: those of the chat template."""
_SHORT = 8
"""An answer of fewer tokens tells nothing about the speed of writing."""
HELLO = Prompt("Answer briefly.", "", "", "Say yes.")
"""What a server is asked first, so that it has computed something before it is measured."""

Open = Callable[[], AbstractAsyncContextManager[Opened]]
Memory = Callable[[], dict[str, float]]
"""What is resident, in MiB, by the keys of measures."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is asked."""

    prompts: Prompts
    answer: int
    """Most tokens of an answer."""
    at_once: int
    """Answers that are asked for together."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One request; moments are those of ``time.perf_counter``."""

    asked: float
    first: float
    """Of the first token."""
    ended: float
    computed: int
    """Prompt tokens."""
    cached: int
    predicted: int

    @property
    def first_token_s(self) -> float:
        """From asking to the first token."""
        return self.first - self.asked


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one repetition gave."""

    values: dict[str, float]
    """By the keys of measures; a measure that makes no sense here is missing."""
    notes: tuple[str, ...]


async def do_round(open_backend: Open, work: Work, memory: Memory) -> Round:
    """All requests, on a backend that is opened twice. Raises an EngineError."""
    mark = new_mark()
    phases = work.prompts.of(mark)
    plan, coder, repair = (phases[name][0] for name in ("plan", "candidates", "repairs"))
    values: dict[str, float] = {}
    notes: list[str] = []
    began = time.perf_counter()
    async with open_backend() as opened:
        backend = opened.backend
        hello = await ask(backend, HELLO, 1)
        values["ready"] = hello.ended - began

        cold = await ask(backend, plan, 1)
        values["first_token_cold"] = cold.first_token_s
        values["prefill"] = cold.computed / cold.first_token_s
        if cold.cached > _COLD:
            notes.append(f"{cold.cached} tokens of the cold prompt were cached all the same.")

        warm = await ask(backend, coder, work.answer)
        values["first_token_warm"] = warm.first_token_s
        values |= writing_rate("decode", [warm], notes)

        same = [repair] * work.at_once
        began = time.perf_counter()
        together = await ask_all(backend, same, work.answer, alike=True)
        values["candidates_cached"] = time.perf_counter() - began
        values |= writing_rate("decode_all", together, notes)

        new = [marked(repair, new_mark()) for _ in same]
        began = time.perf_counter()
        apart = await ask_all(backend, new, work.answer, alike=False)
        values["candidates_uncached"] = time.perf_counter() - began
        read = sum(answer.computed for answer in apart)
        values["prefill_all"] = read / (max(answer.first for answer in apart) - began)

        values |= await _workflow(backend, work)
        values |= memory()
    async with open_backend() as opened:
        await ask(opened.backend, HELLO, 1)
        values["first_token_restart"] = (await ask(opened.backend, coder, 1)).first_token_s
    return Round(values=values, notes=tuple(notes))


async def _workflow(backend: Backend, work: Work) -> dict[str, float]:
    """The requests of a workflow, in the order of the product."""
    read = 0
    began = time.perf_counter()
    for phase, prompts in work.prompts.of(new_mark()).items():
        if phase == "reviews":
            answers = [await ask(backend, prompt, work.answer) for prompt in prompts]
        else:
            answers = await ask_all(backend, prompts, work.answer, alike=True)
        read += sum(answer.computed for answer in answers)
    return {"workflow": time.perf_counter() - began, "workflow_read": read}


async def ask_all(
    backend: Backend, prompts: Sequence[Prompt], most: int, *, alike: bool
) -> list[Answer]:
    """Answers that are asked for together, each with a seed of its own. `alike`: the prompts are
    the same."""
    number = len(prompts) if alike else 1
    asked = [
        ask(backend, prompt, most, sampling=CODING.with_seed(seed), alike=number)
        for seed, prompt in enumerate(prompts, CODING.seed)
    ]
    return list(await asyncio.gather(*asked))


async def ask(
    backend: Backend, prompt: Prompt, most: int, *, sampling: Sampling = CODING, alike: int = 1
) -> Answer:
    """One answer of at most `most` tokens. Raises a BackendError."""
    first = 0.0

    def see(progress: Progress) -> None:
        nonlocal first
        if progress.phase == "decode" and not first:
            first = time.perf_counter()

    request = Request(prompt=prompt, sampling=sampling, max_tokens=most, alike=alike)
    asked = time.perf_counter()
    reply = await backend.complete(request, see)
    ended = time.perf_counter()
    return Answer(
        asked=asked,
        first=first or ended,
        ended=ended,
        computed=reply.usage.computed,
        cached=reply.usage.cached,
        predicted=reply.usage.predicted,
    )


def writing_rate(key: str, answers: Sequence[Answer], notes: list[str]) -> dict[str, float]:
    """Tokens per second at which `answers` were written, under `key`; nothing, and a note, when
    they are too short."""
    predicted = sum(answer.predicted for answer in answers)
    seconds = max(answer.ended for answer in answers) - min(answer.first for answer in answers)
    if predicted < _SHORT * len(answers) or seconds <= 0:
        notes.append(f"Answers of {predicted} tokens in all are too short to tell {key}.")
        return {}
    return {key: (predicted - 1) / seconds}
