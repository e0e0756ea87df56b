"""Sessions of several tasks, and runs that end at a bad moment: what is kept and what is said."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from fakes.http_server import Hangup
from fakes.llama_server import KEY
from fakes.team_server import ACCEPT, FakeTeamServer, code, plan
from team.conftest import TASK, Outcome, git, run_turbo, until

from agent.team.conclusion import to_its_end

RIGHT = code("def double(number):\n    return number * 2\n")
PLAN = plan("kit/double.py", "Add def double(number): return twice the number")
TITLES = ["First", "Second", "Third"]


@pytest.fixture
def tasks(repository: Path) -> list[str]:
    for title in TITLES:
        (repository / f"{title}.md").write_text(TASK.replace("Add a double helper", title))
    return [f"{title}.md" for title in TITLES]


async def turbo(server: FakeTeamServer, repository: Path, *arguments: str, **more: Any) -> Outcome:
    return await run_turbo(
        "run", "--candidates", "1", *arguments,
        cwd=repository, LLAMACPP_URL=server.url, LLAMACPP_API_KEY=KEY, **more,
    )  # fmt: skip


def branches(repository: Path) -> list[str]:
    found = git(repository, "branch", "--format=%(refname:short)", "--list", "turbo/*")
    return found.splitlines()


def journal_of(repository: Path, run: str) -> list[str]:
    path = repository / ".git" / ".turbo" / "runs" / run / "journal.jsonl"
    return [json.loads(line)["event"] for line in path.read_text().splitlines()]


def checkpointed(repository: Path) -> list[str]:
    """Runs that have a checkpoint."""
    found = (repository / ".git" / ".turbo" / "runs").glob("*/checkpoints.sqlite*")
    return [path.parent.name for path in found]


def path_with_git(folder: Path, case: str) -> str:
    """A PATH whose git does something of its own in one `case` of its arguments."""
    program = folder / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncase "$*" in {case} esac\nexec {shutil.which("git")} "$@"\n')
    program.chmod(0o755)
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


async def test_each_run_starts_before_its_server_is_ready_and_has_both_in_its_journal(
    repository: Path, tasks: list[str]
) -> None:
    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server:
        ended = await turbo(server, repository, "--json", *tasks[:2])
    assert ended.exit_code == 0, ended.err
    ours = ("run_started", "server_ready", "plan_ready", "run_finished")
    assert [x["event"] for x in ended.events if x["event"] in ours] == [*ours, *ours]
    for started in ended.named("run_started"):
        kept = journal_of(repository, started["run"])
        assert [event for event in kept if event in ours] == list(ours)
    assert ended.err.count("Ready after") == 1


async def test_after_an_interruption_finished_and_missing_tasks_are_told(
    repository: Path, tasks: list[str]
) -> None:
    second = asyncio.Event()

    def planner(prompt: str, earlier: int) -> str:
        if earlier:
            server.delay_s = 600.0
            second.set()
        return PLAN

    async def interrupt(process: asyncio.subprocess.Process) -> None:
        await second.wait()
        process.send_signal(signal.SIGINT)

    async with FakeTeamServer(planner=planner, coder=RIGHT, reviewer=ACCEPT) as server:
        ended = await turbo(server, repository, *tasks, after=interrupt)
    assert ended.exit_code == 130
    (branch,) = branches(repository)
    assert f"branch {branch}" in ended.out
    assert f"interrupted; made before: {branch};" in ended.err
    assert "not run: Third" in ended.out
    assert "not run: Second" not in ended.out
    (left,) = checkpointed(repository)
    assert journal_of(repository, left)[-1] == "run_finished"


async def test_an_engine_that_fails_leaves_the_results_before_it(
    repository: Path, tasks: list[str]
) -> None:
    def planner(prompt: str, earlier: int) -> str:
        if "Second" in prompt:
            raise Hangup
        return PLAN

    async with FakeTeamServer(planner=planner, coder=RIGHT, reviewer=ACCEPT) as server:
        ended = await turbo(server, repository, *tasks)
    assert ended.exit_code == 3, ended.err
    (branch,) = branches(repository)
    assert f"branch {branch}" in ended.out
    assert "not run: Third" in ended.out


async def test_the_last_event_tells_the_end_of_the_session(
    repository: Path, tasks: list[str]
) -> None:
    def planner(prompt: str, earlier: int) -> str:
        return "no plan" if "First" in prompt else PLAN

    async with FakeTeamServer(planner=planner, coder=RIGHT, reviewer=ACCEPT) as server:
        ended = await turbo(server, repository, "--json", *tasks[:2])
    assert ended.exit_code == 1
    statuses = [event["status"] for event in ended.named("run_finished")]
    assert statuses == ["failed", "accepted", "failed"]
    assert ended.last["reason"] == "1 of 2 tasks did not succeed"


async def test_a_commit_that_cannot_be_published_keeps_plan_diff_and_review(
    repository: Path, tmp_path: Path
) -> None:
    path = path_with_git(tmp_path, '*update-ref*refs/heads/*) echo "disk full" >&2; exit 1 ;;')
    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server:
        ended = await turbo(server, repository, "tasks/add-double.md", PATH=path)
    assert ended.exit_code == 1
    parts = ("\nPlan\n", "\nDiff\n", "+def double(number):", "\nReview\n", "failed: git update-ref")
    assert [part for part in parts if part not in ended.out] == []


async def test_an_interruption_does_not_leave_a_commit_half_published(
    repository: Path, tmp_path: Path
) -> None:
    begun, go_on = tmp_path / "publishing", tmp_path / "interrupted"
    hold = f"touch {begun}; while [ ! -e {go_on} ]; do sleep 0.05; done"
    path = path_with_git(tmp_path, f"*commit-tree*Turbo-Run*) {hold} ;;")

    async def interrupt(process: asyncio.subprocess.Process) -> None:
        await until(begun.exists)
        process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.2)
        go_on.touch()

    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server:
        ended = await turbo(
            server, repository, "--json", "tasks/add-double.md", after=interrupt, PATH=path
        )
    assert ended.exit_code == 130, ended.err
    (branch,) = branches(repository)
    assert (ended.last["status"], ended.last["branch"]) == ("interrupted", branch)
    assert ended.last["commit"] == git(repository, "rev-parse", branch)
    assert f"made before: {branch}" in ended.err


async def test_work_that_must_not_be_cut_is_ended_before_the_cancellation() -> None:
    done = []

    async def work() -> None:
        await asyncio.sleep(0.05)
        done.append("all")

    task = asyncio.ensure_future(to_its_end(work()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["all"]


async def test_old_runs_are_forgotten(repository: Path) -> None:
    runs = repository / ".git" / ".turbo" / "runs"
    for number in range(60):
        (runs / f"20200101-0000{number:02}-abcd").mkdir(parents=True)
    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server:
        ended = await turbo(server, repository, "--json", "tasks/add-double.md")
    assert ended.exit_code == 0, ended.err
    left = sorted(path.name for path in runs.iterdir())
    assert len(left) == 50
    assert left[-1] == ended.named("run_started")[0]["run"]
    assert left[0] == "20200101-000011-abcd"
    assert checkpointed(repository) == []


async def test_what_a_model_writes_does_not_reach_the_terminal_as_control_characters(
    repository: Path,
) -> None:
    bell = json.loads(PLAN) | {"summary": "\x1b]0;mine\x07 \x9b2J"}
    (repository / "kit" / "double.py").write_text('# "\x1b[2J"\n')  # no model may bring it in
    git(repository, "add", "--all")
    git(repository, "-c", "user.name=u", "-c", "user.email=u@x", "commit", "-qm", "wild")
    wild = code('# "\x1b[2J"\ndef double(number):\n    return number * 2\n')
    async with FakeTeamServer(planner=json.dumps(bell), coder=wild, reviewer=ACCEPT) as server:
        ended = await turbo(server, repository, "-v", "tasks/add-double.md")
    assert ended.exit_code == 0, ended.err
    shown = ended.out + ended.err
    assert "]0;mine" in shown
    assert "[2J" in shown
    assert not {"\x1b", "\x07", "\x9b"} & set(shown)
