"""From task files to commits: the one place that opens resources.

`run_tasks` checks all tasks, then hands one after the other to `run_task`. The first of them opens
the backend, which lives as long as the session; everything else lives as long as its run. Reading
the two shows what lives and in which order it dies. ``python -m agent.team.workflow`` is
``turbo run``.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.core.backend_manager import Opened, get_backend
from agent.core.config import Settings
from agent.core.errors import TurboError
from agent.core.journal import Journal
from agent.core.remote_hosts import Sent, told_since
from agent.core.sandbox import Sandbox
from agent.core.sandbox_choice import choose_sandbox
from agent.core.shortage import shortage
from agent.core.workspace import Workspace
from agent.team.conclusion import Record, conclude, conclude_published, done_tasks
from agent.team.context import BaseTests
from agent.team.load import watch_load
from agent.team.manifest import Manifest
from agent.team.memory import Memory
from agent.team.planner import plan_ahead
from agent.team.preparation import check_tasks, find_test_command, prepare
from agent.team.result import INTERRUPTED, Ledger, RunResult
from agent.team.runs import (
    ANSWERS,
    CHECKPOINTS,
    JOURNAL,
    KEPT_RUNS,
    held_run,
    new_run_name,
    open_workspace,
    tidy_up,
)
from agent.team.state import Verified
from agent.team.task_file import Task

if TYPE_CHECKING:
    from types import ModuleType


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run does besides the settings."""

    apply: bool = False
    """Fast-forward the current branch to an accepted commit."""
    skip_done: bool = False
    """Leave out the tasks that a commit on a local branch names."""
    base: str | None = None
    """The commit to start from; the last one when None."""
    publish: bool = True
    """Put an accepted commit on a branch of its own."""
    replay_of: str = ""
    """The run that is run again, if any."""
    resume: str = ""
    """The run that goes on, if any; `base` is its own then."""
    lasting: bool = True
    """The repository stays, so that a run that is killed can go on."""


class Engine:
    """The backend and the graph of a session: opened when first asked for, then the same."""

    def __init__(self, settings: Settings, journal: Journal, stack: AsyncExitStack) -> None:
        self._settings = settings
        self._journal = journal
        self._stack = stack
        self._opened: Opened | None = None
        self._importing: asyncio.Task[ModuleType] | None = None
        self.restarts = 0
        """Times that the server died or hung and was started again."""

    async def ready(self) -> Opened:
        """The backend that serves. Raises an EngineError."""
        begin = time.monotonic()
        again = self._opened is not None
        opened = self._opened = self._opened or await self._open()
        if opened.sent is not None and not again:
            text = f"Prompts leave this machine: they go to {opened.sent.host}."
            self._journal.emit("notice", text=text)
        self._journal.emit(
            "server_ready",
            description=opened.description,
            backend=opened.backend.name,
            model=opened.backend.model,
            slots=opened.backend.slots,
            context=opened.backend.context,
            seconds=0.0 if again else round(time.monotonic() - begin, 3),
        )
        return opened

    @property
    def has_served(self) -> bool:
        """Whether there ever was a backend, so that a run can have paid for answers."""
        return self._opened is not None

    @property
    def sent(self) -> Sent | None:
        """What has gone to another machine so far; None when nothing goes there."""
        sent = self._opened.sent if self._opened else None
        return replace(sent) if sent else None

    @property
    def has_graph(self) -> bool:
        """Whether `graph` returns at once."""
        return self._importing is not None and self._importing.done()

    async def graph(self) -> ModuleType:
        """The module of the graph. It takes longer to import than a small model takes to load:
        call this when the server has something to do meanwhile."""
        return await self._import_graph()

    def _import_graph(self) -> asyncio.Task[ModuleType]:
        if self._importing is None:
            importing = asyncio.to_thread(importlib.import_module, "agent.team.graph")
            self._importing = asyncio.create_task(importing)
        return self._importing

    async def _open(self) -> Opened:
        return await self._stack.enter_async_context(
            get_backend(
                self._settings,
                notice=lambda text: self._journal.emit("notice", text=text),
                on_launch=self._import_graph,
                on_restart=self._on_restart,
            )
        )

    def _on_restart(self, reason: str) -> None:
        self.restarts += 1
        self._journal.emit("server_restarted", reason=reason)


@dataclass(frozen=True, kw_only=True)
class Session:
    """What all runs of one invocation share."""

    repository: Path
    settings: Settings
    journal: Journal
    options: RunOptions
    ledger: Ledger
    engine: Engine
    sandbox: Sandbox
    base_tests: dict[tuple[str, ...], Verified] = field(default_factory=dict)
    """What the tests said of the commits that its runs began with, by commit and command."""


