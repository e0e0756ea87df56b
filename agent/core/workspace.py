"""Git: where the work happens, and the only module that speaks git.

Candidates live in detached worktrees outside the user's tree. What is accepted becomes one commit
on a branch of its own, written with plumbing commands, so that the user's checked-out files,
index, stash and hooks are never touched. Hooks, fsmonitor and automatic gc are off for
everything we run. It is longer than most modules: splitting it would give git two owners.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self, TypeVar

from agent.core.config import forget_git_variables
from agent.core.errors import NotText, WorkspaceError
from agent.core.folders import cache_folder, private_folder
from agent.core.shortage import FULL_FIX, is_full, shortage

try:
    import git
except ImportError:  # GitPython looks for the program when it is imported
    raise WorkspaceError("git was not found", fix="Install git 2.28 or newer.") from None

_IDENTITY = {
    "GIT_AUTHOR_NAME": "Turbo Local Coder",
    "GIT_AUTHOR_EMAIL": "turbo-local-coder@localhost",
    "GIT_COMMITTER_NAME": "Turbo Local Coder",
    "GIT_COMMITTER_EMAIL": "turbo-local-coder@localhost",
}
_QUIET = {
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
_OPTIONS = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.quotePath=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
    "commit.gpgSign=false",
]

Result = TypeVar("Result")


class Workspace:
    """One run's view of one repository. Use `open`, then `close`."""

    def __init__(
        self, repo: git.Repo, *, run: str, base: str, worktrees: Path, owned: ExitStack
    ) -> None:
        self._repo = repo
        self._git = threading.Lock()
        self._worktrees = worktrees
        self._owned = owned
        self._made: dict[str, Path] = {}
        self._closed = False
        self.run = run
        self.base = base
        """Commit that the work starts from."""
        self.root = Path(str(repo.working_tree_dir))
        """Top folder of the user's checkout. We only read there."""
        self.state_dir = _state_folder(repo)
        """Runs and checkpoints, inside git's own folder."""

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        run: str,
        base: str | None = None,
        worktrees_root: Path | None = None,
    ) -> Self:
        """Open the repository that holds `path` and clear away what killed runs left.

        The work starts from the commit `base`, by default the last one. Worktrees are made below
        `worktrees_root`, by default in the cache. Raises WorkspaceError when there is no
        repository, when it is bare or has no such commit, or when nothing can be written.
        """
        return await asyncio.to_thread(cls._open, path, run, base, worktrees_root)

    @classmethod
    def _open(cls, path: Path, run: str, base: str | None, worktrees_root: Path | None) -> Self:
        with ExitStack() as stack, _mapped():
            repo = _repository(path)
            stack.callback(repo.close)
            base = _last_commit(repo, path) if base is None else _commit(repo, base)
            _refuse_branch_in_the_way(repo)
            root = (worktrees_root or cache_folder("worktrees")).resolve()
            root.mkdir(parents=True, exist_ok=True)
            worktrees = stack.enter_context(private_folder(root))
            _clear_abandoned(repo, root)
            return cls(repo, run=run, base=base, worktrees=worktrees, owned=stack.pop_all())

    async def close(self) -> None:
        """Remove every worktree of this run."""

        def clear() -> None:
            # A cancelled `worktree` may still wait for the lock; it must not make one after this.
            self._closed = True
            for path in self._made.values():
                _remove_worktree(self._repo, path)
            self._made.clear()

        await self._call(clear)
        await asyncio.to_thread(self._owned.close)

    async def dirty(self) -> bool:
        """True when tracked files of the user's checkout differ from its last commit."""
        return bool(await self._run("status", "--porcelain", "--untracked-files=no"))

    async def untracked(self) -> tuple[str, ...]:
        """Files of the user's checkout that git neither tracks nor ignores, sorted."""
        return _names(await self._run("ls-files", "--others", "--exclude-standard", "-z"))

    async def files(self) -> tuple[str, ...]:
        """All tracked files of the base commit, sorted, with forward slashes.

        Names that are not UTF-8 are left out: no prompt could show them.
        """
        return _names(await self._run("ls-tree", "-r", "-z", "--name-only", self.base))

    async def read(self, path: str) -> str | None:
        """Text of one file at the base; None when it is absent.

        Raises NotText for what is no regular file of UTF-8 text.
        """

        def load() -> bytes | None:
            try:
                blob = self._repo.commit(self.base).tree / path
            except KeyError:
                return None
            if blob.type != "blob" or stat.S_ISLNK(blob.mode):
                raise NotText(path, "is no regular file")
            data: bytes = blob.data_stream.read()
            return data

        data = await self._call(load)
        if data is None:
            return None
        if b"\0" in data[:8000]:
            raise NotText(path, "is binary")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise NotText(path, "is not UTF-8") from None

    async def worktree(self, name: str, *, at: str | None = None) -> Path:
        """A worktree of that name, checked out at `at` (default: the base), without leftovers."""
        target = at or self.base

        def prepare() -> Path:
            if self._closed:
                raise WorkspaceError("the run is over")
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
        text = await self._run(
            "diff", "--no-color", "--no-ext-diff", "--no-textconv", self.base, commit
        )
        # git's output is bytes; what is no UTF-8 comes as lone surrogates, which nothing can send
        return text.encode("utf-8", "replace").decode("utf-8")

    async def publish(self, commit: str, *, branch: str, message: str) -> str:
        """One commit with the tree of `commit` and `message` on a new `branch`; its id.

        Raises GitError when the branch exists already.
        """
        tree = await self._run("rev-parse", f"{commit}^{{tree}}")
        final = await self._run("commit-tree", tree, "-p", self.base, "-m", message)
        await self._run("update-ref", f"refs/heads/{branch}", final, "0" * 40)
        return final

    async def has_commit(self, commit: str) -> bool:
        """True when git still has that commit, which no branch need name, and its files."""
        try:
            await self._run("cat-file", "-e", f"{commit}^{{tree}}")
        except GitError:
            return False
        return True

    async def published(self, branch: str, trailer: str) -> str | None:
        """The commit since the base on a local `branch` that has `trailer` in its message, or
        None."""
        since = f"{self.base}..refs/heads/{branch}"
        try:
            return (
                await self._run("log", "-1", "--format=%H", "-F", f"--grep={trailer}", since)
                or None
            )
        except GitError:  # there is no such branch
            return None

    async def branches(self, prefix: str) -> dict[str, bool]:
        """Local branches whose names begin with `prefix`; whether the checkout's last commit has
        all of each."""

        async def listed(*which: str) -> list[str]:
            names = ("--format=%(refname:lstrip=2)", *which, f"refs/heads/{prefix}")
            return (await self._run("for-each-ref", *names)).splitlines()

        merged = await listed("--merged=HEAD")
        return {name: name in merged for name in await listed()}

    async def delete_merged(self, branch: str) -> None:
        """Delete a local branch that is merged. Raises GitError when it is not, or checked out."""
        await self._run("branch", "--delete", "--quiet", branch)

    async def fast_forward(self, commit: str) -> str:
        """Move the user's current branch to `commit` and return its name.

        Raises WorkspaceError, with nothing changed, when the checkout has changes, is on no
        branch, or has moved since the run began.
        """
        by_hand = f"Merge it yourself: git merge {commit[:12]}"
        if await self.dirty():
            raise WorkspaceError("not applied: the checkout has uncommitted changes", fix=by_hand)
        try:
            branch = await self._run("symbolic-ref", "--short", "--quiet", "HEAD")
        except GitError:
            raise WorkspaceError("not applied: no branch is checked out", fix=by_hand) from None
        if await self._run("rev-parse", "HEAD") != self.base:
            raise WorkspaceError(f"not applied: {branch} has moved during the run", fix=by_hand)
        try:
            await self._run("merge", "--ff-only", "--quiet", commit)
        except GitError as error:
            raise WorkspaceError(f"not applied: {error.message}", fix=by_hand) from None
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

        with _mapped(self._repo.common_dir, self._worktrees):
            return await asyncio.to_thread(locked)


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


