"""Determinism tiers: what they make of the settings, and what strict does on a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent.core.backend_manager import Request, get_backend
from agent.core.config import Settings
from agent.core.determinism import with_tier
from agent.core.prompts import Prompt
from agent.core.sampling import CODING


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"turbo_determinism": "strict"}, (1, "off", 0, "off")),
        ({}, (4, "off", 2048, "off")),
        ({"turbo_determinism": "stable", "turbo_overlap": "on"}, (4, "off", 2048, "on")),
        ({"turbo_determinism": "fast"}, (4, "ngram", 2048, "on")),
        ({"turbo_determinism": "fast", "llamacpp_speculation": "off"}, (4, "off", 2048, "on")),
    ],
)
def test_a_tier_decides_what_may_vary(given: dict[str, Any], expected: tuple[Any, ...]) -> None:
    settings, told = with_tier(Settings(**given))
    assert (
        settings.llamacpp_parallel,
        settings.llamacpp_speculation,
        settings.prefix_bank_max_mb,
        settings.turbo_overlap,
    ) == expected
    assert told == []


def test_strict_is_stronger_than_what_the_user_set_and_says_so() -> None:
    settings, told = with_tier(Settings(turbo_determinism="strict", llamacpp_parallel=8))
    assert settings.llamacpp_parallel == 1
    assert told == ["TURBO_DETERMINISM=strict: LLAMACPP_PARALLEL is 1 instead of 8."]


@pytest.mark.usefixtures("own_cache")
async def test_strict_computes_every_prompt_anew_one_at_a_time() -> None:
    settings, _ = with_tier(Settings(turbo_determinism="strict"))
    prompt = Prompt("You write code.", "# Repository\n" * 20, "Go on.\n", "def f(")
    request = Request(prompt=prompt, sampling=CODING.with_seed(7), max_tokens=8)
    async with get_backend(settings) as opened:
        assert opened.backend.slots == 1
        replies = await asyncio.gather(*(opened.backend.complete(request) for _ in range(3)))
    assert {reply.slot for reply in replies} == {0}
    assert [reply.usage.cached for reply in replies] == [0, 0, 0]
    assert [reply.usage.expected_cached for reply in replies] == [0, 0, 0]
    assert len({reply.text for reply in replies}) == 1
    assert not any(reply.miss for reply in replies)