async def run_tasks(
    tasks: Sequence[Task],
    repository: Path,
    settings: Settings,
    journal: Journal,
    options: RunOptions,
    ledger: Ledger,
) -> None:
    """Run tasks one after the other on one backend; results go to `ledger` as they come.

    A task that cannot be accepted does not stop those after it; an engine that fails does.
    Raises TurboError only for what is wrong before the first task starts.
    """
    async with open_workspace(repository, new_run_name(), base=options.base) as workspace:
        done = await done_tasks(tasks, workspace)
        if options.skip_done:
            tasks = [task for task in tasks if task not in done]
        elif not (options.replay_of or options.resume):
            for task in done:
                text = f"{task.source}: a commit on a local branch did this already; it runs again."
                journal.emit("notice", text=text)
        await check_tasks(tasks, workspace, journal)
    if not tasks:
        journal.emit("notice", text="Every task in tasks/ is done already.")
    ledger.waiting = [task.title for task in tasks]
    sandbox, warning = await choose_sandbox(settings)
    if tasks and warning:
        journal.emit("notice", text=warning)
    async with AsyncExitStack() as stack:
        session = Session(
            repository=repository,
            settings=settings,
            journal=journal,
            options=options,
            ledger=ledger,
            engine=Engine(settings, journal, stack),
            sandbox=sandbox,
        )
        for task in tasks:
            result = await run_task(task, session)
            if result.exit_code >= 3:
                break


async def run_task(task: Task, session: Session) -> RunResult:
    """Run one task to its end. Failures become a result; bugs and cancellation propagate."""
    options, journal, settings = session.options, session.journal, session.settings
    run = options.resume or new_run_name()
    record = Record(RunResult(status="failed", exit_code=1, task=task.title, run=run))
    restarts_before, sent_before = session.engine.restarts, session.engine.sent
    over = failed = False
    async with AsyncExitStack() as stack:
        try:
            workspace = await stack.enter_async_context(
                open_workspace(session.repository, run, base=options.base)
            )
            folder = workspace.state_dir / "runs" / run
            stack.enter_context(held_run(folder))
            journal.open(folder / JOURNAL)
            stack.callback(journal.close)
            manifest = Manifest.of(
                task,
                settings,
                workspace,
                replay_of=options.replay_of,
                apply=options.apply,
                resumable=options.lasting,
            )
            manifest.write(folder, journal.redactor)
            record.begun(resumed=bool(options.resume), resumable=manifest.resumable)
            journal.emit("run_started", **_start_of(task, workspace, options))
            if not options.resume or not await conclude_published(
                task, workspace, journal, record, apply=options.apply
            ):
                await _carry_out(task, session, workspace, manifest, record, stack)
            over = True
        except TurboError as error:
            failed = True
            record.end("failed", error.exit_code, str(error))
        except asyncio.CancelledError:
            record.end("interrupted", INTERRUPTED)
            raise
        except Exception as bug:
            lacking = shortage(bug, session.repository)
            if lacking is None:
                record.end("failed", 1, f"{type(bug).__name__}: {bug}")
                raise
            record.end("failed", lacking.exit_code, str(lacking))
        finally:
            restarts = session.engine.restarts - restarts_before
            # what failed before there was a server has nothing to go on with: it is just run again
            worth_it = bool(options.resume) or session.engine.has_served or not failed
            resumable = record.result.resumable and worth_it and not over
            sent = told_since(sent_before, session.engine.sent)
            result = replace(record.measured(), restarts=restarts, resumable=resumable, sent=sent)
            journal.emit("run_finished", **result.event())
            session.ledger.enter(result)
        if over:  # only now: a run that is killed before its end was told needs what is forgotten
            kept = max(KEPT_RUNS, len(session.ledger.results))
            await asyncio.to_thread(tidy_up, folder, kept=kept)
    return result


async def _carry_out(
    task: Task,
    session: Session,
    workspace: Workspace,
    manifest: Manifest,
    record: Record,
    stack: AsyncExitStack,
) -> None:
    """From a server that is ready to the conclusion. What is opened lives as long as the run."""
    options, journal = session.options, session.journal
    folder = workspace.state_dir / "runs" / workspace.run
    opened = await session.engine.ready()
    manifest.on(opened).write(folder, journal.redactor)
    load = await stack.enter_async_context(watch_load(opened.backend, journal))
    context = await prepare(
        task,
        session.settings,
        journal,
        opened.backend,
        workspace,
        record.totals,
        session.sandbox,
        Memory.at(folder / ANSWERS, journal.redactor),
    )
    context = replace(context, base_tests=BaseTests(known=session.base_tests))
    stack.push_async_callback(context.base_tests.close)
    if not (options.resume or session.engine.has_graph):
        # a server that ran already would wait for it; a run that goes on may have its plan
        context = await stack.enter_async_context(plan_ahead(task, context))
    command = await find_test_command(task, context)
    graph = await session.engine.graph()
    async with graph.checkpoints(folder / CHECKPOINTS, journal) as saver:
        state = await graph.run_graph(task, command, context, saver, resume=bool(options.resume))
    await load.look()
    record.totals.busy_slots = load.busy_slots
    await conclude(task, state, context, record, publish=options.publish, apply=options.apply)


def _start_of(task: Task, workspace: Workspace, options: RunOptions) -> dict[str, Any]:
    return {
        "run": workspace.run,
        "task": task.title,
        "source": task.source,
        "repository": str(workspace.root),
        "base": workspace.base,
        "resumed": bool(options.resume),
    }


if __name__ == "__main__":
    from agent.cli import console

    sys.exit(console(["run", *sys.argv[1:]]))
