"""Git: where the work happens, and the only module that speaks git.

Candidates live in detached worktrees outside the user's tree. What is accepted becomes one commit
on a branch of its own, written with plumbing commands, so that the user's checked-out files,
index, stash and hooks are never touched. No program that the repository names is run; git_options
has what every command is told. It is longer than most modules: splitting it would give git two
owners.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Self, TypeVar

from agent.core.config import forget_git_variables
from agent.core.errors import EditError, NotText, WorkspaceError
from agent.core.folders import cache_folder, private_folder
from agent.core.git_listings import gitlinks, paths_of_config
from agent.core.git_options import (
    CONVERSIONS,
    ENVIRONMENT,
    FILTER,
    FILTER_NAMES,
    OPTIONS,
    conversions_of,
    filters_off,
    in_portions,
    why_not_converted,
)
from agent.core.shortage import FULL_FIX, is_full, shortage
from agent.core.worktree_folders import (
    clear_abandoned,
    held_worktrees,
    notes_of,
    remove_worktree,
    worktree_path,
)

try:
    import git
except ImportError:  # GitPython looks for the program when it is imported
    raise WorkspaceError("git was not found", fix="Install git 2.28 or newer.") from None

_BRANCH_NAMES = 9
"""Names that are tried for a branch when others have it."""
_BUSY_S = 5.0
"""How long we wait for the index of the user's checkout, which an editor may just refresh."""
_PAUSE_S = 0.05

_SURROGATE = re.compile("[\ud800-\udfff]")

MOST_TEXT = 1_000_000
"""Bytes of the largest file whose text is read: no context of a small model holds more."""

Result = TypeVar("Result")


