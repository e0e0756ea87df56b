"""Several runs in one repository: nobody waits without end, fails, or loses what is theirs."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from team.conftest import git
from user_state import UserState

from agent.core.workspace import Workspace, create_repository

PROCESSES, ROUNDS = 8, 4

PROGRAM = """
import asyncio, sys
from pathlib import Path
from agent.core.workspace import Workspace

async def main(here, trees, name, rounds):
    for round in range(int(rounds)):
        w = await Workspace.open(Path(here), run=name, worktrees_root=Path(trees))
        for candidate in ("c0", "c1", "c0"):
            tree = await w.worktree(candidate)
            assert sorted(x.name for x in tree.iterdir()) == [".git", "a.txt"], list(tree.iterdir())
            (tree / f"{name}.txt").write_text(name)
            draft = await w.snapshot(tree, [f"{name}.txt"], "draft")
            assert f"+{name}" in await w.diff(draft)
        await w.publish(draft, branch=f"turbo/round-{round}", message=f"{name}\\n\\nRun: {name}")
        await w.close()
        print(round, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "a.txt").write_text("one\n")
    create_repository(folder, message="first")
    return folder


def start(repository: Path, worktrees: Path, name: str, rounds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(repository), str(worktrees), name, str(rounds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def left_over(repository: Path, worktrees: Path) -> list[str]:
    known = repository / ".git" / "worktrees"
    found = [*worktrees.iterdir(), *(known.iterdir() if known.exists() else ())]
    return [*map(str, found), *git(repository, "worktree", "list").splitlines()[1:]]


def test_eight_processes_take_the_same_names_and_all_come_to_their_end(
    repository: Path, tmp_path: Path
) -> None:
    worktrees = tmp_path / "worktrees"
    before = UserState.of(repository)
    started = [start(repository, worktrees, f"p{n}", ROUNDS) for n in range(PROCESSES)]
    ended = [(process.communicate(timeout=50), process.returncode) for process in started]
    for (out, err), code in ended:
        assert (code, err, out.count("\n")) == (0, "", ROUNDS)
    branches = git(repository, "branch", "--list", "turbo/*", "--format=%(refname:short)").split()
    assert len(branches) == PROCESSES * ROUNDS
    for number in range(ROUNDS):
        names = [b for b in branches if b.startswith(f"turbo/round-{number}")]
        told = [git(repository, "show", "-s", "--format=%s", name) for name in names]
        assert sorted(told) == sorted(f"p{n}" for n in range(PROCESSES))
        for name, who in zip(names, told, strict=True):
            made = git(repository, "diff", "--name-only", "main", name)
            assert made == f"{who}.txt"
    assert left_over(repository, worktrees) == []
    assert not list((repository / ".git").rglob("*.lock"))
    assert before.changes() == []


async def test_what_is_killed_with_all_its_children_leaves_nothing(
    repository: Path, tmp_path: Path
) -> None:
    """At random moments, while another run goes on and is not disturbed."""
    worktrees = tmp_path / "worktrees"
    before = UserState.of(repository)
    other = await Workspace.open(repository, run="other", worktrees_root=worktrees)
    kept = await other.worktree("c0")
    chance = random.Random(5)
    killed = [start(repository, worktrees, f"k{n}", 1000) for n in range(4)]
    for process in killed:
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        time.sleep(chance.uniform(0, 0.15))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        next_one = await Workspace.open(repository, run="next", worktrees_root=worktrees)
        await next_one.close()
        assert kept.is_dir()
    (kept / "made.txt").write_text("made\n")
    assert "+made" in await other.diff(await other.snapshot(kept, ["made.txt"], "draft"))
    await other.close()
    assert left_over(repository, worktrees) == []
    assert before.changes() == []
