"""What a run has cost: also requests that were cancelled, refused or asked again are counted."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from fakes.llama_server import GARBLED, FakeLlamaServer, answer, error, fail_midway, stall
from team.open_team import Events, open_team

from agent.core.backend_manager import Progress, Request, Usage
from agent.core.errors import BadAnswer
from agent.core.prompts import Prompt
from agent.core.sampling import CODING
from agent.team.context import Meter
from agent.team.state import ReviewAnswer

ASK = Request(
    prompt=Prompt(system="S", shared="shared", role="role", volatile="v"),
    sampling=CODING,
    max_tokens=50,
)


def prompt_of(server: FakeLlamaServer) -> int:
    return len(server.completions[0]["prompt"])


async def test_a_cancelled_request_counts_what_it_has_cost_so_far(repository: Path) -> None:
    events: Events = []
    async with (
        FakeLlamaServer(stall("a", "b", "c")) as server,
        open_team(server, repository, events=events) as team,
    ):
        asking = asyncio.ensure_future(team.ask(ASK, role="coder"))
        while not any(data.get("done") == 3 for _, data in events):
            await asyncio.sleep(0.01)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        assert team.totals.usage == Usage(
            prompt=prompt_of(server), computed=prompt_of(server), predicted=3
        )
        assert team.totals.busy_s > 0


async def test_a_rejected_answer_is_counted(repository: Path) -> None:
    async with (
        FakeLlamaServer(answer("no", " json", cached=4)) as server,
        open_team(server, repository) as team,
    ):
        with pytest.raises(BadAnswer):
            await team.ask_json(ASK, ReviewAnswer, role="reviewer")
        usage = team.totals.usage
        assert (usage.prompt, usage.cached, usage.predicted) == (prompt_of(server), 4, 2)
        assert usage.computed + usage.cached == usage.prompt


async def test_a_try_that_was_given_up_is_counted_besides_the_next(repository: Path) -> None:
    garbled = fail_midway(error(500, GARBLED), "a", "b")
    async with (
        FakeLlamaServer(garbled, answer("c")) as server,
        open_team(server, repository) as team,
    ):
        await team.ask(ASK, role="coder")
        assert team.totals.usage.prompt == 2 * prompt_of(server)
        assert team.totals.usage.predicted == 3


def test_progress_tells_read_cached_and_written_tokens() -> None:
    meter = Meter()
    meter.see(Progress(phase="queued", prompt=100))
    assert meter.usage == Usage()
    meter.see(Progress(phase="prefill", prompt=100, done=90, cached=80))
    assert meter.usage == Usage(prompt=90, computed=10, cached=80)
    meter.see(Progress(phase="decode", prompt=100, done=7, cached=80))
    assert meter.usage == Usage(prompt=100, computed=20, cached=80, predicted=7)
    meter.end(Usage(prompt=100, computed=20, cached=80, predicted=9))
    assert meter.usage.predicted == 9