class Workspace:
    """One run's view of one repository. Use `open`, then `close`."""

    def __init__(
        self,
        here: _Git,
        common: Path,
        *,
        run: str,
        base: str,
        branch: str,
        worktrees: Path,
        owned: ExitStack,
    ) -> None:
        self._here = here
        self._common = common
        self._one_at_a_time = Lock()
        self._checkouts = Lock()
        """Held while a worktree is made. That takes seconds where there are many files, and other
        candidates are not to wait for it with theirs. Taken after the other one by whoever takes
        both."""
        self._worktrees = worktrees
        self._owned = owned
        self._made: dict[str, _Git] = {}
        self._files: tuple[str, ...] | None = None
        self._closed = False
        self.run = run
        self.base = base
        """Commit that the work starts from."""
        self._branch = branch
        """The branch of the user's checkout when the run began; empty for none."""
        self.root = here.folder
        """Top folder of the user's checkout. We only read there."""
        self.state_dir = _state_folder(common)
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
            found, common = _repository(path)
            here = found.without_filters()
            base = _last_commit(here, path) if base is None else _commit(here, base)
            branch = _branch_of(here)
            _refuse_branch_in_the_way(here)
            root = (worktrees_root or cache_folder("worktrees")).resolve()
            root.mkdir(parents=True, exist_ok=True)
            worktrees = stack.enter_context(private_folder(root))
            with held_worktrees(_state_folder(common)):
                clear_abandoned(common, root)
            return cls(
                *(here, common),
                run=run,
                base=base,
                branch=branch,
                worktrees=worktrees,
                owned=stack.pop_all(),
            )

    async def close(self) -> None:
        """Remove every worktree of this run."""

        def clear() -> None:
            # A cancelled `worktree` may still wait for the lock; it must not make one after this.
            self._closed = True
            with self._checkouts:
                for name in list(self._made):
                    self._remove(name)

        await self._call(clear)
        await asyncio.to_thread(self._owned.close)

    async def dirty(self) -> bool:
        """True when tracked files of the user's checkout differ from its last commit.

        A file that git keeps through a filter counts only when its change is staged: without the
        filter, which we do not run, nobody can tell what else it is."""

        def look() -> bool:
            options = ("--untracked-files=no", "--no-renames", "--ignore-submodules=dirty")
            said = self._here("status", "--porcelain=v1", "-z", *options).split("\0")
            changed = [entry for entry in said if entry]
            files = [entry[3:] for entry in changed if entry.startswith(" M ")]
            if len(files) < len(changed):
                return True
            return len(_converted(self._here, files, FILTER)) < len(files)

        return await self._call(look)

    async def untracked(self) -> tuple[str, ...]:
        """Files of the user's checkout that git neither tracks nor ignores, sorted."""
        return _names(await self._run("ls-files", "--others", "--exclude-standard", "-z"))

    async def ignored(self) -> tuple[str, ...]:
        """Tracked files that git would ignore were they new, sorted."""
        words = ("--cached", "--ignored", "--exclude-standard", "-z")
        return _names(await self._run("ls-files", *words))

    async def files(self) -> tuple[str, ...]:
        """All tracked files of the base commit, sorted, with forward slashes.

        Names that are not UTF-8 are left out: no prompt could show them.
        """
        if self._files is None:
            self._files = _names(await self._run("ls-tree", "-r", "-z", "--name-only", self.base))
        return self._files

    async def submodules(self) -> tuple[str, ...]:
        """Paths at which the base commit holds another repository, sorted."""
        return gitlinks(await self._run("ls-tree", "-r", "-z", self.base))

    async def programs_of_git(self) -> tuple[str, ...]:
        """Paths of the repository from which git's own configuration takes settings or programs."""
        told = await self._run("config", "--list", "--show-origin", "--includes", "-z")
        return paths_of_config(told, self.root)

    async def read(self, path: str) -> str | None:
        """Text of one file at the base; None when it is absent.

        Raises NotText for what is no regular file of UTF-8 text, or larger than `MOST_TEXT`.
        """

        def load() -> bytes | None:
            options = ("--full-tree", "--long", "-z")
            for entry in self._here("ls-tree", *options, self.base, "--", path).split("\0"):
                about, _, name = entry.partition("\t")
                if name == path:
                    mode, _, blob, size = about.split()
                    if not size.isdecimal():
                        raise WorkspaceError(
                            f"git cannot read the object {blob} of {path}",
                            fix="`git fsck` says what is damaged; fetch it again.",
                        )
                    if mode not in ("100644", "100755"):
                        raise NotText(path, "is no regular file")
                    if int(size) > MOST_TEXT:
                        raise NotText(path, f"is larger than {MOST_TEXT} bytes")
                    return self._here.data("cat-file", "blob", blob)
            return None

        data = await self._call(load)
        if data is None:
            return None
        if b"\0" in data[:8000]:
            raise NotText(path, "is binary")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise NotText(path, "is not UTF-8") from None

    async def why_filtered(self, paths: Sequence[str]) -> str | None:
        """Why one of `paths` cannot be written because git keeps it through a filter, as git-lfs
        and git-crypt do, or in another encoding; None when all can. As the user's checkout has it:
        `snapshot` is strict."""
        converted = await self._call(lambda: _converted(self._here, paths))
        return why_not_converted(converted) if converted else None

    async def worktree(self, name: str, *, at: str | None = None) -> Path:
        """A worktree of that name, checked out at `at` (default: the base), without leftovers."""
        target = at or self.base

        def make() -> Path | None:
            self._refuse_when_closed()
            return None if name in self._made else self._add(name, target).folder

        def clean() -> Path:
            self._refuse_when_closed()
            here = self._made[name]
            return (here if self._emptied(here, target) else self._add(name, target)).folder

        made = await self._call(make, self._checkouts)
        return made if made is not None else await self._call(clean)

    def _add(self, name: str, target: str) -> _Git:
        """A new worktree, in place of the one of that name."""
        self._remove(name)
        path = worktree_path(self._worktrees, name)
        # Where git looks does not depend on the file .git of the worktree, which is in the hands of
        # the tests: they may lead it to the user's checkout, or remove it.
        pinned = {"GIT_DIR": str(notes_of(self._common, path)), "GIT_WORK_TREE": str(path)}
        here = self._made[name] = _Git(path, environment={**ENVIRONMENT, **pinned})
        with held_worktrees(self.state_dir):
            options = ("--detach", "--no-checkout", "--quiet")
            self._here("worktree", "add", *options, str(path), target)
        # What the configuration includes may depend on the place: ask where the files are written.
        here = self._made[name] = here.without_filters()
        here("reset", "--hard", "--quiet", target)
        return here

    def _emptied(self, here: _Git, target: str) -> bool:
        """Whether a worktree that was used could be put back to `target`."""
        link = here.folder / ".git"
        try:
            if link.is_symlink() or link.read_text() != f"gitdir: {here.environment['GIT_DIR']}\n":
                return False
            here("reset", "--hard", "--quiet", target)
            here("clean", "-ffdxq")
        except (OSError, UnicodeDecodeError, GitError):  # of what the tests made of it
            return False
        return True

    def _remove(self, name: str) -> None:
        here = self._made.pop(name, None)
        if here is not None:
            with held_worktrees(self.state_dir):
                remove_worktree(self._common, here.folder)

    async def snapshot(self, worktree: Path, paths: Sequence[str], message: str) -> str:
        """Commit `paths` of a worktree on top of the base without moving any branch; its id.

        Raises EditError when git keeps one of them through a filter or in another encoding, by the
        attributes of the base or of the worktree: what we would commit is not what was tested.
        """

        def write() -> str:
            (here,) = (each for each in self._made.values() if each.folder == worktree)
            # --reset keeps what git knows of unchanged files: else the next `reset --hard` would
            # write all of them again
            here("read-tree", "--reset", self.base)
            at_base = _converted(here, paths, CONVERSIONS, "--cached")
            if converted := at_base or _converted(here, paths):
                raise EditError(why_not_converted(converted))
            here("update-index", "--add", "--replace", "--", *paths)
            commit = here("commit-tree", here("write-tree"), "-p", self.base, "-m", message)
            # no branch names it: without this, `git gc --prune=now` of the user would remove it
            here("update-ref", "--no-deref", "HEAD", commit)
            return commit

        return await self._call(write)

    async def diff(self, commit: str) -> str:
        """Unified diff from the base to `commit`."""
        options = ("-p", "-M", "--no-color", "--no-ext-diff", "--no-textconv")
        text = await self._run("diff-tree", *options, self.base, commit)
        # git's output is bytes; what is no UTF-8 comes as lone surrogates, which nothing can send
        return text.encode("utf-8", "replace").decode("utf-8")

    async def publish(self, commit: str, *, branch: str, message: str) -> tuple[str, str]:
        """One commit with the tree of `commit` and `message` on a new `branch`: the branch's name,
        which has a number at its end where others have that one, and the commit's id.

        Raises GitError when the branch cannot be made.
        """

        def publish() -> tuple[str, str]:
            tree = self._here("rev-parse", f"{commit}^{{tree}}")
            final = self._here("commit-tree", tree, "-p", self.base, "-m", message)
            none = "0" * len(final)
            names = [branch, *(f"{branch}-{number}" for number in range(2, _BRANCH_NAMES + 1))]
            for name in names:
                try:
                    self._here("update-ref", f"refs/heads/{name}", final, none)
                except GitError:
                    if not self._is_taken(name):
                        raise
                else:
                    return name, final
            raise WorkspaceError(
                f"the branches {branch} to {names[-1]} are there already",
                fix="Remove those that you do not need: git branch -D NAME",
            )

        return await self._call(publish)

    def _is_taken(self, branch: str) -> bool:
        """Whether a branch is there, or a killed git has left it locked."""
        if (self._common / f"refs/heads/{branch}.lock").exists():
            return True
        return self._here.succeeds("show-ref", "--verify", "--quiet", f"refs/heads/{branch}")

    async def has_commit(self, commit: str) -> bool:
        """True when git still has that commit, which no branch need name, and its files."""
        return await self._call(lambda: self._here.succeeds("cat-file", "-e", f"{commit}^{{tree}}"))

    async def published(self, branch: str, trailer: str) -> tuple[str, str] | None:
        """Name and last commit of the local branch `branch`, or of one that `publish` made in its
        stead, that has `trailer` in the message of a commit since the base; None when none has."""
        patterns = (f"refs/heads/{branch}", f"refs/heads/{branch}-*")
        listed = await self._run("for-each-ref", "--format=%(refname:lstrip=2)", *patterns)
        for name in listed.splitlines():
            since = f"{self.base}..refs/heads/{name}"
            if commit := await self._run("rev-list", "-1", "-F", f"--grep={trailer}", since):
                return name, commit
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

        Raises WorkspaceError, with nothing changed, when the checkout has changes or a file where
        the commit adds one, is on no branch or another one than when the run began, or has moved
        since, or when files must go through a filter.
        """
        by_hand = f"Merge it yourself: git merge {commit[:12]}"

        def refused(reason: str) -> WorkspaceError:
            return WorkspaceError(f"not applied: {reason}", fix=by_hand)

        if await self.dirty():
            raise refused("the checkout has uncommitted changes")
        branch = await self._call(lambda: _branch_of(self._here))
        if not branch:
            raise refused("no branch is checked out")
        if branch != self._branch:
            raise refused(f"{branch} is checked out now, which the run did not begin on")
        if await self._run("rev-parse", "HEAD") != self.base:
            raise refused(f"{branch} has moved during the run")
        listed = await self._run("diff-tree", "-r", "-z", "--name-only", self.base, commit)
        changed = [path for path in listed.split("\0") if path]
        if any(path.rpartition("/")[2] == ".gitattributes" for path in changed):
            raise refused("it changes attributes of files")
        if reason := await self.why_filtered(changed):
            raise refused(reason)
        options = ("-r", "-z", "--name-only", "--no-renames", "--diff-filter=A")
        added = (await self._run("diff-tree", *options, self.base, commit)).split("\0")
        for path in filter(None, added):  # git would write over one that it ignores
            if (self.root / path).exists() or (self.root / path).is_symlink():
                raise refused(f"{path} of yours is in the way, which git does not track")
        try:
            await self._call(lambda: self._merge(commit))
        except GitError as error:
            raise refused(error.message) from None
        return branch

    def _merge(self, commit: str) -> None:
        give_up_at = time.monotonic() + _BUSY_S
        while True:
            try:
                self._here("merge", "--ff-only", "--no-overwrite-ignore", "--quiet", commit)
            except GitError as error:
                self._undo_half_a_merge(commit)
                # git has no exit code of its own for it
                if "index.lock" not in error.message or time.monotonic() > give_up_at:
                    raise
                time.sleep(_PAUSE_S)
            else:
                return

    def _undo_half_a_merge(self, commit: str) -> None:
        """Put the files back where git has written them and could not move the branch then."""
        here = self._here
        if here("rev-parse", "HEAD") != self.base or not here.succeeds(
            "diff-index", "--cached", "--quiet", commit
        ):
            return
        here("read-tree", "-m", "-u", commit, self.base)

    async def mentioned(self, word: str) -> frozenset[str]:
        """What stands behind `word`, to the end of the line, in the messages of the commits on all
        local branches."""
        text = await self._run("rev-list", "--branches", "--format=%B", "-F", f"--grep={word}")
        found = (line.partition(word) for line in text.splitlines())
        return frozenset(rest.strip() for _, here, rest in found if here)

    async def _run(self, command: str, *arguments: str) -> str:
        return await self._call(lambda: self._here(command, *arguments))

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise WorkspaceError("the run is over")

    async def _call(self, work: Callable[[], Result], lock: Lock | None = None) -> Result:
        """Do `work` in a thread, one at a time with that `lock`, and map what git says when it
        fails."""

        def locked() -> Result:
            with lock or self._one_at_a_time:
                return work()

        with _mapped(self._common, self._worktrees):
            return await asyncio.to_thread(locked)


class GitError(WorkspaceError):
    """A git command failed; the message is git's own."""

    exit_code = 1

    def __init__(self, command: str, said: str, status: int = 128) -> None:
        self.said = said.strip().removeprefix("stderr:").strip().strip("'")
        self.status = status
        super().__init__(f"git {command} failed: {self.said or 'it said nothing'}")


