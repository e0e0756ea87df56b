"""The user's checkout is never touched, and nothing of ours is left behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from team.conftest import git
from user_state import UserState

from agent.core.errors import NotText, WorkspaceError
from agent.core.workspace import Workspace, create_repository, is_tracked, locate


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
    before = UserState.of(repository)

    workspace = await Workspace.open(repository, run="r1", worktrees_root=worktrees)
    assert await workspace.dirty()
    tree = await workspace.worktree("c0")
    assert (tree / "a.txt").read_text() == "one\n"
    (tree / "made.txt").write_text("made\n")
    (tree / "junk.txt").write_text("left by a test\n")
    draft = await workspace.snapshot(tree, ["made.txt"], "draft")
    assert "+made" in await workspace.diff(draft)
    _, commit = await workspace.publish(draft, branch="turbo/x", message="Add made")
    await workspace.close()

    assert before.changes() == []
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
    assert len(list(worktrees.glob("*/*-c0"))) == 1

    workspace = await Workspace.open(repository, run="next", worktrees_root=worktrees)
    assert list(worktrees.glob("*/*-c0")) == []
    assert git(repository, "worktree", "list").count("\n") == 0
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
    _, commit = await workspace.publish(
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


async def accepted(workspace: Workspace, path: str) -> str:
    tree = await workspace.worktree("c0")
    (tree / path).write_text("made\n")
    draft = await workspace.snapshot(tree, [path], "x")
    return (await workspace.publish(draft, branch="turbo/x", message="More"))[1]


@pytest.mark.parametrize("how", ["ignored", "locked", "switched"])
async def test_an_apply_that_cannot_be_leaves_the_checkout_as_it_was(
    repository: Path, worktrees: Path, how: str
) -> None:
    workspace = await Workspace.open(repository, run="r1", worktrees_root=worktrees)
    commit = await accepted(workspace, "new.txt")
    if how == "ignored":
        (repository / ".git/info/exclude").write_text("new.txt\n")
        (repository / "new.txt").write_text("precious\n")
    elif how == "locked":
        (repository / ".git/refs/heads/main.lock").touch()
    else:
        git(repository, "checkout", "--quiet", "-b", "other")
    before = UserState.of(repository)
    with pytest.raises(WorkspaceError, match="not applied: "):
        await workspace.fast_forward(commit)
    await workspace.close()
    assert [x for x in before.changes() if "index:" not in x and "ORIG_HEAD" not in x] == []
    assert git(repository, "status", "--porcelain") == ""


async def test_what_no_branch_names_yet_outlives_a_clean_up_of_the_user(
    repository: Path, worktrees: Path
) -> None:
    workspace = await Workspace.open(repository, run="r1", worktrees_root=worktrees)
    tree = await workspace.worktree("c0")
    (tree / "new.txt").write_text("made\n")
    draft = await workspace.snapshot(tree, ["new.txt"], "x")
    git(repository, "gc", "--quiet", "--prune=now")
    _, commit = await workspace.publish(draft, branch="turbo/x", message="More")
    assert git(repository, "show", f"{commit}:new.txt") == "made"
    await workspace.close()


@pytest.mark.parametrize("trick", ["a bare one inside", "a format of tomorrow"])
def test_a_file_of_a_clone_is_never_the_users_because_git_refuses_to_look(
    repository: Path, trick: str
) -> None:
    folder = repository
    if trick == "a bare one inside":
        folder = repository / "sub"
        git(repository, "init", "--quiet", "--bare", str(folder))
    else:
        git(repository, "config", "core.repositoryformatversion", "99")
    (folder / ".env").write_text("LLAMACPP_BINARY_PATH=./evil\n")
    assert is_tracked(folder / ".env")


@pytest.mark.parametrize("name", [".turbo", ".turbo/runs"])
async def test_a_link_where_our_state_belongs_is_not_followed(
    repository: Path, worktrees: Path, tmp_path: Path, name: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = repository / ".git" / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(elsewhere)
    with pytest.raises(WorkspaceError, match="symbolic link"):
        await Workspace.open(repository, run="r1", worktrees_root=worktrees)
    assert [*elsewhere.iterdir()] == []


async def test_a_damaged_object_is_named(repository: Path, worktrees: Path) -> None:
    workspace = await Workspace.open(repository, run="r1", worktrees_root=worktrees)
    name = git(repository, "rev-parse", "HEAD:a.txt")
    loose = repository / ".git/objects" / name[:2] / name[2:]
    loose.chmod(0o600)
    loose.write_text("junk")
    with pytest.raises(WorkspaceError) as caught:
        await workspace.read("a.txt")
    assert name in caught.value.message
    assert "git fsck" in caught.value.fix
    await workspace.close()


async def test_a_branch_that_exists_is_never_overwritten(repository: Path, worktrees: Path) -> None:
    workspace = await Workspace.open(repository, run="r1", worktrees_root=worktrees)
    tree = await workspace.worktree("c0")
    (tree / "a.txt").write_text("better\n")
    draft = await workspace.snapshot(tree, ["a.txt"], "x")
    branch, commit = await workspace.publish(draft, branch="main", message="Better\n\nRun: r1")
    assert git(repository, "rev-parse", "main") == workspace.base
    assert (branch, git(repository, "rev-parse", branch)) == ("main-2", commit)
    (repository / ".git/refs/heads/main-3.lock").touch()  # as a git that was killed leaves it
    locked = await workspace.publish(draft, branch="main", message="Better")
    assert locked[0] == "main-4"
    assert await workspace.published("main", "Run: r1") == (branch, commit)
    assert await workspace.published("main", "Run: r2") is None
    with pytest.raises(WorkspaceError, match="update-ref"):
        await workspace.publish(draft, branch="no..name", message="Better")
    await workspace.close()


async def test_files_are_read_from_the_last_commit(repository: Path, worktrees: Path) -> None:
    (repository / "grün.txt").write_text("grün\n", encoding="utf-8")
    git(repository, "add", ".")
    git(repository, "-c", "user.name=u", "-c", "user.email=u@x", "commit", "--quiet", "-m", "more")
    (repository / "a.txt").write_text("dirty\n")
    workspace = await Workspace.open(repository, run="r1", worktrees_root=worktrees)
    assert await workspace.files() == ("a.txt", "b.txt", "grün.txt")
    assert await workspace.read("a.txt") == "one\n"
    assert await workspace.read("grün.txt") == "grün\n"
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


@pytest.mark.parametrize("name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR"])
async def test_git_variables_of_the_user_lead_us_nowhere(
    repository: Path,
    worktrees: Path,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (repository / "a.txt").write_text("dirty\n")
    (repository / "new.txt").write_text("untracked\n")
    before = UserState.of(repository)
    target = {
        "GIT_WORK_TREE": repository,
        "GIT_INDEX_FILE": repository / ".git" / "index",
    }.get(name, repository / ".git")
    monkeypatch.setenv(name, str(target))

    workspace = await Workspace.open(repository, run="r1", worktrees_root=worktrees)
    for _ in range(2):
        tree = await workspace.worktree("c0")
        (tree / "made.txt").write_text("made\n")
        await workspace.snapshot(tree, ["made.txt"], "draft")
    await workspace.close()

    assert before.changes() == []
    other = tmp_path / "other"
    other.mkdir()
    (other / "x").write_text("x")
    monkeypatch.setenv(name, str(target))
    create_repository(other, message="another")
    assert before.changes() == []


async def test_what_is_no_text_is_said_to_be_so(repository: Path, worktrees: Path) -> None:
    (repository / "bild.bin").write_bytes(b"\0\1\2")
    (repository / "latin.txt").write_bytes("grün".encode("latin-1"))
    (repository / "link.txt").symlink_to("a.txt")
    (repository / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"x\n")
    git(repository, "add", "--", "bild.bin", "latin.txt", "link.txt")
    subprocess.run(["git", "-C", repository, "add", "--", b"caf\xe9.txt"], check=True)
    git(repository, "-c", "user.name=u", "-c", "user.email=u@x", "commit", "--quiet", "-m", "more")
    workspace = await Workspace.open(repository, run="r1", worktrees_root=worktrees)
    files = ("a.txt", "b.txt", "bild.bin", "latin.txt", "link.txt")
    assert await workspace.files() == files
    for name, reason in {
        "bild.bin": "is binary",
        "latin.txt": "is not UTF-8",
        "link.txt": "is no regular file",
    }.items():
        with pytest.raises(NotText, match=f"{name} {reason}"):
            await workspace.read(name)
    tree = await workspace.worktree("c0")
    (tree / "latin.txt").write_bytes("grau".encode("latin-1") + b"\xfc")
    draft = await workspace.snapshot(tree, ["latin.txt"], "draft")
    assert (await workspace.diff(draft)).encode("utf-8")
    await workspace.close()


async def test_a_worktree_that_was_asked_for_too_late_is_not_made(
    repository: Path, worktrees: Path
) -> None:
    workspace = await Workspace.open(repository, run="r1", worktrees_root=worktrees)
    asked = [asyncio.create_task(workspace.worktree(f"c{n}")) for n in range(8)]
    await asyncio.sleep(0)
    for task in asked:
        task.cancel()
    await workspace.close()
    await asyncio.gather(*asked, return_exceptions=True)
    await asyncio.sleep(0.3)
    assert git(repository, "worktree", "list").count("\n") == 0
    assert not list(worktrees.iterdir())


async def test_a_branch_in_the_way_is_found_before_the_work(
    repository: Path, worktrees: Path
) -> None:
    git(repository, "branch", "turbo")
    with pytest.raises(WorkspaceError, match="in the way") as caught:
        await Workspace.open(repository, run="r1", worktrees_root=worktrees)
    assert "git branch -m" in caught.value.fix


async def test_where_nothing_can_be_written_it_says_so(repository: Path) -> None:
    with pytest.raises(WorkspaceError, match="cannot write /dev/null/x"):
        await Workspace.open(repository, run="r1", worktrees_root=Path("/dev/null/x"))


async def test_untracked_files_are_those_that_git_does_not_ignore(
    repository: Path, worktrees: Path
) -> None:
    (repository / ".gitignore").write_text("*.log\n")
    (repository / "x.log").write_text("")
    workspace = await Workspace.open(repository, run="r1", worktrees_root=worktrees)
    assert await workspace.untracked() == (".gitignore",)
    await workspace.close()


async def test_tracked_and_ignored_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    for name in ("a.py", "notes/x.md", ".env"):
        (tmp_path / name).write_text("x\n")
    create_repository(tmp_path, message="first")
    (tmp_path / ".gitignore").write_text("notes/\n.env*\n")
    (tmp_path / ".env.mine").write_text("x\n")
    workspace = await Workspace.open(tmp_path, run="r", worktrees_root=tmp_path.parent / "trees")
    try:
        assert await workspace.ignored() == (".env", "notes/x.md")
    finally:
        await workspace.close()
    assert is_tracked(tmp_path / ".env")
    assert is_tracked(tmp_path / "notes" / "x.md")
    assert not is_tracked(tmp_path / ".env.mine")
    assert not is_tracked(tmp_path / "none")
    assert not is_tracked(tmp_path.parent / ".env")
