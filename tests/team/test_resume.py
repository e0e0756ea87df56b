"""A run that is killed goes on: nothing is paid for twice, and nothing of the user's is touched."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from fakes.llama_server import KEY
from fakes.team_server import ACCEPT, FakeTeamServer, code, plan
from team.conftest import Outcome, git, run_turbo
from user_state import UserState

from agent.core.held_file import hold
from agent.core.journal import Journal
from agent.team.session import _settings_of

RIGHT = code("def double(number):\n    return number * 2\n")
WRONG = code("def double(number):\n    return number * 3\n")
PLAN = plan("kit/double.py", "Add def double(number): return twice the number")
IDENTITY = ("-c", "user.name=user", "-c", "user.email=user@localhost")
TASK = "tasks/add-double.md"
TEST = ("--test", "python -c 'from kit.double import double; assert double(2) == 4'")
Event = dict[str, Any]


@dataclass
class Place:
    """A repository as a user has it in the middle of work, and a cache of its own."""

    repository: Path
    cache: Path
    path: str = os.environ["PATH"]

    def environment(self, server: FakeTeamServer) -> dict[str, str]:
        return {
            "LLAMACPP_URL": server.url,
            "LLAMACPP_API_KEY": KEY,
            "XDG_CACHE_HOME": str(self.cache),
            "PATH": self.path,
        }

    @property
    def state(self) -> Path:
        return self.repository / ".git" / ".turbo"

    def folder(self) -> Path:
        (folder,) = (self.state / "runs").iterdir()
        return folder

    def journal(self) -> list[Event]:
        lines = (self.folder() / "journal.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def answers(self) -> int:
        """Answers of the model that are kept."""
        path = self.folder() / "answers.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return sum('"text"' in line for line in lines if line.endswith("}"))

    def branches(self) -> list[str]:
        return git(self.repository, "branch", "--format=%(refname:short)", "--list").splitlines()

    async def turbo(self, server: FakeTeamServer, *arguments: str) -> Outcome:
        return await run_turbo(*arguments, cwd=self.repository, **self.environment(server))

    async def run_killed(
        self,
        server: FakeTeamServer,
        at: Callable[[Event], bool] = lambda event: False,
        *,
        candidates: int = 1,
        how: signal.Signals = signal.SIGKILL,
    ) -> list[Event]:
        """`turbo run`, killed at the first event that `at` names, or by somebody else."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agent", "run", "--json", TASK),
            *("--candidates", str(candidates), *TEST),
            cwd=self.repository,
            env={**os.environ, **self.environment(server)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        self.process = process
        assert process.stdout is not None
        seen: list[Event] = []
        sent = False
        async for line in process.stdout:
            seen.append(json.loads(line))
            if not sent and at(seen[-1]):
                process.send_signal(how)
                sent = True
        await process.wait()
        return seen

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)

    def left_over(self) -> list[str]:
        """What should be gone once a run is over."""
        worktrees = git(self.repository, "worktree", "list").splitlines()[1:]
        folders = [*(self.cache / "turbo-local-coder" / "worktrees").iterdir()]
        known = self.repository / ".git" / "worktrees"
        known_ones = [*known.iterdir()] if known.exists() else []
        locks = [*(self.repository / ".git").rglob("*.lock")]
        return [*worktrees, *map(str, [*folders, *known_ones, *locks]), *self.processes()]

    def processes(self) -> list[str]:
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("XDG_CACHE_HOME") == str(self.cache)
                if ours or str(self.cache) in process.cwd():
                    found.append(str(process))
            except psutil.Error:
                continue
        return found


@pytest.fixture
def place(repository: Path, tmp_path: Path) -> Place:
    (repository / "kit" / "other.py").write_text("stashed = 1\n")
    git(repository, *IDENTITY, "stash")
    (repository / "kit" / "other.py").write_text("staged = 1\n")
    git(repository, "add", "kit/other.py")
    (repository / "kit" / "other.py").write_text("dirty = 1\n")
    (repository / "notes.txt").write_text("untracked\n")
    return Place(repository, tmp_path / "cache")


def at(name: str, **facts: Any) -> Callable[[Event], bool]:
    def happened(event: Event) -> bool:
        return event["event"] == name and facts.items() <= event.items()

    return happened