@dataclass(frozen=True)
class _Git:
    """The git program, as it is started in one folder."""

    folder: Path
    options: tuple[str, ...] = OPTIONS
    environment: Mapping[str, str] = field(default_factory=lambda: ENVIRONMENT)

    def __call__(self, command: str, *arguments: str) -> str:
        """What a command says, without the last end of a line. Raises GitError."""
        return os.fsdecode(self.data(command, *arguments).removesuffix(b"\n"))

    def data(self, command: str, *arguments: str) -> bytes:
        """The bytes that a command writes. Raises GitError."""
        options = [word for option in self.options for word in ("-c", option)]
        # GitPython would start it in the folder of this process where it may not enter `folder`.
        place = ("-C", str(self.folder))
        program = git.Git(str(self.folder))
        try:
            return program.execute(
                [program.GIT_PYTHON_GIT_EXECUTABLE, *place, *options, command, *arguments],
                env=dict(self.environment),
                stdout_as_string=False,
                strip_newline_in_stdout=False,
            )
        except git.GitCommandNotFound:
            raise WorkspaceError("git cannot be started", fix="Is it on your PATH?") from None
        except git.GitCommandError as error:
            status = error.status if isinstance(error.status, int) else 128
            raise GitError(command, str(error.stderr), status) from None

    def succeeds(self, command: str, *arguments: str) -> bool:
        """Whether a command that only asks for something has the exit code 0."""
        try:
            self(command, *arguments)
        except GitError:
            return False
        return True

    def without_filters(self) -> _Git:
        """The same, told to run no filter of what is configured for its folder."""
        try:
            listed = self(*FILTER_NAMES)
        except GitError as error:
            if error.status != 1:
                raise
            return self
        try:
            return replace(self, options=(*OPTIONS, *filters_off(listed)))
        except ValueError as error:
            raise WorkspaceError(
                f"the filter {str(error)!r} of your git configuration cannot be turned off",
                fix="Give it a name without = in it: git config --rename-section",
            ) from None


