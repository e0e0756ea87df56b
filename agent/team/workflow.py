"""From task files to commits: the one place that opens resources.

`run_tasks` opens the backend once and hands each task to `run_task`, which opens the rest. Reading
the two shows what lives and in which order it dies. ``python -m agent.team.workflow`` is
``turbo run``.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import secrets
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.core.backend_manager import Opened, get_backend
from agent.core.config import Settings, cache_dir
from agent.core.errors import TurboError, WorkspaceError
from agent.core.hardware import read_hardware
from agent.core.journal import Journal
from agent.core.prompts import PromptBook
from agent.core.workspace import Workspace
from agent.team.candidates import best_so_far
from agent.team.context import TeamContext, Totals
from agent.team.repo_context import relevant_files, view_repository
from agent.team.result import INTERRUPTED, RunResult
from agent.team.state import TeamState
from agent.team.task_file import Task, check_paths
from agent.team.verification import detect_test_command, split_command

if TYPE_CHECKING:
    from types import ModuleType

_ROLES = ("planner", "coder", "repair", "reviewer")
_TASK_TRAILER = "Turbo-Task"
_RUN_TRAILER = "Turbo-Run"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run does besides the settings."""

    apply: bool = False
    """Fast-forward the current branch to an accepted commit."""


async def run_tasks(
    tasks: Sequence[Task],
    repository: Path,
    settings: Settings,
    journal: Journal,
    options: RunOptions,
) -> list[RunResult]:
    """Run tasks one after the other on one backend; each result is also a ``run_finished`` event.

    A task that cannot be accepted does not stop those after it; an engine that fails does.
    Raises TurboError only for what is wrong before the first task starts.
    """
    for task in tasks:
        check_paths(task, repository)
    results: list[RunResult] = []
    begin = time.monotonic()
    async with AsyncExitStack() as stack:
        # langgraph takes longer to import than a small model takes to load: do both at once
        importing = asyncio.create_task(asyncio.to_thread(_import_graph))
        opened = await stack.enter_async_context(
            get_backend(settings, notice=lambda text: journal.emit("notice", text=text))
        )
        journal.emit(
            "server_ready",
            description=opened.description,
            slots=opened.backend.slots,
            context=opened.backend.context,
            seconds=round(time.monotonic() - begin, 3),
        )
        graph = await importing
        for task in tasks:
            result = await run_task(task, repository, settings, journal, options, opened, graph)
            results.append(result)
            if result.exit_code >= 3:
                break
    return results


async def run_task(
    task: Task,
    repository: Path,
    settings: Settings,
    journal: Journal,
    options: RunOptions,
    opened: Opened,
    graph: ModuleType,
) -> RunResult:
    """Run one task to its end. Failures become a result; bugs and cancellation propagate."""
    begin = time.monotonic()
    totals = Totals()
    run = new_run_name()
    try:
        async with AsyncExitStack() as stack:
            workspace = await stack.enter_async_context(_workspace(repository, run))
            journal.open(workspace.state_dir / "runs" / run / "journal.jsonl")
            stack.callback(journal.close)
            try:
                context = await _prepare(task, settings, journal, opened, workspace, totals)
                state = await _invoke(graph, task, context, run, stack)
                result = await _conclude(task, state, context, run, options)
            except TurboError as error:
                result = RunResult(status="failed", exit_code=error.exit_code, reason=str(error))
            except asyncio.CancelledError:
                stopped = RunResult(status="interrupted", exit_code=INTERRUPTED)
                journal.emit("run_finished", **_measured(stopped, totals, begin).event())
                raise
            result = _measured(result, totals, begin)
            journal.emit("run_finished", **result.event())
            return result
    except TurboError as error:
        result = RunResult(status="failed", exit_code=error.exit_code, reason=str(error))
        journal.emit("run_finished", **result.event())
        return result


async def _prepare(
    task: Task,
    settings: Settings,
    journal: Journal,
    opened: Opened,
    workspace: Workspace,
    totals: Totals,
) -> TeamContext:
    """Everything that the nodes need, and the first event."""
    journal.emit(
        "run_started",
        run=workspace.run,
        task=task.title,
        source=task.source,
        repository=str(workspace.root),
        base=workspace.base,
        backend=opened.backend.name,
        model=opened.backend.model,
    )
    if await workspace.dirty():
        text = f"Uncommitted changes stay as they are; the work starts from {workspace.base[:12]}."
        journal.emit("notice", text=text)
    files = await workspace.files()
    absent = [path for path in task.context if path not in files]
    if absent:
        raise WorkspaceError(
            f"{task.source}: context: {', '.join(absent)} is not committed",
            fix="The work starts from the last commit; commit the file first.",
        )
    book = PromptBook.load()
    view = await view_repository(
        files,
        named=[*task.files, *task.context],
        wanted=relevant_files(
            files,
            prose=task.prose,
            test_command=split_command(task.test, task.source) if task.test else (),
        ),
        budget=settings.turbo_repository_tokens,
        read=workspace.read,
        count_tokens=opened.backend.count_tokens,
    )
    if view.left_out:
        left = ", ".join(view.left_out)
        journal.emit("notice", text=f"Not shown to the model for want of room: {left}")
    return TeamContext(
        backend=opened.backend,
        workspace=workspace,
        prompts=book,
        settings=settings,
        journal=journal,
        repository=view.text,
        shown=view.shown,
        candidates=task.candidates or settings.turbo_candidates,
        test_slots=asyncio.Semaphore(read_hardware().physical_cores),
        totals=totals,
    )


