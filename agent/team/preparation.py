"""Before the graph runs: is every task fit to start, and what do its prompts show?"""

from __future__ import annotations

import asyncio
import shlex
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from agent.core.backend_manager import Backend
from agent.core.config import Settings
from agent.core.errors import NotText, TaskFileError
from agent.core.hardware import read_hardware
from agent.core.journal import Journal
from agent.core.prompts import PromptBook
from agent.core.repository_path import why_not_beside
from agent.core.sandbox import Sandbox
from agent.core.workspace import Workspace
from agent.team.context import TeamContext, Totals
from agent.team.memory import Memory
from agent.team.repo_context import relevant_files, view_repository
from agent.team.secret_files import FileReader
from agent.team.task_file import Task, check_paths
from agent.team.verification import detect_test_command, split_command

_ROLES = ("planner", "coder", "repair", "reviewer")
_COMMIT_FIRST = (
    "The work starts from the last commit; commit it first. "
    "Tools of .venv and node_modules need no path."
)
_OWN_FILE = "Name a file of this repository, spelled as git has it."
_BY_HAND = "Change it yourself; the task may change the other files."
_NOT_SHOWN_FIX = (
    "Prompts show no such file: take it out of the task. If it is what stands in it and that is no "
    "secret, write `pragma: allowlist secret` into a comment on that line and commit it; if it is "
    "its name, give it another."
)


async def check_tasks(tasks: Sequence[Task], workspace: Workspace, journal: Journal) -> None:
    """Refuse tasks that cannot work at the base commit, and say what is not part of the work.

    Raises TaskFileError. Nothing has been started or changed by then.
    """
    committed = await workspace.files()
    untracked = await workspace.untracked()
    named = any(task.files for task in tasks)
    submodules = await workspace.submodules() if named else ()
    ignored = await workspace.ignored()
    for task in tasks:
        check_paths(task, workspace.root)
        for number, path in enumerate(task.files):
            beside = {*committed, *task.files[:number]}
            if reason := why_not_beside(path, beside, submodules):
                raise _refused(task, "files", path, f"{path!r} {reason}", _OWN_FILE)
            if reason := await workspace.why_filtered([path]):
                raise _refused(task, "files", path, reason, _BY_HAND)
        for path in task.context:
            if not _is_file(committed, path):
                raise _refused(task, "context", path)
        await _refuse_secret_files(task, workspace, ignored)
        for path in _missing_for_tests(task, workspace.root, committed, untracked):
            raise _refused(task, "test", path)
    base = workspace.base[:12]
    if await workspace.dirty():
        text = f"Uncommitted changes stay as they are; the work starts from {base}."
        journal.emit("notice", text=text)
    if others := _without_sources(untracked, tasks, workspace.root):
        what = "1 untracked file is" if others == 1 else f"{others} untracked files are"
        journal.emit("notice", text=f"{what} not part of the work (it starts from commit {base}).")


async def prepare(
    task: Task,
    settings: Settings,
    journal: Journal,
    backend: Backend,
    workspace: Workspace,
    totals: Totals,
    sandbox: Sandbox,
    memory: Memory,
) -> TeamContext:
    """Everything that the nodes need."""
    reader = FileReader(workspace.read, await workspace.ignored())
    files = reader.shown(await workspace.files())
    view = await view_repository(
        files,
        named=[*task.files, *task.context],
        wanted=relevant_files(files, prose=task.prose, test_command=own_test_command(task) or ()),
        budget=settings.turbo_repository_tokens,
        read=reader.read,
        count_tokens=backend.count_tokens,
    )
    if view.left_out:
        left = ", ".join(view.left_out)
        journal.emit("notice", text=f"Not shown to the model for want of room: {left}")
    if line := reader.left_out():
        journal.emit("notice", text=line)
    return TeamContext(
        backend=backend,
        workspace=workspace,
        prompts=PromptBook.load(),
        settings=settings,
        journal=journal,
        reader=reader,
        repository=view.text,
        shown=view.shown,
        candidates=task.candidates or settings.turbo_candidates,
        test_slots=asyncio.Semaphore(read_hardware().physical_cores),
        totals=totals,
        sandbox=sandbox,
        memory=memory,
    )