def locate(path: Path) -> Path:
    """The top folder of the checkout that holds `path`. Raises WorkspaceError as `open` does."""
    with _mapped():
        return _repository(path)[0].folder


def state_folder(path: Path) -> Path:
    """Where the repository of the checkout at `path` keeps runs and checkpoints. Raises
    WorkspaceError as `open` does."""
    with _mapped():
        return _state_folder(_repository(path)[1])


def is_tracked(path: Path) -> bool:
    """True when the repository around `path` tracks it, so that whoever clones it gets it too;
    also wherever there is something of git and it does not let us see that."""
    path = path.parent.resolve() / path.name
    if not any((above / ".git").exists() or _looks_bare(above) for above in path.parents):
        return False
    try:
        with _mapped():
            _repository(path.parent)[0]("ls-files", "--error-unmatch", "--", str(path))
    except GitError as error:
        return error.status != 1
    except WorkspaceError:  # another owner, a version of its own, a bare repository in a clone
        return True
    return True


def _looks_bare(folder: Path) -> bool:
    return all((folder / name).exists() for name in ("HEAD", "objects", "refs"))


def create_repository(folder: Path, *, message: str) -> None:
    """Make `folder` a git repository with one commit of everything in it."""
    forget_git_variables()
    with _mapped():
        here = _Git(folder)
        here("init", "--quiet", "--initial-branch=main")
        here = here.without_filters()
        here("add", "--all")
        here("commit", "--quiet", "--no-verify", "-m", message)