def scripted(place: Place, *, kill_in: str = "") -> FakeTeamServer:
    """A team whose first candidate is red; the run is killed when `kill_in` is first asked."""

    def speaks(role: str, text: str) -> Callable[[str, int], str]:
        def speak(prompt: str, earlier: int) -> str:
            if role == kill_in and earlier == 0:
                place.kill()
            return text

        return speak

    said = {"planner": PLAN, "coder": WRONG, "repair": RIGHT, "reviewer": ACCEPT}
    return FakeTeamServer(**{role: speaks(role, text) for role, text in said.items()})


CALLS = 4
"""One planner, one coder, one repair, one review."""


async def resumed(
    place: Place, server: FakeTeamServer, *arguments: str, calls: int = CALLS
) -> Outcome:
    """Go on, and hold what must be true after it."""
    (run,) = (x.name for x in (place.state / "runs").iterdir())
    kept, asked = place.answers(), len(server.prompts)
    ended = await place.turbo(server, "runs", "resume", "--json", *arguments)
    assert ended.exit_code == 0, ended.err
    assert (ended.last["event"], ended.last["status"]) == ("run_finished", "accepted")
    assert ended.last["resumed"] is True
    assert ended.last["resumable"] is False
    assert len(server.prompts) - asked <= calls - kept
    assert place.branches() == ["main", f"turbo/add-a-double-helper-{run}"]
    assert git(place.repository, "show", "-s", "--format=%P", ended.last["branch"]) == git(
        place.repository, "rev-parse", "main"
    )
    assert "number * 2" in git(place.repository, "show", f"{ended.last['branch']}:kit/double.py")
    assert place.left_over() == []
    left = sorted(x.name for x in place.folder().iterdir())
    assert left == ["journal.jsonl", "manifest.json"]
    assert place.journal()[-1]["status"] == "accepted"
    return ended


MOMENTS = [at("run_started"), at("candidate_verified", round=0), at("committed")]
"""Further ones are those in which a request or git runs."""


@pytest.mark.parametrize("moment", range(len(MOMENTS)))
async def test_a_run_killed_at_an_event_is_accepted_when_it_goes_on(
    place: Place, moment: int
) -> None:
    before = UserState.of(place.repository)
    async with scripted(place) as server:
        seen = await place.run_killed(server, MOMENTS[moment])
        assert MOMENTS[moment](seen[-1]) or len(seen) > 1
        if seen[-1]["event"] == "run_finished":  # it was faster than the signal
            return
        await resumed(place, server)
    assert before.changes() == []


@pytest.mark.parametrize("role", ["planner", "coder", "repair", "reviewer"])
async def test_only_what_was_not_answered_is_asked_again(place: Place, role: str) -> None:
    roles = ["planner", "coder", "repair", "reviewer"]
    before = UserState.of(place.repository)
    async with scripted(place, kill_in=role) as server:
        await place.run_killed(server)
        await resumed(place, server)
        asked = [name for name, _ in server.prompts]
    number = roles.index(role)
    assert asked == [*roles[: number + 1], *roles[number:]]
    assert before.changes() == []


@pytest.mark.parametrize("words", ["*commit-tree*Turbo-Run*", "*update-ref*refs/heads/turbo*"])
async def test_a_run_killed_while_it_publishes_has_one_branch(
    place: Place, tmp_path: Path, words: str
) -> None:
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    real = shutil.which("git")
    once = tmp_path / "once"
    program.write_text(
        f'#!/bin/sh\ncase "$*" in {words}) if mkdir {once} 2>/dev/null; then\n'
        f'{real} "$@"; kill -9 $PPID; exit; fi;; esac\nexec {real} "$@"\n'
    )
    program.chmod(0o755)
    place.path = f"{program.parent}{os.pathsep}{place.path}"
    before = UserState.of(place.repository)
    async with scripted(place) as server:
        seen = await place.run_killed(server)
        assert seen[-1]["event"] != "run_finished"
        await resumed(place, server)
        assert len(server.prompts) == CALLS
    assert before.changes() == []


async def test_several_candidates_do_not_pay_again_for_what_others_need(place: Place) -> None:
    """Killed after the accepting review: the other candidates of the round are not written."""
    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server:
        seen = await place.run_killed(server, at("review_ready"), candidates=3)
        if seen[-1]["event"] == "run_finished":  # it was faster than the signal
            return
        await resumed(place, server, calls=5)
        asked = [name for name, _ in server.prompts]
    assert asked.count("planner") == asked.count("reviewer") == 1
    assert asked.count("coder") <= 5  # two may have been in the middle of their answers


