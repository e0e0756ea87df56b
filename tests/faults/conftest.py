"""A repository in the middle of a user's work, runs in it, and what is true after any fault."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from servers import RealServer
from team.conftest import TASK as TASK_TEXT
from team.conftest import TESTS, Outcome, git, run_turbo, server_that_forks
from user_state import UserState

from agent.core.config import Settings
from agent.core.determinism import with_tier
from agent.core.journal import Journal
from agent.core.workspace import create_repository
from agent.team.result import Ledger, RunResult
from agent.team.task_file import read_task
from agent.team.workflow import RunOptions, run_tasks

TASK = "tasks/add-double.md"
TEST = "python -c 'from kit.double import double; assert double(2) == 4'"
Event = dict[str, Any]
__all__ = ["server_that_forks"]  # a fixture of these tests, too


@dataclass
class Here:
    """How a run in this process went."""

    result: RunResult
    events: list[Event]

    def named(self, name: str) -> list[Event]:
        return [each for each in self.events if each["event"] == name]


@dataclass
class Place:
    """A repository with staged, changed, stashed and untracked files, and a cache of its own."""

    repository: Path
    cache: Path
    before: UserState = field(init=False)

    def __post_init__(self) -> None:
        self.before = UserState.of(self.repository)

    @property
    def state(self) -> Path:
        return self.repository / ".git" / ".turbo"

    def folder(self) -> Path:
        """That of the only run."""
        (folder,) = (self.state / "runs").iterdir()
        return folder

    async def turbo(
        self, *words: str, after: Callable[[Any], Any] | None = None, **environment: str
    ) -> Outcome:
        """The real command in a process of its own. It may fail, but it explains itself."""
        environment = {"XDG_CACHE_HOME": str(self.cache), **environment}
        ended = await run_turbo(*words, cwd=self.repository, after=after, **environment)
        assert "Traceback" not in ended.err, ended.err
        return ended

    async def run(self, *words: str, after: Any = None, **environment: str) -> Outcome:
        """`turbo run` with one candidate and a test that is fast."""
        what = ("run", "--json", "--candidates", "1", "--test", TEST, *words, TASK)
        return await self.turbo(*what, after=after, **environment)

    async def here(
        self,
        settings: Settings,
        listener: Callable[[str, Mapping[str, Any]], None] = lambda event, data: None,
        *,
        resume: str = "",
    ) -> Here:
        """The same in this process, which is faster; `listener` also sees progress."""
        events: list[Event] = []

        def keep(event: str, data: Mapping[str, Any]) -> None:
            if event != "progress":
                events.append({"event": event, **data})
            listener(event, data)

        task = read_task(self.repository / TASK).model_copy(update={"test": TEST})
        one = settings.model_copy(update={"turbo_candidates": 1})
        ledger = Ledger()
        await run_tasks(
            [task],
            self.repository,
            with_tier(one)[0],
            Journal((keep,)),
            RunOptions(resume=resume),
            ledger,
        )
        return Here(ledger.results[-1], events)

    def servers(self) -> list[psutil.Process]:
        """The llama-servers of runs here."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "llama-server" in process.name():
                    found.append(process)
        return found

    def processes(self) -> list[psutil.Process]:
        """All that lives with this cache."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.environ().get("XDG_CACHE_HOME") == str(self.cache)
                if ours and process.pid != os.getpid() and process.status() != "zombie":
                    found.append(process)
        return found

    def left_over(self) -> list[str]:
        """What should be gone once a run is over, however it ended."""
        worktrees = git(self.repository, "worktree", "list").splitlines()[1:]
        cached = self.cache / "turbo-local-coder" / "worktrees"
        known = self.repository / ".git" / "worktrees"
        folders = [x for place in (cached, known) if place.exists() for x in place.iterdir()]
        locks = [*(self.repository / ".git").rglob("*.lock")]
        return [*worktrees, *map(str, [*folders, *locks, *self.processes()])]

    def branches(self) -> list[str]:
        """Those that we made."""
        listed = git(self.repository, "branch", "--format=%(refname:short)", "--list", "turbo/*")
        return listed.splitlines()

    def check(self, *, branches: int) -> None:
        """Nothing of the user's has changed, nothing is left behind."""
        assert self.before.changes() == []
        assert self.left_over() == []
        assert len(self.branches()) == branches

    def check_accepted(self) -> None:
        """The same, and there is one commit that passes."""
        self.check(branches=1)
        text = git(self.repository, "show", f"{self.branches()[0]}:kit/double.py")
        scope: dict[str, Any] = {}
        exec(text, scope)
        assert scope["double"](2) == 4


def attached(server: RealServer) -> dict[str, str]:
    """The environment of a run on that server."""
    return {"LLAMACPP_URL": server.url, "LLAMACPP_API_KEY": server.api_key}


@pytest.fixture(scope="session")
def faults_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all of these tests, so that only the first run finds things out."""
    return tmp_path_factory.mktemp("faults") / "cache"


def work_in_progress(folder: Path) -> Path:
    """A repository as a user leaves it in the middle of work."""
    for name, text in {
        "kit/__init__.py": "",
        "kit/other.py": "def one():\n    return 1\n",
        "tests/test_double.py": TESTS,
        TASK: TASK_TEXT,
        "README.md": "# kit\n",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    create_repository(folder, message="first")
    other = folder / "kit" / "other.py"
    other.write_text("stashed = 1\n")
    git(folder, "-c", "user.name=user", "-c", "user.email=user@localhost", "stash")
    other.write_text("staged = 1\n")
    git(folder, "add", "kit/other.py")
    other.write_text("dirty = 1\n")
    (folder / "notes.txt").write_text("untracked\n")
    return folder


@pytest.fixture
def place(tmp_path: Path, faults_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("XDG_CACHE_HOME", str(faults_cache))
    return Place(work_in_progress(tmp_path / "repo"), faults_cache)