def _state_folder(common: Path) -> Path:
    state = common / ".turbo"
    for path in (state, state / "runs"):
        if path.is_symlink():
            raise WorkspaceError(
                f"{path} is a symbolic link, and what it leads to is not ours to change",
                fix="Remove the link.",
            )
    return state


def _branch_of(here: _Git) -> str:
    """The branch that is checked out; empty when none is."""
    try:
        return here("symbolic-ref", "--short", "--quiet", "HEAD")
    except GitError:
        return ""


@contextlib.contextmanager
def _mapped(*folders: str | os.PathLike[str]) -> Iterator[None]:
    """The one seam where failures of git and of the disk become errors of ours. `folders` lie on
    the disks that git writes to: it has several words for a full one, or none."""
    try:
        yield
    except GitError as failure:
        if any(map(is_full, folders or ".")):
            raise WorkspaceError(failure.message, fix=FULL_FIX) from None
        raise
    except OSError as error:
        if known := shortage(error, Path.cwd()):
            raise known from None
        place = f" {error.filename}" if error.filename else ""
        raise WorkspaceError(
            f"cannot write{place}: {error.strerror}", fix="Make room or give the rights for it."
        ) from None


def _repository(path: Path) -> tuple[_Git, Path]:
    """git in the top folder of the checkout that holds `path`, and its own folder, which all
    worktrees of the repository share. Raises WorkspaceError."""
    forget_git_variables()
    here = _Git(path.resolve())
    if not path.is_dir():
        raise _no_repository(path)
    try:
        said = here("rev-parse", "--git-common-dir", "--show-toplevel")
    except GitError as error:
        raise _unusable(here, error) from None
    common, _, top = said.partition("\n")
    return _Git(Path(top)), (path / common).resolve()


