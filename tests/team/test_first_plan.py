"""The first plan is asked for before the graph is imported, and ends like any other."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from fakes.http_server import Hangup
from fakes.llama_server import KEY
from fakes.team_server import ACCEPT, FakeTeamServer, Speak, code, plan
from team.conftest import Outcome, git, run_turbo, until

RIGHT = code("def double(number):\n    return number * 2\n")
PLAN = plan("kit/double.py", "Add def double(number): return twice the number")

HOLD_LANGGRAPH = """
import sys, time
from pathlib import Path

class Hold:
    def find_spec(self, name, path=None, target=None):
        if name == "langgraph":
            for _ in range(1000):
                if Path({flag!r}).exists():
                    return None
                time.sleep(0.02)
            raise ImportError("nobody has asked for a plan")

sys.meta_path.insert(0, Hold())
"""
"""Found by Python when it starts: langgraph cannot be imported before the file is there."""


class Held:
    """A `turbo run` that gets langgraph only once its planner was asked."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self._repository = repository
        self._folder = folder / "hold"
        self._folder.mkdir()
        self.asked = self._folder / "asked"
        text = HOLD_LANGGRAPH.format(flag=str(self.asked))
        (self._folder / "sitecustomize.py").write_text(text)

    def planner(self, said: Speak) -> Speak:
        def speak(prompt: str, earlier: int) -> str:
            self.asked.touch()
            return said(prompt, earlier)

        return speak

    async def run(self, server: FakeTeamServer, *, interrupted: bool = False) -> Outcome:
        async def interrupt(process: asyncio.subprocess.Process) -> None:
            await until(self.asked.exists)
            process.send_signal(signal.SIGINT)

        return await run_turbo(
            *("run", "--json", "--candidates", "1", "tasks/add-double.md"),
            cwd=self._repository,
            after=interrupt if interrupted else None,
            PYTHONPATH=str(self._folder),
            LLAMACPP_URL=server.url,
            LLAMACPP_API_KEY=KEY,
        )


@pytest.fixture
def held(tmp_path: Path, repository: Path) -> Held:
    return Held(tmp_path, repository)


async def test_it_is_asked_for_once_while_the_graph_is_imported(held: Held) -> None:
    planner = held.planner(lambda prompt, earlier: PLAN)
    async with FakeTeamServer(planner=planner, coder=RIGHT, reviewer=ACCEPT) as server:
        ended = await held.run(server)
        roles = [role for role, _ in server.prompts]
    assert ended.exit_code == 0, ended.err
    assert roles == ["planner", "coder", "reviewer"]
    ours = ("run_started", "server_ready", "plan_ready", "candidate_started", "run_finished")
    assert [x["event"] for x in ended.events if x["event"] in ours] == list(ours)


async def test_a_bad_one_is_asked_again_and_then_ends_the_run(held: Held) -> None:
    planner = held.planner(lambda prompt, earlier: "no plan")
    async with FakeTeamServer(planner=planner) as server:
        ended = await held.run(server)
        assert len(server.prompts) == 2
    assert ended.exit_code == 1, ended.err
    assert ended.last["status"] == "failed"
    assert "No usable plan" in ended.last["reason"]
    assert len(ended.named("plan_refused")) == 1


async def test_a_server_that_fails_at_it_ends_the_run(held: Held) -> None:
    def hang_up(prompt: str, earlier: int) -> str:
        raise Hangup

    async with FakeTeamServer(planner=held.planner(hang_up)) as server:
        ended = await held.run(server)
    assert ended.exit_code == 3, ended.err
    assert ended.last["status"] == "failed"
    assert "Traceback" not in ended.err


async def test_it_is_cancelled_by_an_interruption(held: Held, repository: Path) -> None:
    planner = held.planner(lambda prompt, earlier: PLAN)
    async with FakeTeamServer(delay_s=600, planner=planner) as server:
        ended = await held.run(server, interrupted=True)
    assert ended.exit_code == 130, ended.err
    assert ended.last["status"] == "interrupted"
    assert "exception" not in ended.err
    assert git(repository, "worktree", "list").count("\n") == 0