async def test_a_run_that_was_interrupted_goes_on_and_tells_how(place: Place) -> None:
    async with scripted(place) as server:
        seen = await place.run_killed(server, at("round_started"), how=signal.SIGINT)
        assert (seen[-1]["status"], seen[-1]["resumable"]) == ("interrupted", True)
        listed = await place.turbo(server, "runs", "list")
        assert "interrupted*" in listed.out
        assert "1 run, 1 unfinished; turbo runs resume" in listed.out
        await resumed(place, server, place.folder().name[:-2])
        assert [name for name, _ in server.prompts].count("coder") == 1


async def test_an_engine_that_failed_may_be_put_right(place: Place) -> None:
    async with scripted(place) as server:
        await place.run_killed(server, at("plan_ready"))
        environment = place.environment(server)
    gone = await run_turbo("runs", "resume", "--json", cwd=place.repository, **environment)
    assert gone.exit_code == 3
    assert (gone.last["status"], gone.last["resumable"]) == ("failed", True)


async def test_a_run_that_never_had_an_engine_is_just_run_again(place: Place) -> None:
    ended = await run_turbo("run", "--json", "--model", "/no/such.gguf", TASK, cwd=place.repository)
    assert (ended.exit_code, ended.last["status"]) == (3, "failed")
    assert ended.last["resumable"] is False
    assert "resume" not in ended.err
    listed = await run_turbo("runs", "list", cwd=place.repository)
    assert "1 run, 0 unfinished" in listed.out


def test_a_manifest_chooses_no_program_and_no_sandbox(repository: Path) -> None:
    """Whoever gave us the repository may have written what lies in its .git."""
    planted = {"sandbox": "off", "llamacpp_binary_path": "/tmp/evil", "turbo_candidates": 3}
    manifest = SimpleNamespace(settings=planted, run="r1")
    settings = _settings_of(manifest, repository, Journal(()))  # type: ignore[arg-type]
    assert (settings.sandbox, settings.llamacpp_binary_path) == ("auto", None)
    assert settings.turbo_candidates == 3


@pytest.mark.parametrize("harm", ["corrupt", "late", "locked", "pruned", "torn"])
async def test_what_is_kept_of_a_run_may_be_damaged(place: Place, harm: str) -> None:
    async with scripted(place, kill_in="reviewer") as server:
        await place.run_killed(server)
        database = place.folder() / "checkpoints.sqlite"
        lock = None
        if harm == "corrupt":
            database.write_bytes(b"no database at all" * 1000)
        elif harm == "late":  # the last one was not written yet, but what led to it was
            with sqlite3.connect(database) as writing:
                newest = "SELECT max(checkpoint_id) FROM checkpoints"
                writing.execute(f"DELETE FROM checkpoints WHERE checkpoint_id = ({newest})")
            writing.close()
        elif harm == "pruned":
            git(place.repository, "prune", "--expire=now")
        elif harm == "torn":
            database.unlink()
            for name in ("journal.jsonl", "answers.jsonl"):
                with (place.folder() / name).open("a") as file:
                    file.write('{"time": 1, "event": "ha')
        else:
            lock = sqlite3.connect(database)
            lock.execute("BEGIN IMMEDIATE")
        try:
            await resumed(place, server)
        finally:
            if lock is not None:
                lock.close()
        assert len(server.prompts) == CALLS + 1


async def test_a_run_that_is_alive_is_left_alone(place: Place) -> None:
    refused = []

    async def meddle() -> None:
        name = place.folder().name
        refused.extend(
            [
                await place.turbo(server, "runs", "resume", name),
                await place.turbo(server, "runs", "discard", name),
                await place.turbo(server, "runs", "clean", "--all"),
                await place.turbo(server, "runs", "list"),
                await place.turbo(server, "runs", "resume"),
            ]
        )
        server.delay_s = 0.0

    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT, delay_s=0.0) as server:
        server.delay_s = 60.0

        async def hold() -> None:
            while not server.prompts:
                await asyncio.sleep(0.02)
            await meddle()

        holding = asyncio.ensure_future(hold())
        running = asyncio.ensure_future(place.run_killed(server))
        await holding
        place.process.send_signal(signal.SIGINT)
        await running
    named, discarded, cleaned, listed, newest = refused
    assert (named.exit_code, discarded.exit_code) == (2, 2)
    assert "goes on in another process" in named.err
    assert "goes on in another process" in discarded.err
    assert f"kept: {place.folder().name}" in cleaned.out
    assert "running" in listed.out
    assert newest.exit_code == 0
    assert "nothing to resume" in newest.err