def _no_repository(path: Path) -> WorkspaceError:
    return WorkspaceError(
        f"{path}: not a git repository",
        fix="Run it inside a repository, name one with --repo, or type: git init",
    )


def _unusable(here: _Git, error: GitError) -> WorkspaceError:
    """Why there is no checkout, by what git said; it has one exit code for everything."""
    path = here.folder
    if error.said.startswith("fatal: not a git repository ("):
        return _no_repository(path)
    if "safe.directory" in error.said:
        return WorkspaceError(
            f"{path}: the repository belongs to another user, so git does not trust it",
            fix=f"If you do: git config --global --add safe.directory {path.resolve()}",
        )
    if here.succeeds("rev-parse", "--is-bare-repository"):
        what = "a bare repository" if here("rev-parse", "--is-bare-repository") == "true" else ""
        return WorkspaceError(
            f"{path}: {what or 'the inside of .git'} has no files to work on",
            fix="Clone it and run in the clone." if what else "Run it in the checkout.",
        )
    return WorkspaceError(
        f"{path}: git cannot use the repository: {error.said}",
        fix="Put right what git says; then git status works there, too.",
    )


def _last_commit(here: _Git, path: Path) -> str:
    try:
        return here("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    except GitError as error:
        if error.said:  # it says nothing when HEAD just has no commit
            raise
        raise WorkspaceError(
            f"{path}: the repository has no commit yet",
            fix="Commit something first; the work starts from the last commit.",
        ) from None


def _commit(here: _Git, name: str) -> str:
    try:
        return here("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except GitError:
        raise WorkspaceError(
            f"{here.folder}: the commit {name} is not there",
            fix="Fetch it; git may have pruned what no branch named.",
        ) from None


def _refuse_branch_in_the_way(here: _Git) -> None:
    """A branch `turbo` keeps git from making `turbo/...`: say it before the work, not after."""
    if here.succeeds("show-ref", "--verify", "--quiet", "refs/heads/turbo"):
        raise WorkspaceError(
            "a branch named turbo is in the way of branches like turbo/TASK-RUN",
            fix="Rename it: git branch -m turbo NEW-NAME",
        )


def _converted(
    here: _Git, paths: Sequence[str], attributes: Sequence[str] = CONVERSIONS, *options: str
) -> dict[str, tuple[str, str]]:
    """Those of `paths` that git keeps as another text because of `attributes`, and why."""
    found: dict[str, tuple[str, str]] = {}
    for some in in_portions(paths):
        found |= conversions_of(here("check-attr", "-z", *options, *attributes, "--", *some))
    return found


def _names(output: str) -> tuple[str, ...]:
    """File names of a ``-z`` list. Those that are not UTF-8 come as lone surrogates and go."""
    return tuple(
        sorted(name for name in output.split("\0") if name and not _SURROGATE.search(name))
    )
