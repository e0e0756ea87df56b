"""Nothing that a repository or its configuration names is run, and nothing that it would have made
of a file is written over by us."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hostile_repository import ASSETS, Hostile, make_hostile
from team.conftest import git
from user_state import UserState

from agent.core.errors import EditError, WorkspaceError
from agent.core.workspace import Workspace, create_repository, locate, state_folder

IDENTITY = ("-c", "user.name=u", "-c", "user.email=u@x")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "a.py").write_text("one\n")
    create_repository(folder, message="first")
    return folder


@pytest.fixture
def worktrees(tmp_path: Path) -> Path:
    return tmp_path / "worktrees"


@pytest.fixture
def hostile(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hostile:
    made = make_hostile(repository, tmp_path / "hostile")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


async def changed(
    repository: Path, worktrees: Path, path: str, text: str, *, base: str | None = None
) -> tuple[Workspace, str]:
    """A workspace, and a commit of it in which `path` has another text."""
    workspace = await Workspace.open(repository, run="r1", base=base, worktrees_root=worktrees)
    tree = await workspace.worktree("c0")
    (tree / path).write_text(text)
    return workspace, await workspace.snapshot(tree, [path], "draft")


async def test_the_programs_of_the_test_are_run_by_the_git_of_the_user(hostile: Hostile) -> None:
    """Else the tests below would prove nothing."""
    for command in (
        ("status",),
        ("diff", "HEAD^", "HEAD", "--", ".gitmodules"),
        ("log", "-1"),
        ("checkout-index", "--force", "asset.inner"),
        ("update-ref", "refs/heads/other", "HEAD"),
        ("hash-object", "asset.inner", "asset.global"),
        ("cat-file", "-e", "1" * 40),
        ("-C", "sub", "status"),
    ):
        hostile.git("--no-pager", *command, check=False)  # some of the programs make it fail
    ran = set(hostile.ran())
    known = {
        "fsmonitor",
        "diff-external",
        "gpg",
        "smudge-inner",
        "transport",
        "submodule-fsmonitor",
    }
    assert {*known, "hook-reference-transaction", "submodule-clean"} <= ran, ran
    assert {"clean-inner", "clean-global"} <= ran, ran


async def test_no_program_of_the_repository_is_run(hostile: Hostile, worktrees: Path) -> None:
    repository = hostile.repository
    before = UserState.of(repository)
    assert not await _is_dirty(repository, worktrees)
    workspace, draft = await changed(repository, worktrees, "a.py", "two\n")
    tree = workspace._made["c0"].folder
    for name in ASSETS:
        assert ((tree / name).read_text(), name) == ("SMALL LETTERS\n", name)  # as git keeps it
        assert await workspace.read(name) == "SMALL LETTERS\n"
    assert "+two" in await workspace.diff(draft)
    await workspace.worktree("c0", at=draft)
    branch, commit = await workspace.publish(draft, branch="turbo/x", message="More\n\nRun: r1")
    assert await workspace.published("turbo/x", "Run: r1") == (branch, commit)
    assert "r1" in await workspace.mentioned("Run: ")
    assert not await workspace.has_commit("1" * 40)  # which a promisor might have
    assert await workspace.untracked() == ()
    await workspace.close()
    assert hostile.ran() == []
    assert before.changes() == []
    assert not list((repository / ".git/objects/pack").glob("*.pack"))  # no gc

    again = await Workspace.open(repository, run="r2", worktrees_root=worktrees)
    assert await again.fast_forward(commit) == "main"
    assert await again.branches("turbo/") == {"turbo/x": True}
    await again.delete_merged("turbo/x")
    await again.close()
    assert hostile.ran() == []
    assert (repository / "a.py").read_text() == "two\n"
    assert [(repository / name).read_text() for name in ASSETS] == ["small letters\n"] * 4
    assert not list((repository / ".git/objects/pack").glob("*.pack"))
    for name in ("evil", "strict"):
        hostile.git("config", "--unset", f"filter.{name}.process")
    hostile.git("config", "--unset", "core.fsmonitor")
    assert hostile.git("status", "--porcelain", "--ignore-submodules") == ""
    about = hostile.git("--no-pager", "show", "-s", "--no-show-signature", "--format=%an %cn")
    assert about == "Turbo Local Coder Turbo Local Coder"


async def _is_dirty(repository: Path, worktrees: Path) -> bool:
    workspace = await Workspace.open(repository, run="r0", worktrees_root=worktrees)
    try:
        return await workspace.dirty()
    finally:
        await workspace.close()


async def test_a_file_that_git_keeps_through_a_filter_is_not_written(
    hostile: Hostile, worktrees: Path
) -> None:
    workspace = await Workspace.open(hostile.repository, run="r1", worktrees_root=worktrees)
    assert await workspace.why_filtered(["a.py"]) is None
    for name in (*ASSETS, "new.dat"):
        reason = await workspace.why_filtered(["a.py", name])
        assert reason is not None
        assert name in reason
        tree = await workspace.worktree("c0")
        (tree / name).write_text("changed\n")
        with pytest.raises(EditError, match=f"'{name}' is kept by git through the filter"):
            await workspace.snapshot(tree, [name], "draft")
    tree = await workspace.worktree("c0")
    (tree / ".gitattributes").write_text("a.py filter=evil\n")
    for names in (["a.py"], ["asset.dat"]):  # the one is new, the other one no longer there
        with pytest.raises(EditError, match="through the filter evil"):
            await workspace.snapshot(tree, names, "draft")
    await workspace.close()
    assert hostile.ran() == []


@pytest.mark.parametrize("attribute", ["working-tree-encoding=UTF-7", "ident"])
async def test_what_git_would_keep_as_another_text_is_not_committed(
    repository: Path, worktrees: Path, attribute: str
) -> None:
    """`# +AAo-import os` is a comment to the tests, and code in the commit."""
    attributes = repository / ".git/info/attributes"
    workspace = await Workspace.open(repository, run="r1", worktrees_root=worktrees)
    tree = await workspace.worktree("c0")
    (tree / "a.py").write_text("# +AAo-import os\n# $Id: text $\n")
    assert await workspace.why_filtered(["a.py"]) is None
    attributes.write_text(f"a.py {attribute}\n")
    said = f"'a.py' has the git attribute {attribute}:"
    assert said in (await workspace.why_filtered(["a.py"]) or "")
    with pytest.raises(EditError, match=said):
        await workspace.snapshot(tree, ["a.py"], "draft")
    attributes.write_text("a.py working-tree-encoding=UTF-8 -ident\n")
    assert await workspace.why_filtered(["a.py"]) is None
    attributes.unlink()
    (tree / ".gitattributes").write_text(f"a.py {attribute}\n")
    with pytest.raises(EditError, match=said):
        await workspace.snapshot(tree, ["a.py"], "draft")
    (repository / ".gitattributes").write_text("a.py ident\n")
    (repository / "a.py").write_text("mine\n")
    assert await workspace.dirty()  # git itself sees that, which it does not behind a filter
    await workspace.close()


async def test_what_needs_a_filter_in_the_checkout_is_not_applied(
    hostile: Hostile, worktrees: Path
) -> None:
    hostile.git("config", "--unset", "core.hooksPath")
    shutil.rmtree(hostile.repository / ".git" / "hooks")
    before = UserState.of(hostile.repository)
    workspace, draft = await changed(
        hostile.repository, worktrees, ".gitattributes", "*.py filter=evil\n"
    )
    with pytest.raises(WorkspaceError, match="changes attributes") as caught:
        await workspace.fast_forward(draft)
    assert "git merge" in caught.value.fix
    await workspace.close()
    assert before.changes() == []
    (hostile.repository / ".git" / "info" / "attributes").write_text("*.py filter=evil\n")
    with pytest.raises(EditError, match="filter evil"):
        await changed(hostile.repository, worktrees, "a.py", "two\n")


async def test_a_filter_that_cannot_be_named_is_refused(repository: Path, worktrees: Path) -> None:
    git(repository, "config", "filter.a=b.clean", "false")
    with pytest.raises(WorkspaceError, match="'a=b'"):
        await Workspace.open(repository, run="r1", worktrees_root=worktrees)


@pytest.mark.parametrize("harm", ["lead", "remove", "repository", "rights", "folder", "link"])
async def test_what_tests_do_to_their_worktree_stays_there(
    repository: Path, worktrees: Path, harm: str
) -> None:
    """The worktree's own .git is in their hands; the user's checkout must not be reset for it."""
    workspace, draft = await changed(repository, worktrees, "a.py", "two\n")
    (repository / "a.py").write_text("work of the user\n")
    (repository / "new.py").write_text("untracked\n")
    before = UserState.of(repository)
    tree = await workspace.worktree("c0")
    link = tree / ".git"
    if harm == "folder":
        shutil.rmtree(tree)
    elif harm == "rights":
        (tree / "locked" / "inner").mkdir(parents=True)
        (tree / "locked" / "inner" / "file").touch()
        for folder in ("locked/inner", "locked", "."):
            (tree / folder).chmod(0)
    else:
        link.unlink()
    if harm == "lead":
        link.write_text(f"gitdir: {repository}/.git\n")
    elif harm == "link":
        link.symlink_to(repository / ".git")
    elif harm == "repository":
        git(tree, "init", "--quiet")
        git(tree, "config", "core.worktree", str(repository))
    again = await workspace.worktree("c0", at=draft)
    assert again == tree
    assert (tree / "a.py").read_text() == "two\n"
    assert sorted(x.name for x in tree.iterdir()) == [".git", "a.py"]
    if harm == "remove":
        link.unlink()
    await workspace.close()
    assert before.changes() == []
    assert git(repository, "worktree", "list").count("\n") == 0
    assert not (repository / ".git" / "worktrees").exists()
    assert not list(worktrees.iterdir())


async def test_a_worktree_without_its_file_git_leads_not_to_a_repository_above(
    repository: Path, tmp_path: Path
) -> None:
    """Like a home folder that is under git."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").write_text("x")
    create_repository(home, message="home")
    (home / "letter.txt").write_text("changed")
    (home / "draft.txt").write_text("untracked")
    workspace, _ = await changed(repository, home / "cache", "a.py", "two\n")
    before = UserState.of(home)
    tree = await workspace.worktree("c0")
    (tree / ".git").unlink()
    (tree / "a.py").write_text("three\n")
    draft = await workspace.snapshot(tree, ["a.py"], "draft")
    assert "+three" in await workspace.diff(draft)
    await workspace.worktree("c0")
    assert (home / "letter.txt").read_text() == "changed"
    await workspace.close()
    gone = [line for line in before.changes() if "home/cache" not in line]
    assert [line for line in gone if not line.startswith("gone: cache/")] == []


