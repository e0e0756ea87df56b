"""What every `Backend` promises, checked against each implementation with a model that thinks.

OllamaBackend speaks to a fake Ollama whose thinking is done by the same real llama-server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import groupby
from typing import Literal

import httpx
import pytest
from fakes.ollama_server import MODEL, FakeOllama, ThinkingChat
from pydantic import BaseModel, ConfigDict, Field
from servers import RealServer

from agent.core.backend_manager import Backend, Progress, Request, get_backend
from agent.core.config import Settings
from agent.core.errors import BadAnswer, ContextTooSmall
from agent.core.prompts import Prompt
from agent.core.sampling import CODING, Sampling

PROMPT = Prompt("You write code.", "def add(a, b):\n", "Complete the code.\n", "def f(x):\n")


def ask(volatile: str = "", *, tokens: int = 16, seed: int = 1, heat: float = 0.0) -> Request:
    prompt = Prompt(PROMPT.system, PROMPT.shared, PROMPT.role, PROMPT.volatile + volatile)
    return Request(prompt=prompt, sampling=CODING.with_seed(seed).warmer(heat), max_tokens=tokens)


@pytest.fixture(params=["llamacpp", "portable", "ollama"])
async def backend(
    request: pytest.FixtureRequest, real_server: RealServer, portable_server: RealServer | None
) -> AsyncIterator[Backend]:
    if request.param != "ollama":
        serving = real_server if request.param == "llamacpp" else portable_server
        if serving is None:
            pytest.skip("xllamacpp is not installed: pip install -e '.[portable]'")
        async with get_backend(serving.settings) as opened:
            yield opened.backend
        return
    async with (
        httpx.AsyncClient(
            base_url=real_server.url, headers=real_server.headers, timeout=30, trust_env=False
        ) as client,
        FakeOllama(always=ThinkingChat(client)) as server,
        get_backend(
            Settings(backend="ollama", ollama_local=server.url, ollama_model=MODEL)
        ) as opened,
    ):
        yield opened.backend


async def test_it_says_what_it_is(backend: Backend) -> None:
    assert backend.name in ("llamacpp", "ollama")
    assert backend.model
    assert 0 < backend.context <= Settings().llamacpp_context_size
    assert backend.slots >= 1


async def test_a_reply_adds_up(backend: Backend) -> None:
    reply = await backend.complete(ask(tokens=8))
    usage, timing = reply.usage, reply.timing
    assert reply.text
    assert reply.finish in ("stop", "length")
    assert reply.seed == 1
    assert 0 < usage.predicted <= 8
    assert usage.computed + usage.cached == usage.prompt
    assert usage.computed >= 1
    assert 0 < timing.first_token_s < 10
    assert timing.decode_s > 0


async def test_the_budget_holds(backend: Backend) -> None:
    reply = await backend.complete(ask(tokens=3, heat=1.5, seed=5))
    assert reply.usage.predicted <= 3
    if reply.usage.predicted == 3:
        assert reply.finish == "length"


async def test_the_same_request_gives_the_same_text(backend: Backend) -> None:
    first = await backend.complete(ask("again", tokens=24))
    second = await backend.complete(ask("again", tokens=24))
    assert first.text == second.text
    assert second.usage.cached > 0


async def test_other_seeds_give_other_texts(backend: Backend) -> None:
    # hot, without a nucleus: the small model is too sure of itself for less
    hot = [Sampling(temperature=2.0, top_k=20, top_p=1.0, seed=seed) for seed in range(9)]
    requests = [replace(ask(tokens=24), sampling=sampling) for sampling in hot]
    texts = {(await backend.complete(request)).text for request in requests}
    assert len(texts) > 1


async def test_progress_comes_in_order(backend: Backend) -> None:
    seen: list[Progress] = []
    reply = await backend.complete(ask(tokens=8), seen.append)
    assert [phase for phase, _ in groupby(x.phase for x in seen)] == ["queued", "prefill", "decode"]
    assert seen[-1].done == reply.usage.predicted


class Verdict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    verdict: Literal["accept", "revise"]
    score: int = Field(ge=0, le=9)
    words: list[Literal["clear", "short", "wrong"]] = Field(max_length=2)


async def test_json_is_valid_whatever_the_model_wants_to_say(backend: Backend) -> None:
    verdict, reply = await backend.complete_json(ask(tokens=250), Verdict)
    assert Verdict.model_validate_json(reply.text) == verdict


async def test_json_that_is_cut_is_a_bad_answer(backend: Backend) -> None:
    with pytest.raises(BadAnswer, match="cut off after 4 tokens"):
        await backend.complete_json(ask(tokens=4), Verdict)


async def test_what_does_not_fit_is_refused(backend: Backend) -> None:
    with pytest.raises(ContextTooSmall) as caught:
        await backend.complete(ask("word " * backend.context))
    assert caught.value.context == backend.context
    with pytest.raises(ContextTooSmall):
        await backend.complete(ask(tokens=backend.context))


async def test_more_requests_than_slots_are_all_answered(backend: Backend) -> None:
    count = 2 * backend.slots
    requests = (backend.complete(ask(str(x), tokens=8)) for x in range(count))
    replies = await asyncio.gather(*requests)
    assert len(replies) == count
    assert all(reply.usage.predicted > 0 for reply in replies)


async def test_cancelling_makes_room_for_the_next(backend: Backend) -> None:
    for when in ("at once", "while it decodes"):
        tasks = [
            asyncio.create_task(backend.complete(ask(str(x), tokens=1000, heat=1.5)))
            for x in range(backend.slots + 1)
        ]
        await asyncio.sleep(0 if when == "at once" else 0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(5):
            assert (await backend.complete(ask(tokens=2))).usage.predicted > 0


async def test_tokens_are_counted(backend: Backend) -> None:
    one, two = await backend.count_tokens("def f(x):\n"), await backend.count_tokens("x = 1\n" * 50)
    assert 0 < one < two
