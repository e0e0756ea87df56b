"""Whatever becomes of a run, nothing of the user's is changed, and nothing of theirs is run."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from fakes.llama_server import KEY
from fakes.team_server import ACCEPT, FakeTeamServer, code, plan, revise
from hostile_repository import ASSETS, Hostile, make_hostile
from team.conftest import Outcome, git, run_turbo
from user_state import UserState

RIGHT = code("def double(number):\n    return number * 2\n")
WRONG = code("def double(number):\n    return number * 3\n")
PLAN = plan("kit/double.py", "Add def double(number): return twice the number")
IDENTITY = ("-c", "user.name=user", "-c", "user.email=user@localhost")


@pytest.fixture
def hostile(repository: Path, tmp_path: Path) -> Hostile:
    return make_hostile(repository, tmp_path / "hostile")


async def turbo(
    server: FakeTeamServer, hostile: Hostile, *arguments: str, interrupt: bool = False
) -> Outcome:
    async def end(process: asyncio.subprocess.Process) -> None:
        while not server.prompts:
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGINT)

    return await run_turbo(
        *("run", "--json", "--candidates", "2", "--test", "python -m pytest -q", *arguments),
        cwd=hostile.repository,
        after=end if interrupt else None,
        LLAMACPP_URL=server.url,
        LLAMACPP_API_KEY=KEY,
        TURBO_ROUNDS="1",
        TURBO_PLANS="1",
        **hostile.environment,
    )


def in_the_middle_of_work(repository: Path) -> None:
    """Stashed, staged, changed, untracked and ignored files; an index that git would refresh."""
    other = repository / "kit" / "other.py"
    for text, command in (("stashed = 1\n", "stash"), ("staged = 1\n", "add")):
        other.write_text(text)
        off = [f"filter.{name}.required=false" for name in ("evil", "strict")]
        off += [f"filter.{name}.process=" for name in ("evil", "strict")]
        options = [word for each in off for word in ("-c", each)]
        quiet = ("-c", "core.hooksPath=/dev/null", "-c", "submodule.recurse=false")
        git(repository, *IDENTITY, *quiet, *options, command, *(["-u"] * (command == "add")))
    other.write_text("changed = 1\n")
    (repository / "notes.txt").write_text("untracked\n")
    (repository / ".githooks" / "more").write_text("ignored\n")
    (repository / "README.md").touch()


ENDS = {
    "accepted": (RIGHT, ACCEPT, 0),
    "rejected": (RIGHT, revise("no"), 1),
    "failed": (WRONG, ACCEPT, 1),
    "interrupted": (RIGHT, ACCEPT, 130),
}


@pytest.mark.parametrize("status", ENDS)
async def test_nothing_is_changed_and_nothing_is_run(hostile: Hostile, status: str) -> None:
    answer, review, exit_code = ENDS[status]
    in_the_middle_of_work(hostile.repository)
    for mark in hostile.marks.iterdir():
        mark.unlink()
    before = UserState.of(hostile.repository)
    delay_s = 30.0 if status == "interrupted" else 0.0
    async with FakeTeamServer(planner=PLAN, coder=answer, reviewer=review, delay_s=delay_s) as fake:
        ended = await turbo(fake, hostile, "tasks/add-double.md", interrupt=bool(delay_s))
    assert (ended.last["status"], ended.exit_code) == (status, exit_code), ended.err
    assert hostile.ran() == []
    assert before.changes() == []
    assert not list((hostile.repository / ".git").rglob("*.lock"))
    assert not (hostile.repository / ".git" / "worktrees").exists()


async def test_a_server_that_is_gone_changes_nothing(hostile: Hostile) -> None:
    in_the_middle_of_work(hostile.repository)
    for mark in hostile.marks.iterdir():
        mark.unlink()
    before = UserState.of(hostile.repository)
    async with FakeTeamServer(planner=PLAN) as fake:
        pass
    ended = await turbo(fake, hostile, "tasks/add-double.md")
    assert (ended.last["status"], ended.exit_code) == ("failed", 3), ended.err
    assert hostile.ran() == []
    assert before.changes() == []


async def test_apply_changes_the_files_of_the_task_and_runs_nothing(hostile: Hostile) -> None:
    before = UserState.of(hostile.repository)
    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as fake:
        ended = await turbo(fake, hostile, "--apply", "tasks/add-double.md")
    assert (ended.last["status"], ended.exit_code) == ("accepted", 0), ended.err
    assert hostile.ran() == []
    touched = {line.split(": ")[1] for line in before.changes()}
    git_wrote = {"index", "ORIG_HEAD", "logs/HEAD", "logs/refs/heads/main", "refs/heads/main"}
    assert touched == {"kit/double.py", *(f".git/{name}" for name in git_wrote)}
    assert git(hostile.repository, "rev-parse", "main") == ended.last["commit"]
    assert (hostile.repository / "kit/double.py").read_text().endswith("return number * 2\n")


@pytest.mark.parametrize("named", [True, False])
async def test_a_file_behind_a_filter_is_not_for_the_team(hostile: Hostile, named: bool) -> None:
    task = hostile.repository / "more.md"
    files = f"files: [kit/double.py, {ASSETS[0]}]\n" if named else ""
    task.write_text(f"---\ntitle: More\n{files}---\nChange it.\n")
    before = UserState.of(hostile.repository)
    async with FakeTeamServer(planner=plan(ASSETS[0])) as fake:
        ended = await turbo(fake, hostile, "more.md")
        asked = [prompt for _, prompt in fake.prompts]
    reason = "'asset.dat' is kept by git through the filter evil, which is not run here"
    if named:
        assert ended.exit_code == 2
        assert f"more.md:3: files: {reason}" in ended.err
        assert asked == []
    else:
        assert (ended.exit_code, reason in ended.last["reason"]) == (1, True)
        assert reason in asked[1]
    assert hostile.ran() == []
    assert before.changes() == []