def own_test_command(task: Task) -> tuple[str, ...] | None:
    """The test command that the task names, or None. Raises TaskFileError."""
    if task.test is None:
        return None
    return split_command(task.test, task.source, line=dict(task.lines).get("test", 0))


async def find_test_command(task: Task, context: TeamContext) -> tuple[str, ...] | None:
    """The task's test command, else that of the repository, else None."""
    if own := own_test_command(task):
        return own
    probe = await context.workspace.worktree("c0")
    command = await asyncio.to_thread(detect_test_command, probe)
    if command is None:
        context.journal.emit(
            "notice",
            text="NO TESTS FOUND: nothing verifies the result but the reviewer. "
            "Name a command with test: in the task file or with --test.",
        )
    return command


async def fixed_tokens(context: TeamContext) -> dict[str, int]:
    """Tokens of each role's fixed text, the system prompt included. Raises a BackendError."""
    system = context.prompts.template("system").text
    return {
        role: await context.backend.count_tokens(system + context.prompts.template(role).fixed)
        for role in _ROLES
    }


def _without_sources(untracked: Sequence[str], tasks: Sequence[Task], root: Path) -> int:
    """How many of the untracked files are no task files of this session."""
    sources = [Path(task.source) for task in tasks]
    own = {path for source in sources for path in (source.absolute(), source.resolve())}
    tops = {root, root.resolve()}
    below = ((path, top) for path in own for top in tops if path.is_relative_to(top))
    inside = {path.relative_to(top).as_posix() for path, top in below}
    return len(untracked) - sum(_is_file(untracked, path) for path in inside)


def _missing_for_tests(
    task: Task, root: Path, committed: Sequence[str], untracked: Sequence[str]
) -> list[str]:
    """Paths of the task's test command that the checkout has and a worktree will not have.

    Ignored folders do not count (``make build`` names none), nor do ignored files in what needs a
    shell: such a command often makes them itself.
    """
    command = own_test_command(task)
    words = shlex.split(task.test or "")
    missing = []
    for word in words:
        path = PurePosixPath(word.split("::")[0])  # pytest: FILE::TEST
        if not path.parts or path.is_absolute() or ".." in path.parts:
            continue
        ignored = command == tuple(words) and (root / path).is_file()
        if not _has(committed, path) and (ignored or _has(untracked, path)):
            missing.append(str(path))
    return missing


async def _refuse_secret_files(task: Task, workspace: Workspace, ignored: Sequence[str]) -> None:
    """Raises TaskFileError for a file that no prompt may show."""
    reader = FileReader(workspace.read, ignored)
    for key, paths in (("files", task.files), ("context", task.context)):
        for path in paths:
            try:
                await reader.read(path)
            except NotText as error:
                if path in reader.left_out_paths:
                    raise TaskFileError(
                        task.source,
                        error.message,
                        line=dict(task.lines).get(f"{key} {path}", 0),
                        key=key,
                        fix=_NOT_SHOWN_FIX,
                    ) from None


def _has(names: Sequence[str], path: PurePosixPath) -> bool:
    """True when `path` is one of the sorted `names` or a folder above one."""
    below = f"{path}/"
    at = bisect_left(names, below)
    return _is_file(names, str(path)) or (at < len(names) and names[at].startswith(below))


def _is_file(names: Sequence[str], path: str) -> bool:
    """True when `path` is one of the sorted `names`."""
    at = bisect_left(names, path)
    return at < len(names) and names[at] == path


def _refused(
    task: Task, key: str, path: str, reason: str = "", fix: str = _COMMIT_FIRST
) -> TaskFileError:
    line = dict(task.lines).get(key if key == "test" else f"{key} {path}", 0)
    reason = reason or f"{path} is not committed"
    return TaskFileError(task.source, reason, line=line, key=key, fix=fix)
