"""The user's checkout is never touched, and nothing of ours is left behind."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from agent.core.errors import WorkspaceError
from agent.core.workspace import Workspace, create_repository, locate


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "a.txt").write_text("one\n")
    (folder / "b.txt").write_text("two\n")
    create_repository(folder, message="first")
    return folder


@pytest.fixture
def worktrees(tmp_path: Path) -> Path:
    return tmp_path / "worktrees"


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file of the checkout and of .git, but for objects and branches of our own."""
    kept = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        ours = inside.parts[:2] in [(".git", "objects"), (".git", "worktrees"), (".git", ".turbo")]
        if path.is_file() and not ours and "turbo" not in inside.parts:
            kept[str(inside)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return kept


async def test_an_accepted_candidate_becomes_one_commit_and_the_checkout_stays_as_it_was(
    repository: Path, worktrees: Path
) -> None:
    (repository / "a.txt").write_text("dirty\n")
    (repository / "new.txt").write_text("untracked\n")
    for hook in ("pre-commit", "post-checkout", "post-merge", "reference-transaction"):
        script = repository / ".git" / "hooks" / hook
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\ntouch {repository}/HOOK-RAN\nexit 1\n")
        script.chmod(0o755)
    before = fingerprint(repository)

    workspace = await Workspace.open(repository, run="r1", worktrees_root=worktrees)
    assert await workspace.dirty()
    tree = await workspace.worktree("c0")
    assert (tree / "a.txt").read_text() == "one\n"
    (tree / "made.txt").write_text("made\n")
    (tree / "junk.txt").write_text("left by a test\n")
    draft = await workspace.snapshot(tree, ["made.txt"], "draft")
    assert "+made" in await workspace.diff(draft)
    commit = await workspace.publish(draft, branch="turbo/x", message="Add made")
    await workspace.close()

    assert fingerprint(repository) == before
    assert git(repository, "log", "--format=%s", "main..turbo/x") == "Add made"
    assert git(repository, "show", "--format=", "--name-only", commit) == "made.txt"
    assert git(repository, "show", "-s", "--format=%cn", commit) == "Turbo Local Coder"
    assert git(repository, "worktree", "list").count("\n") == 0
    assert not list(worktrees.iterdir())


async def test_a_worktree_that_is_used_again_has_no_leftovers(
    repository: Path, worktrees: Path
) -> None:
    workspace = await Workspace.open(repository, run="r1", worktrees_root=worktrees)
    tree = await workspace.worktree("c0")
    (tree / "a.txt").write_text("changed\n")
    (tree / "junk.txt").write_text("junk\n")
    again = await workspace.worktree("c0")
    assert again == tree
    assert (tree / "a.txt").read_text() == "one\n"
    assert not (tree / "junk.txt").exists()
    await workspace.close()


async def test_worktrees_of_a_killed_run_are_removed_at_the_next_start(
    repository: Path, worktrees: Path
) -> None:
    program = (
        "import asyncio, os, signal, sys; from pathlib import Path\n"
        "from agent.core.workspace import Workspace\n"
        "async def main():\n"
        "    here, trees = map(Path, sys.argv[1:])\n"
        "    w = await Workspace.open(here, run='dead', worktrees_root=trees)\n"
        "    await w.worktree('c0')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", program, str(repository), str(worktrees)], check=False)
    assert (worktrees / "dead" / "c0").is_dir()

    workspace = await Workspace.open(repository, run="next", worktrees_root=worktrees)
    assert not (worktrees / "dead").exists()
    assert "dead" not in git(repository, "worktree", "list")
    await workspace.close()


async def test_worktrees_of_a_live_run_and_of_the_user_are_left_alone(
    repository: Path, worktrees: Path, tmp_path: Path
) -> None:
    users = tmp_path / "users"
    git(repository, "worktree", "add", "--quiet", "--detach", str(users))
    first = await Workspace.open(repository, run="r1", worktrees_root=worktrees)
    tree = await first.worktree("c0")
    second = await Workspace.open(repository, run="r2", worktrees_root=worktrees)
    assert tree.is_dir()
    assert users.is_dir()
    await second.close()
    await first.close()
    assert str(users) in git(repository, "worktree", "list")


async def test_apply_fast_forwards_a_clean_branch_and_refuses_everything_else(
    repository: Path, worktrees: Path
) -> None:
    workspace = await Workspace.open(repository, run="r1", worktrees_root=worktrees)
    tree = await workspace.worktree("c0")
    (tree / "a.txt").write_text("better\n")
    commit = await workspace.publish(
        await workspace.snapshot(tree, ["a.txt"], "x"), branch="turbo/x", message="Better"
    )
    (repository / "b.txt").write_text("dirty\n")
    with pytest.raises(WorkspaceError, match="uncommitted changes"):
        await workspace.fast_forward(commit)
    git(repository, "checkout", "--quiet", "--", "b.txt")

    assert await workspace.fast_forward(commit) == "main"
    assert (repository / "a.txt").read_text() == "better\n"
    with pytest.raises(WorkspaceError, match="has moved"):
        await workspace.fast_forward(commit)
    git(repository, "checkout", "--quiet", "--detach")
    with pytest.raises(WorkspaceError, match="no branch"):
        await workspace.fast_forward(commit)
    await workspace.close()


async def test_a_branch_that_exists_is_never_overwritten(repository: Path, worktrees: Path) -> None:
    workspace = await Workspace.open(repository, run="r1", worktrees_root=worktrees)
    tree = await workspace.worktree("c0")
    (tree / "a.txt").write_text("better\n")
    draft = await workspace.snapshot(tree, ["a.txt"], "x")
    with pytest.raises(WorkspaceError, match="update-ref"):
        await workspace.publish(draft, branch="main", message="Better")
    assert git(repository, "rev-parse", "main") == workspace.base
    await workspace.close()


async def test_files_are_read_from_the_last_commit(repository: Path, worktrees: Path) -> None:
    (repository / "bild.bin").write_bytes(b"\0\1\2")
    (repository / "grün.txt").write_text("grün\n", encoding="utf-8")
    git(repository, "add", ".")
    git(repository, "-c", "user.name=u", "-c", "user.email=u@x", "commit", "--quiet", "-m", "more")
    (repository / "a.txt").write_text("dirty\n")
    workspace = await Workspace.open(repository, run="r1", worktrees_root=worktrees)
    assert await workspace.files() == ("a.txt", "b.txt", "bild.bin", "grün.txt")
    assert await workspace.read("a.txt") == "one\n"
    assert await workspace.read("grün.txt") == "grün\n"
    assert await workspace.read("bild.bin") is None
    assert await workspace.read("absent.txt") is None
    await workspace.close()


def test_what_is_no_usable_repository_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="not a git repository") as caught:
        locate(tmp_path)
    assert "git init" in caught.value.fix
    assert caught.value.exit_code == 2
    git(tmp_path, "init", "--quiet", "--bare", "bare.git")
    with pytest.raises(WorkspaceError, match="bare"):
        locate(tmp_path / "bare.git")
    with pytest.raises(WorkspaceError, match="not a git repository"):
        locate(tmp_path / "absent")


async def test_a_repository_without_a_commit_is_refused(tmp_path: Path, worktrees: Path) -> None:
    git(tmp_path, "init", "--quiet", "empty")
    with pytest.raises(WorkspaceError, match="no commit yet"):
        await Workspace.open(tmp_path / "empty", run="r", worktrees_root=worktrees)


def test_a_folder_inside_the_repository_is_enough(repository: Path) -> None:
    inner = repository / "inner"
    inner.mkdir()
    assert locate(inner).samefile(repository)
