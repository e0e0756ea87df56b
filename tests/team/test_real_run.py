"""The main command on a real llama-server with the embedded model, as a newcomer runs it."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import tempfile
from pathlib import Path

import psutil
import pytest
from team.conftest import git, run_turbo, until

from agent.core.config import cache_dir, embedded_model

WORKFLOW = ("-m", "agent.team.workflow")


def leftovers() -> set[str]:
    """Private folders that nobody holds any more, worktrees, and servers of this test session.

    Others on the machine may run the same program; what they hold or started is theirs.
    """
    places = [Path(tempfile.gettempdir()), Path("/dev/shm")]
    folders = {path for place in places for path in place.glob("*turbo-*")}
    abandoned = {str(path) for path in folders if not is_held(path)}
    worktrees = {str(path) for path in (cache_dir() / "worktrees").glob("*")}
    servers = {str(pid) for pid in psutil.pids() if is_orphan_of_ours(pid)}
    return abandoned | worktrees | servers


def is_held(folder: Path) -> bool:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def is_orphan_of_ours(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        ours = process.environ().get("XDG_CACHE_HOME") == os.environ["XDG_CACHE_HOME"]
        return ours and process.ppid() == 1 and "llama-server" in process.name()
    except psutil.Error:
        return False


def fingerprint(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


async def test_the_demo_ends_with_an_accepted_commit_and_touches_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine\n")
    before, around = fingerprint(tmp_path), leftovers()
    ended = await run_turbo("--json", cwd=tmp_path, program=WORKFLOW)
    assert ended.exit_code == 0, ended.err + ended.out[-1000:]
    last = ended.last
    assert (last["event"], last["status"]) == ("run_finished", "accepted")
    assert last["tests"] == {"exit_code": 0}
    assert last["candidates"]["green"] >= 1
    assert last["commit"]
    tokens = last["tokens"]
    assert tokens["prompt"] == tokens["computed"] + tokens["cached"]
    assert tokens["cached"] > 0
    assert tokens["predicted"] > 0
    order = [event["event"] for event in ended.events]
    assert order[0] == "notice"
    wanted = ["run_started", "server_ready", "plan_ready", "candidate_started", "review_ready"]
    assert [x for x in dict.fromkeys(order) if x in wanted] == wanted
    assert fingerprint(tmp_path) == before
    assert leftovers() <= around


async def test_the_report_for_people_has_everything(tmp_path: Path) -> None:
    ended = await run_turbo(cwd=tmp_path, program=WORKFLOW)
    assert ended.exit_code == 0, ended.err
    places = [
        ended.out.index(part)
        for part in (
            "\nPlan\n", "\nDiff\n", "+def slugify(text):", "\nTests\n", "exit code 0",
            "\nReview\n", "accept", "\nOutcome\n", "accepted", "branch turbo/add-a-slugify-helper-",
            "commit ", "prompt = ", "predicted", "tokens/s", "worked at the same time",
            "fixed prompt tokens: planner", "wall: ",
        )
    ]  # fmt: skip
    assert places == sorted(places)


async def test_it_repeats_cleanly(tmp_path: Path) -> None:
    """Same seeds, same model: plan and diff are the same, run names are not."""
    runs = [await run_turbo("--json", cwd=tmp_path, program=WORKFLOW) for _ in range(2)]
    assert [run.exit_code for run in runs] == [0, 0]
    assert runs[0].named("plan_ready") == runs[1].named("plan_ready")
    assert runs[0].last["branch"] != runs[1].last["branch"]


async def test_a_run_says_what_it_was_made_of(repository: Path) -> None:
    runs = [
        await run_turbo("run", "--json", "tasks/add-double.md", cwd=repository) for _ in range(2)
    ]
    manifests = []
    for run in runs:
        name = run.named("run_started")[0]["run"]
        folder = repository / ".git" / ".turbo" / "runs" / name
        manifests.append(json.loads((folder / "manifest.json").read_text()))
    engine = manifests[0]["engine"]
    assert engine["model_sha256"] == hashlib.sha256(embedded_model().read_bytes()).hexdigest()
    assert "--parallel" in engine["argv"]
    assert engine["build"]
    assert manifests[0]["base"] == git(repository, "rev-parse", "HEAD")
    assert manifests[0]["settings"] == manifests[1]["settings"]
    plans = [
        next((event["prompt"], event["answer"], event["seed"]) for event in run.named("answered"))
        for run in runs
    ]
    assert plans[0] == plans[1]
    for run in runs:
        assert not run.named("cache_miss")
        tokens = run.last["tokens"]
        assert tokens["cached"] == tokens["expected_cached"]


@pytest.mark.parametrize("event", ["run_started", "server_ready", "candidate_started"])
async def test_a_server_that_dies_under_the_run_is_started_again(
    repository: Path, event: str
) -> None:
    def come_so_far() -> bool:
        journals = (repository / ".git").glob(".turbo/runs/*/journal.jsonl")
        return any(f'"{event}"' in journal.read_text() for journal in journals)

    async def kill_the_server(process: asyncio.subprocess.Process) -> None:
        await until(come_so_far)
        while True:
            await asyncio.sleep(0.01)
            for child in psutil.Process(process.pid).children():
                if "llama-server" in child.name():
                    child.kill()
                    return

    ended = await run_turbo("run", "--json", "tasks/add-double.md",
                            cwd=repository, after=kill_the_server)  # fmt: skip
    assert ended.exit_code == 0, ended.err
    assert ended.last["status"] == "accepted"
    reasons = [event["reason"] for event in ended.named("server_restarted")]
    told = reasons or [event["text"] for event in ended.named("notice")]
    assert any("SIGKILL" in text for text in told)
    assert git(repository, "worktree", "list").count("\n") == 0


@pytest.mark.parametrize("option", [(), ("--candidates", "6")])
async def test_an_own_task_in_an_own_repository(repository: Path, option: tuple[str, ...]) -> None:
    ended = await run_turbo("run", "--json", *option, "tasks/add-double.md", cwd=repository)
    assert ended.exit_code == 0, ended.err
    text = git(repository, "show", f"{ended.last['commit']}:kit/double.py")
    assert "def double(" in text
