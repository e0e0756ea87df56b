"""Git: where the work happens, and the only module that speaks git.

Candidates live in detached worktrees outside the user's tree. What is accepted becomes one commit
on a branch of its own, written with plumbing commands, so that the user's checked-out files,
index, stash and hooks are never touched. Hooks, fsmonitor and automatic gc are off for
everything we run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self, TypeVar

import git
import psutil

from agent.core.errors import WorkspaceError

_IDENTITY = {
    "GIT_AUTHOR_NAME": "Turbo Local Coder",
    "GIT_AUTHOR_EMAIL": "turbo-local-coder@localhost",
    "GIT_COMMITTER_NAME": "Turbo Local Coder",
    "GIT_COMMITTER_EMAIL": "turbo-local-coder@localhost",
}
_QUIET = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
_OPTIONS = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.quotePath=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
    "commit.gpgSign=false",
]
_OWNER = "owner.json"

Result = TypeVar("Result")


class Workspace:
    """One run's view of one repository. Use `open`, then `close`."""

    def __init__(self, repo: git.Repo, *, run: str, base: str, worktrees: Path) -> None:
        self._repo = repo
        self._git = threading.Lock()
        self._worktrees = worktrees
        self._made: dict[str, Path] = {}
        self.run = run
        self.base = base
        """Commit that the work starts from."""
        self.root = Path(str(repo.working_tree_dir))
        """Top folder of the user's checkout. We only read there."""
        self.state_dir = Path(repo.common_dir) / ".turbo"
        """Runs and checkpoints, inside git's own folder."""

    @classmethod
    async def open(cls, path: Path, *, run: str, worktrees_root: Path) -> Self:
        """Open the repository that holds `path` and clear away what killed runs left.

        Raises WorkspaceError when there is none, when it is bare, or has no commit.
        """
        return await asyncio.to_thread(cls._open, path, run, worktrees_root)

    @classmethod
    def _open(cls, path: Path, run: str, worktrees_root: Path) -> Self:
        repo = _repository(path)
        try:
            base = str(repo.git.rev_parse("--verify", "--quiet", "HEAD^{commit}"))
        except git.GitCommandError:
            raise WorkspaceError(
                f"{path}: the repository has no commit yet",
                fix="Commit something first; the work starts from the last commit.",
            ) from None
        _clear_abandoned(repo, worktrees_root)
        own = worktrees_root / run
        own.mkdir(parents=True)
        (own / _OWNER).write_text(json.dumps(_identity_of(os.getpid())), encoding="utf-8")
        return cls(repo, run=run, base=base, worktrees=own)

    async def close(self) -> None:
        """Remove every worktree of this run."""

        def clear() -> None:
            for path in self._made.values():
                _remove_worktree(self._repo, path)
            self._made.clear()

        await self._call(clear)
        await asyncio.to_thread(shutil.rmtree, self._worktrees, ignore_errors=True)
        self._repo.close()

    async def dirty(self) -> bool:
        """True when tracked files of the user's checkout differ from its last commit."""
        return bool(await self._run("status", "--porcelain", "--untracked-files=no"))

    async def files(self) -> tuple[str, ...]:
        """All tracked files of the base commit, sorted, with forward slashes."""
        out = await self._run("ls-tree", "-r", "-z", "--name-only", self.base)
        return tuple(sorted(name for name in out.split("\0") if name))

    async def read(self, path: str) -> str | None:
        """Text of one file at the base; None when it is absent or no UTF-8 text."""

        def load() -> bytes | None:
            with contextlib.suppress(KeyError):
                blob = self._repo.commit(self.base).tree / path
                if blob.type == "blob":
                    data: bytes = blob.data_stream.read()
                    return data
            return None

        data = await self._call(load)
        if data is None or b"\0" in data[:8000]:
            return None
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return None

    async def worktree(self, name: str, *, at: str | None = None) -> Path:
        """A worktree of that name, checked out at `at` (default: the base), without leftovers."""
        target = at or self.base

        def prepare() -> Path:
            path = self._made.get(name)
            if path is None:
                path = self._worktrees / name
                self._made[name] = path
                self._repo.git.worktree("add", "--detach", "--quiet", str(path), target)
            else:
                with _opened(path) as here:
                    here.git.reset("--hard", "--quiet", target)
                    here.git.clean("-ffdxq")
            return path

        return await self._call(prepare)

    async def snapshot(self, worktree: Path, paths: Sequence[str], message: str) -> str:
        """Commit `paths` of a worktree on top of the base without moving any branch; its id."""

        def write() -> str:
            with _opened(worktree) as here:
                here.git.read_tree(self.base)
                here.git.add("--force", "--", *paths)
                tree = here.git.write_tree()
                return str(here.git.commit_tree(tree, "-p", self.base, "-m", message))

        return await self._call(write)

    async def diff(self, commit: str) -> str:
        """Unified diff from the base to `commit`."""
        return await self._run(
            "diff", "--no-color", "--no-ext-diff", "--no-textconv", self.base, commit
        )

    async def publish(self, commit: str, *, branch: str, message: str) -> str:
        """One commit with the tree of `commit` and `message` on a new `branch`; its id.

        Raises GitError when the branch exists already.
        """
        tree = await self._run("rev-parse", f"{commit}^{{tree}}")
        final = await self._run("commit-tree", tree, "-p", self.base, "-m", message)
        await self._run("update-ref", f"refs/heads/{branch}", final, "0" * 40)
        return final

    async def fast_forward(self, commit: str) -> str:
        """Move the user's current branch to `commit` and return its name.

        Raises WorkspaceError, with nothing changed, when the checkout has changes, is on no
        branch, or has moved since the run began.
        """
        by_hand = f"Merge it yourself: git merge --ff-only {commit[:12]}"
        if await self.dirty():
            raise WorkspaceError("--apply: the checkout has uncommitted changes", fix=by_hand)
        try:
            branch = await self._run("symbolic-ref", "--short", "--quiet", "HEAD")
        except GitError:
            raise WorkspaceError("--apply: no branch is checked out", fix=by_hand) from None
        if await self._run("rev-parse", "HEAD") != self.base:
            raise WorkspaceError(f"--apply: {branch} has moved during the run", fix=by_hand)
        try:
            await self._run("merge", "--ff-only", "--quiet", commit)
        except GitError as error:
            raise WorkspaceError(f"--apply: {error.message}", fix=by_hand) from None
        return branch

    async def has_commit_mentioning(self, text: str) -> bool:
        """True when a commit on any local branch has `text` in its message."""
        return bool(
            await self._run("log", "--branches", "-1", "--format=%H", "-F", f"--grep={text}")
        )

    async def _run(self, command: str, *arguments: str) -> str:
        method = getattr(self._repo.git, command.replace("-", "_"))
        return await self._call(lambda: str(method(*arguments)))

    async def _call(self, work: Callable[[], Result]) -> Result:
        """Do `work` in a thread, one at a time, and map what git says when it fails."""

        def locked() -> Result:
            with self._git:
                return work()

        try:
            return await asyncio.to_thread(locked)
        except git.GitCommandError as error:
            raise GitError(_command_of(error), str(error.stderr)) from None