def state_folder(path: Path) -> Path:
    """Where the repository of the checkout at `path` keeps runs and checkpoints. Raises
    WorkspaceError as `open` does."""
    repo = _repository(path)
    try:
        return _state_folder(repo)
    finally:
        repo.close()


def create_repository(folder: Path, *, message: str) -> None:
    """Make `folder` a git repository with one commit of everything in it."""
    forget_git_variables()
    git.Repo.init(folder, initial_branch="main").close()
    with _mapped(), _opened(folder) as repo:
        repo.git.add("--all")
        repo.git.commit("--quiet", "--no-verify", "-m", message)


def _state_folder(repo: git.Repo) -> Path:
    return Path(repo.common_dir) / ".turbo"


def _command_of(error: git.GitCommandError) -> str:
    words = [str(word) for word in error.command] if isinstance(error.command, list) else []
    plain = [word for word in words[1:] if word != "-c" and "=" not in word]
    return plain[0] if plain else "command"


@contextlib.contextmanager
def _mapped(*folders: str | os.PathLike[str]) -> Iterator[None]:
    """The one seam where failures of git and of the disk become errors of ours. `folders` lie on
    the disks that git writes to: it has several words for a full one, or none."""
    try:
        yield
    except git.GitCommandError as error:
        failure = GitError(_command_of(error), str(error.stderr))
        if any(map(is_full, folders or ".")):
            raise WorkspaceError(failure.message, fix=FULL_FIX) from None
        raise failure from None
    except OSError as error:
        if known := shortage(error, Path.cwd()):
            raise known from None
        place = f" {error.filename}" if error.filename else ""
        raise WorkspaceError(
            f"cannot write{place}: {error.strerror}", fix="Make room or give the rights for it."
        ) from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[git.Repo]:
    with git.Repo(path) as repo:
        repo.git.set_persistent_git_options(c=_OPTIONS)
        repo.git.update_environment(**_QUIET, **_IDENTITY)
        yield repo


