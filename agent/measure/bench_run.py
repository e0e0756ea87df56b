"""Whole runs of a task, as `turbo run` does them, for a benchmark."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.core.config import Settings, secret_values
from agent.core.errors import EngineError
from agent.core.journal import Journal
from agent.core.redaction import Redactor
from agent.core.workspace import locate
from agent.team.result import Ledger
from agent.team.session import demo_repository
from agent.team.task_file import Task, find_tasks, read_task
from agent.team.workflow import RunOptions, run_tasks


class RunNotAccepted(Exception):
    """A run did not end with an accepted commit: its seconds cannot be compared."""


@dataclass(frozen=True, kw_only=True)
class Runner:
    """A task and the repository in which it is run. No branch is made."""

    tasks: Sequence[Task]
    repository: Path

    async def run(self, settings: Settings) -> float:
        """Seconds of one run. Raises RunNotAccepted, EngineError when no model answers."""
        ledger = Ledger()
        began = time.perf_counter()
        journal = Journal(redactor=Redactor(secret_values(settings)))
        options = RunOptions(publish=False)
        await run_tasks(self.tasks, self.repository, settings, journal, options, ledger)
        seconds = time.perf_counter() - began
        result = ledger.results[-1]
        if result.exit_code == EngineError.exit_code:
            raise EngineError(result.reason)
        if result.status != "accepted":
            raise RunNotAccepted(f"the task was {result.status}. {result.reason}".strip())
        return seconds


@contextmanager
def runner_for(task: Path | None) -> Iterator[Runner]:
    """A runner for the task file `task` in the repository around this folder, or for the demo in a
    temporary one. Raises UsageError."""
    if task is not None:
        yield Runner(tasks=[read_task(task)], repository=locate(Path.cwd()))
        return
    with demo_repository() as folder:
        tasks = [read_task(path) for path in find_tasks(folder)]
        yield Runner(tasks=tasks, repository=folder)