async def test_what_cannot_go_on_says_why_and_changes_nothing(place: Place) -> None:
    async with scripted(place) as server:
        none = await place.turbo(server, "runs", "resume")
        assert (none.exit_code, "nothing to resume" in none.err) == (0, True)
        await place.run_killed(server, at("plan_ready"))
        manifest = place.folder() / "manifest.json"
        text = manifest.read_text()
        before = UserState.of(place.repository)

        async def refused() -> str:
            asked = len(server.prompts)
            ended = await place.turbo(server, "runs", "resume", "--json", place.folder().name)
            assert ended.exit_code == 2, ended.err
            assert (ended.last["event"], ended.last["status"]) == ("run_finished", "failed")
            assert len(server.prompts) == asked
            assert place.branches() == ["main"]
            return ended.err

        manifest.write_text(text.replace('"turbo": "', '"turbo": "9'))
        assert "turbo runs discard" in await refused()
        manifest.write_text(text.replace('"run"', '"walk"'))
        assert "turbo runs discard" in await refused()
        base = json.loads(text)["base"]
        manifest.write_text(text.replace(base, "0" * 39 + "1"))
        assert "is not there" in await refused()
        manifest.unlink()
        assert "cannot be read" in await refused()
        manifest.write_text(text)
        await resumed(place, server)
        again = await place.turbo(server, "runs", "resume", "last")
        assert again.exit_code == 2
        assert "is over: accepted, its commit is on turbo/" in again.err
    assert before.changes() == []


async def test_runs_are_listed_shown_discarded_and_cleaned(place: Place) -> None:
    async with scripted(place) as server:
        done = await place.turbo(server, "run", "--json", "--candidates", "1", *TEST, TASK)
        (finished,) = (x.name for x in (place.state / "runs").iterdir())
        seen = await place.run_killed(server, at("plan_ready"))
        killed = next(x["run"] for x in seen if x["event"] == "run_started")
        listed = await place.turbo(server, "runs", "list", "--json")
        shown = await place.turbo(server, "runs", "show", finished)
        whole = await run_turbo("runs", "show", "--json", finished, cwd=place.repository)
        cleaned = await place.turbo(server, "runs", "clean", "--branches")
        rest = sorted(x.name for x in (place.state / "runs").iterdir())
        discarded = await place.turbo(server, "runs", "discard", killed)
    branch = done.last["branch"]
    told = {each["run"]: each for each in listed.events[0]}
    assert (told[finished]["status"], told[finished]["branch"]) == ("accepted", branch)
    assert (told[killed]["status"], told[killed]["resumable"]) == ("killed", True)
    for part in ("Plan: Do it", "Candidate 0: red", "Candidate 0: green", "accept", branch):
        assert part in shown.out
    assert whole.events[0]["tokens"]["prompt"] == done.last["tokens"]["prompt"]
    assert len(whole.events[0]["candidates"]) == 2
    assert "1 run removed" in cleaned.out
    assert f"kept: {killed}" in cleaned.out
    assert "1 branch turbo/* is there" in cleaned.out
    assert rest == [killed]
    assert (discarded.exit_code, killed in discarded.out) == (0, True)
    assert place.branches() == ["main", branch]  # it is not merged
    assert place.left_over() == []
    assert not list(place.state.rglob("*.sqlite*"))
    git(place.repository, "stash", "--quiet", "--include-untracked")
    git(place.repository, "merge", "--quiet", branch)
    await run_turbo("runs", "clean", "--branches", cwd=place.repository)
    assert place.branches() == ["main"]


async def test_a_run_killed_after_its_end_leaves_nothing_once_that_is_asked(place: Place) -> None:
    with ExitStack() as stack:

        def review(prompt: str, earlier: int) -> str:
            """From here on its worktrees cannot be removed."""
            stack.enter_context(hold(place.state / "worktrees.held"))
            return ACCEPT

        async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=review) as server:
            seen = await place.run_killed(server, at("run_finished"))
            assert seen[-1]["status"] == "accepted"
            assert place.left_over() != []
            stack.close()
            ended = await place.turbo(server, "runs", "resume")
            assert (ended.exit_code, "nothing to resume" in ended.err) == (0, True)
    assert place.left_over() == []