def _repository(path: Path) -> git.Repo:
    forget_git_variables()
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


def _last_commit(repo: git.Repo, path: Path) -> str:
    try:
        return str(repo.git.rev_parse("--verify", "--quiet", "HEAD^{commit}"))
    except git.GitCommandError as error:
        if str(error.stderr).strip():  # it says nothing when HEAD just has no commit
            raise
        raise WorkspaceError(
            f"{path}: the repository has no commit yet",
            fix="Commit something first; the work starts from the last commit.",
        ) from None


def _commit(repo: git.Repo, name: str) -> str:
    try:
        return str(
            repo.git.rev_parse("--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        )
    except git.GitCommandError:
        raise WorkspaceError(
            f"{repo.working_tree_dir}: the commit {name} is not there",
            fix="Fetch it; git may have pruned what no branch named.",
        ) from None


def _refuse_branch_in_the_way(repo: git.Repo) -> None:
    """A branch `turbo` keeps git from making `turbo/...`: say it before the work, not after."""
    with contextlib.suppress(git.GitCommandError):
        repo.git.show_ref("--verify", "--quiet", "refs/heads/turbo")
        raise WorkspaceError(
            "a branch named turbo is in the way of branches like turbo/TASK-RUN",
            fix="Rename it: git branch -m turbo NEW-NAME",
        )


def _clear_abandoned(repo: git.Repo, root: Path) -> None:
    """Forget worktrees of ours whose folder was swept. Those of the user are not ours to prune."""
    for line in str(repo.git.worktree("list", "--porcelain")).splitlines():
        path = Path(line.removeprefix("worktree "))
        ours = line.startswith("worktree ") and path.is_relative_to(root)
        if ours and not path.exists():
            _remove_worktree(repo, path)


def _names(output: str) -> tuple[str, ...]:
    """File names of a ``-z`` list. Those that are not UTF-8 come as lone surrogates and go."""
    names = (name for name in output.split("\0") if name)
    return tuple(sorted(x for x in names if not any("\ud800" <= c <= "\udfff" for c in x)))


def _remove_worktree(repo: git.Repo, path: Path) -> None:
    with contextlib.suppress(git.GitCommandError):
        repo.git.worktree("remove", "--force", "--force", str(path))
