"""Two runs at the same time in one repository: on one daemon, and of one and the same run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import Daemons, daemons
from fakes.llama_server import KEY
from fakes.team_server import ACCEPT, FakeTeamServer, code, plan
from team.conftest import TASK, git, run_turbo, until
from user_state import UserState

from agent.core.errors import UsageError
from agent.team.forgetting import clean
from agent.team.runs import MANIFEST, held_run

RIGHT = code("def double(number):\n    return number * 2\n")
PLAN = plan("kit/double.py", "Add def double(number): return twice the number")
WORKFLOW = ("-m", "agent.team.workflow")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemons]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with daemons(tmp_path / "cache", tmp_path) as found:
        yield found


async def test_runs_on_one_daemon_are_all_accepted(
    repository: Path, tmp_path: Path, own: Daemons
) -> None:
    """The same task twice and another one, on a real server with the embedded model."""
    other = repository / "tasks" / "add-triple.md"
    test = "python -c 'from kit.triple import triple; assert triple(2) == 6'"
    other.write_text(
        TASK.replace("double", "triple")
        .replace("number by 2", "number by 3")
        .replace("pytest -q -p no:cacheprovider", test)
    )
    before = UserState.of(repository)
    own.started()
    tasks = ["tasks/add-double.md", "tasks/add-double.md", "tasks/add-triple.md"]
    runs = await asyncio.gather(
        *(run_turbo("--json", task, cwd=repository, program=WORKFLOW) for task in tasks)
    )
    for run in runs:
        assert (run.exit_code, run.last["status"]) == (0, "accepted"), run.err
        assert "of the daemon" in run.named("server_ready")[0]["description"]
        assert git(repository, "rev-parse", run.last["branch"]) == run.last["commit"]
    assert len({run.last["branch"] for run in runs}) == 3
    for run, name in zip(runs, ("double", "double", "triple"), strict=True):
        assert f"def {name}(" in git(repository, "show", f"{run.last['commit']}:kit/{name}.py")
    assert before.changes() == []
    assert git(repository, "worktree", "list").count("\n") == 0
    assert not list((tmp_path / "cache" / "turbo-local-coder" / "worktrees").iterdir())
    assert not list((repository / ".git").rglob("*.lock"))


async def test_of_two_resumes_of_one_run_one_is_refused(repository: Path) -> None:
    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT, delay_s=60) as server:
        environment = {"LLAMACPP_URL": server.url, "LLAMACPP_API_KEY": KEY}

        async def kill(process: asyncio.subprocess.Process) -> None:
            await until(lambda: bool(server.prompts))
            process.kill()

        await run_turbo("run", "tasks/add-double.md", cwd=repository, after=kill, **environment)
        (run,) = (x.name for x in (repository / ".git/.turbo/runs").iterdir())
        resumes = [
            asyncio.ensure_future(
                run_turbo("runs", "resume", "--json", run, cwd=repository, **environment)
            )
            for _ in range(2)
        ]
        done, _ = await asyncio.wait(resumes, return_when=asyncio.FIRST_COMPLETED)
        (refused,) = (task.result() for task in done)
        assert refused.exit_code == 2
        assert f"Run {run} goes on in another process" in refused.err
        server.delay_s = 0.0
        (going_on,) = (task for task in resumes if task not in done)
        going_on.cancel()  # what it waits for comes in a minute only
        await asyncio.gather(going_on, return_exceptions=True)
        again = await run_turbo("runs", "resume", "--json", run, cwd=repository, **environment)
    assert again.last["status"] == "accepted", again.err
    assert git(repository, "branch", "--list", "turbo/*").count("\n") == 0  # there is one


BEGINS = """
import sys
from pathlib import Path
from agent.team.runs import JOURNAL, MANIFEST, held_run

for number in range(300):
    folder = Path(sys.argv[1]) / f"{sys.argv[2]}-{number}"
    with held_run(folder):
        (folder / MANIFEST).write_text("{}")
        journal = (folder / JOURNAL).open("a")
        assert Path(f"/proc/self/fd/{journal.fileno()}").resolve() == (folder / JOURNAL).resolve()
        journal.write("x")
        journal.close()
        assert {x.name for x in folder.iterdir()} == {JOURNAL, MANIFEST}
"""


async def test_a_run_that_begins_is_never_cleaned_away(repository: Path) -> None:
    """Also in the moment between its folder and its lock."""
    runs = repository / ".git" / ".turbo" / "runs"
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", BEGINS, str(runs), name], stderr=subprocess.PIPE, text=True
        )
        for name in ("a", "b")
    ]
    cleaned = 0
    while any(process.poll() is None for process in begun):
        done = await clean(repository, unfinished=True, merged_branches=False)
        cleaned += len(done.removed)
    for process in begun:
        _, err = process.communicate()
        assert (process.returncode, err) == (0, "")
    assert cleaned > 0
    await clean(repository, unfinished=True, merged_branches=False)
    assert [x.name for x in runs.parent.iterdir() if x.name != "worktrees.held"] == ["runs"]
    assert list(runs.iterdir()) == []


def test_who_holds_a_run_keeps_what_he_writes_when_the_last_one_removes_it(tmp_path: Path) -> None:
    """Discarded and resumed at the same moment."""
    from agent.team.runs import forget_run

    folder = tmp_path / ".turbo" / "runs" / "r1"
    held, removed = threading.Event(), threading.Event()

    def discard() -> None:
        with held_run(folder):
            (folder / MANIFEST).write_text("old")
            held.set()
            forget_run(folder)
            removed.wait(5)

    thread = threading.Thread(target=discard)
    thread.start()
    held.wait(5)
    while folder.exists():
        pass
    with held_run(folder):  # it is a new one, and nobody else's
        (folder / MANIFEST).write_text("new")
        removed.set()
        thread.join()
        assert (folder / MANIFEST).read_text() == "new"
        with pytest.raises(UsageError, match="another process"), held_run(folder):
            raise AssertionError
    assert [x.name for x in (tmp_path / ".turbo").iterdir()] == ["runs"]