class GitError(WorkspaceError):
    """A git command failed; the message is git's own."""

    exit_code = 1

    def __init__(self, command: str, said: str) -> None:
        text = said.strip().removeprefix("stderr:").strip().strip("'")
        super().__init__(f"git {command} failed: {text or 'it said nothing'}")


def locate(path: Path) -> Path:
    """The top folder of the checkout that holds `path`. Raises WorkspaceError as `open` does."""
    repo = _repository(path)
    try:
        return Path(str(repo.working_tree_dir))
    finally:
        repo.close()


def create_repository(folder: Path, *, message: str) -> None:
    """Make `folder` a git repository with one commit of everything in it."""
    git.Repo.init(folder, initial_branch="main").close()
    with _opened(folder) as repo:
        repo.git.add("--all")
        repo.git.commit("--quiet", "--no-verify", "-m", message)


def _command_of(error: git.GitCommandError) -> str:
    words = [str(word) for word in error.command] if isinstance(error.command, list) else []
    plain = [word for word in words[1:] if word != "-c" and "=" not in word]
    return plain[0] if plain else "command"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[git.Repo]:
    with git.Repo(path) as repo:
        repo.git.set_persistent_git_options(c=_OPTIONS)
        repo.git.update_environment(**_QUIET, **_IDENTITY)
        yield repo


def _repository(path: Path) -> git.Repo:
    try:
        repo = git.Repo(path, search_parent_directories=True)
    except (git.InvalidGitRepositoryError, git.NoSuchPathError):
        raise WorkspaceError(
            f"{path}: not a git repository",
            fix="Run it inside a repository, name one with --repo, or type: git init",
        ) from None
    if repo.bare or repo.working_tree_dir is None:
        repo.close()
        raise WorkspaceError(
            f"{path}: a bare repository has no files to work on",
            fix="Clone it and run in the clone.",
        )
    repo.git.set_persistent_git_options(c=_OPTIONS)
    repo.git.update_environment(**_QUIET, **_IDENTITY)
    return repo


def _identity_of(pid: int) -> dict[str, float]:
    return {"pid": pid, "started": psutil.Process(pid).create_time()}


def _is_alive(owner: Path) -> bool:
    """True while the process that wrote `owner` runs; pids are reused, so its start counts too."""
    try:
        told = json.loads(owner.read_text(encoding="utf-8"))
        return bool(_identity_of(int(told["pid"])) == told)
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return False


def _clear_abandoned(repo: git.Repo, worktrees_root: Path) -> None:
    """Remove worktrees of runs that are dead: the folders, and what this repository knows of
    them. Worktrees of the user are not ours to prune."""
    for run in worktrees_root.glob("*"):
        if not _is_alive(run / _OWNER):
            shutil.rmtree(run, ignore_errors=True)
    listed = str(repo.git.worktree("list", "--porcelain", "-z")).split("\0")
    for line in listed:
        path = Path(line.removeprefix("worktree "))
        ours = line.startswith("worktree ") and path.is_relative_to(worktrees_root)
        if ours and not path.exists():
            _remove_worktree(repo, path)


def _remove_worktree(repo: git.Repo, path: Path) -> None:
    with contextlib.suppress(git.GitCommandError):
        repo.git.worktree("remove", "--force", "--force", str(path))
