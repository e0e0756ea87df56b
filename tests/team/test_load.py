"""Busy slots as the server counts them."""

from __future__ import annotations

import asyncio

import pytest
from servers import RealServer

from agent.core.backend_manager import Decodes, Request, get_backend
from agent.core.journal import Journal
from agent.core.llamacpp_wire import parse_metrics
from agent.core.prompts import Prompt
from agent.core.sampling import CODING
from agent.team.load import watch_load


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "# HELP llamacpp:n_decode_total Calls\nllamacpp:n_decode_total 8\n"
            "llamacpp:n_busy_slots_per_decode 2.5\n",
            Decodes(batches=8, busy=20.0),
        ),
        ("llamacpp:n_decode_total 8\n", None),
        ("<html>", None),
        ("llamacpp:n_decode_total x\nllamacpp:n_busy_slots_per_decode 1\n", None),
    ],
)
def test_what_a_server_counts_is_read_or_left_alone(text: str, found: Decodes | None) -> None:
    assert parse_metrics(text) == found


async def test_answers_at_the_same_time_keep_several_slots_busy(real_server: RealServer) -> None:
    shown: list[float] = []
    journal = Journal((lambda _, data: shown.append(data["busy_slots"]),))
    prompt = Prompt("You write code.", "", "", 'Count: {"a": 1, "b": 2,')
    async with get_backend(real_server.settings) as opened:
        numbers = {"type": "array", "items": {"type": "integer"}, "minItems": 300, "maxItems": 300}
        one = Request(prompt=prompt, sampling=CODING, max_tokens=1500, json_schema=numbers)
        async with watch_load(opened.backend, journal) as load:
            await opened.backend.complete(one)
            await load.look()
            alone = load.busy_slots
        async with watch_load(opened.backend, journal) as load:
            await asyncio.gather(*(opened.backend.complete(one) for _ in range(4)))
            await load.look()
    assert alone == pytest.approx(1.0, abs=0.05)
    assert load.busy_slots > 1.2
    assert shown[-1] == load.busy_slots