async def test_a_partial_clone_fetches_nothing_for_us(
    hostile: Hostile, tmp_path: Path, worktrees: Path
) -> None:
    """What is missing is said to be so."""
    repository = tmp_path / "partial"
    create = ("init", "--quiet", "--initial-branch=main", str(repository))
    hostile.git("--no-pager", *create)
    missing = git(hostile.repository, "rev-parse", "HEAD:a.py")
    (repository / "a.py").write_text("one\n")
    git(repository, *IDENTITY, "add", "a.py")
    git(repository, *IDENTITY, "commit", "--quiet", "-m", "first")
    (repository / ".git/objects" / missing[:2] / missing[2:]).unlink()
    for key in ("extensions.partialClone", "remote.origin.promisor", "remote.origin.url"):
        git(repository, "config", key, hostile.git("config", key))
    git(repository, "config", "protocol.ext.allow", "always")
    git(repository, "config", "core.repositoryFormatVersion", "1")
    for mark in hostile.marks.iterdir():
        mark.unlink()
    workspace = await Workspace.open(repository, run="r1", worktrees_root=worktrees)
    with pytest.raises(WorkspaceError) as caught:
        await workspace.worktree("c0")
    assert missing in caught.value.message
    await workspace.close()
    assert hostile.ran() == []


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
async def test_both_kinds_of_commit_names_work_without_a_user_name(
    tmp_path: Path, worktrees: Path, object_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repo"
    git(tmp_path, "init", "--quiet", f"--object-format={object_format}", str(repository))
    (repository / "a.py").write_text("one\n")
    git(repository, "add", ".")
    git(repository, *IDENTITY, "commit", "--quiet", "-m", "first")
    git(repository, "config", "user.useConfigOnly", "true")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    workspace, draft = await changed(repository, worktrees, "a.py", "two\n")
    assert await workspace.read("a.py") == "one\n"
    branch, commit = await workspace.publish(draft, branch="turbo/x", message="Two")
    await workspace.close()
    assert git(repository, "rev-parse", branch) == commit
    assert len(commit) == {"sha1": 40, "sha256": 64}[object_format]


async def test_the_checkout_may_be_elsewhere_than_its_git_folder(
    repository: Path, tmp_path: Path, worktrees: Path
) -> None:
    linked = tmp_path / "linked"
    git(repository, "worktree", "add", "--quiet", "-b", "side", str(linked))
    apart = tmp_path / "apart"
    git(tmp_path, "clone", "--quiet", f"--separate-git-dir={tmp_path}/x.git", "repo", "apart")
    for checkout, common in ((linked, repository / ".git"), (apart, tmp_path / "x.git")):
        assert locate(checkout).samefile(checkout)
        assert state_folder(checkout) == common / ".turbo"
        workspace, draft = await changed(checkout, worktrees, "a.py", "two\n")
        assert await workspace.fast_forward(draft) in ("side", "main")
        await workspace.close()
        assert (checkout / "a.py").read_text() == "two\n"
    assert (repository / "a.py").read_text() == "one\n"
    assert str(linked) in git(repository, "worktree", "list")


def test_what_git_does_not_open_is_said_with_the_way_out(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"inside of \.git"):
        locate(repository / ".git")
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / ".git").write_text("gitdir: /nowhere\n")
    with pytest.raises(WorkspaceError, match="cannot use the repository"):
        locate(tmp_path / "lost")
    git(repository, "config", "core.repositoryFormatVersion", "1")
    git(repository, "config", "extensions.unheardOf", "true")
    with pytest.raises(WorkspaceError, match=r"(?i)unheardof"):
        locate(repository)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_repository_of_somebody_else_is_refused(repository: Path) -> None:
    os.chown(repository, 12345, -1)
    os.chown(repository / ".git", 12345, -1)
    with pytest.raises(WorkspaceError, match="belongs to another user") as caught:
        locate(repository)
    assert f"safe.directory {repository}" in caught.value.fix