async def _invoke(
    graph: ModuleType, task: Task, context: TeamContext, run: str, stack: AsyncExitStack
) -> TeamState:
    """Run the graph to its end with a checkpoint after every step."""
    command = await _test_command(task, context)
    saver = await stack.enter_async_context(
        graph.checkpoints(context.workspace.state_dir / "checkpoints.sqlite")
    )
    compiled = graph.build_graph(
        context.candidates, dry_run=context.settings.dry_run, checkpointer=saver
    )
    state: TeamState = await compiled.ainvoke(
        {"task": task, "test_command": command, "candidates": []},
        {"configurable": {"thread_id": run}, "recursion_limit": 200},
        context=context,
    )
    return state


async def _test_command(task: Task, context: TeamContext) -> tuple[str, ...] | None:
    if task.test:
        return split_command(task.test, task.source)
    probe = await context.workspace.worktree("c0")
    command = await asyncio.to_thread(detect_test_command, probe)
    if command is None:
        context.journal.emit(
            "notice",
            text="NO TESTS FOUND: nothing verifies the result but the reviewer. "
            "Name a command with test: in the task file or with --test.",
        )
    return command


async def _conclude(
    task: Task, state: TeamState, context: TeamContext, run: str, options: RunOptions
) -> RunResult:
    """Turn the last state into a commit on a branch, or into the reason why there is none."""
    candidates = state.get("candidates", [])
    review = state.get("review")
    failure = state.get("failure", "")
    chosen = best_so_far(candidates)
    result = RunResult(
        status="failed",
        exit_code=1,
        reason=failure,
        plan=state.get("plan"),
        candidates=candidates,
        chosen=chosen,
        review=review,
        fixed_tokens=await _fixed_tokens(context),
    )
    if context.settings.dry_run and not failure:
        return replace(result, status="planned", exit_code=0)
    if failure or review is None or review.verdict != "accept" or chosen is None:
        green = chosen is not None and chosen.status == "green"
        return replace(result, status="rejected" if green else "failed")
    assert chosen.commit is not None  # noqa: S101 - a green candidate has a commit
    branch = f"turbo/{task.slug}-{run}"
    commit = await context.workspace.publish(
        chosen.commit, branch=branch, message=commit_message(task, run)
    )
    context.journal.emit("committed", branch=branch, commit=commit)
    result = replace(result, status="accepted", exit_code=0, branch=branch, commit=commit)
    if options.apply:
        try:
            moved = await context.workspace.fast_forward(commit)
        except WorkspaceError as error:
            return replace(result, exit_code=1, reason=str(error))
        context.journal.emit("notice", text=f"{moved} now stands at {commit[:12]}.")
    return result


def commit_message(task: Task, run: str) -> str:
    """Title, prose, and trailers that name the task and the run."""
    return f"{task.title}\n\n{task.body}\n\n{task_trailer(task)}\n{_RUN_TRAILER}: {run}\n"


def task_trailer(task: Task) -> str:
    """The line by which a done task is recognised: a hash of what was asked."""
    asked = f"{task.title}\0{task.body}\0{task.files}".encode()
    return f"{_TASK_TRAILER}: {hashlib.sha256(asked).hexdigest()[:16]}"


def new_run_name() -> str:
    """Sortable by time, unique, fit for a branch name."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


async def not_done_yet(tasks: Sequence[Task], repository: Path) -> list[Task]:
    """The tasks that no commit on a local branch names."""
    async with _workspace(repository, new_run_name()) as workspace:
        return [
            task for task in tasks if not await workspace.has_commit_mentioning(task_trailer(task))
        ]


@asynccontextmanager
async def _workspace(repository: Path, run: str) -> AsyncIterator[Workspace]:
    workspace = await Workspace.open(repository, run=run, worktrees_root=cache_dir() / "worktrees")
    try:
        yield workspace
    finally:
        await workspace.close()


def _import_graph() -> ModuleType:
    return importlib.import_module("agent.team.graph")


async def _fixed_tokens(context: TeamContext) -> dict[str, int]:
    system = context.prompts.template("system").text
    return {
        role: await context.backend.count_tokens(system + context.prompts.template(role).fixed)
        for role in _ROLES
    }


def _measured(result: RunResult, totals: Totals, begin: float) -> RunResult:
    return replace(
        result,
        usage=totals.usage,
        busy_s=totals.busy_s,
        wall_s=time.monotonic() - begin,
    )


if __name__ == "__main__":
    from agent.cli import main

    sys.exit(main(["run", *sys.argv[1:]]))
