"""One invocation of `turbo run`: which tasks, which repository, which signals.

Without a task the packaged demo repository is copied to a temporary folder and its task runs there;
the folder in which the command was started is never touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from agent.core.config import Settings, load_settings
from agent.core.errors import TaskFileError, UsageError
from agent.core.journal import Journal
from agent.core.workspace import create_repository, locate
from agent.team.result import RunResult
from agent.team.task_file import Task, find_tasks, parse_task, read_task, task_from_prose
from agent.team.workflow import RunOptions, not_done_yet, run_tasks

Result = TypeVar("Result")

_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """A signal ended the run after everything was cleaned up."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """What the command line asks for."""

    tasks: Sequence[str] = ()
    """Task files; ``-`` is standard input."""
    prose: str | None = None
    all_tasks: bool = False
    repository: Path | None = None
    model: Path | None = None
    candidates: int | None = None
    test: str | None = None
    apply: bool = False
    dry_run: bool = False

    @property
    def is_demo(self) -> bool:
        """True when nothing names a task."""
        return not self.tasks and self.prose is None and not self.all_tasks


def run_session(invocation: Invocation, journal: Journal) -> list[RunResult]:
    """Run what was asked for. Raises TurboError or Interrupted."""
    if invocation.is_demo and (invocation.repository or invocation.apply or invocation.test):
        raise UsageError(
            "--repo, --apply and --test need a task",
            fix="Name a task file, --all for tasks/*.md, or --task and the wish in prose.",
        )
    if invocation.is_demo:
        with _demo_repository() as folder:
            journal.emit("notice", text="No task named: the demo runs in a temporary repository.")
            return _run(invocation, folder, [str(path) for path in find_tasks(folder)], journal)
    repository = locate(invocation.repository or Path.cwd())
    return _run(invocation, repository, invocation.tasks, journal)


def _run(
    invocation: Invocation, repository: Path, sources: Sequence[str], journal: Journal
) -> list[RunResult]:
    settings = _settings(invocation, repository)
    tasks = [_with_test(task, invocation.test) for task in _load(invocation, repository, sources)]

    async def work() -> list[RunResult]:
        wanted = await not_done_yet(tasks, repository) if invocation.all_tasks else tasks
        if not wanted:
            journal.emit("notice", text="Every task in tasks/ is done already.")
            return []
        options = RunOptions(apply=invocation.apply)
        return await run_tasks(wanted, repository, settings, journal, options)

    return run_until_signal(work())


def run_until_signal(work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work`; the first ending signal cancels it, so that it can clean up.

    A second signal has its usual effect. Raises Interrupted once `work` has ended.
    """
    caught: list[int] = []
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(work)

        def stop(signum: int) -> None:
            caught.append(signum)
            for each in _ENDING_SIGNALS:
                loop.remove_signal_handler(each)
            task.cancel()

        for each in _ENDING_SIGNALS:
            loop.add_signal_handler(each, stop, each)
        try:
            result = loop.run_until_complete(task)
        except asyncio.CancelledError:
            if not caught:
                raise
        else:
            if not caught:
                return result
    raise Interrupted(caught[0])


def _settings(invocation: Invocation, repository: Path) -> Settings:
    overrides = {
        "llamacpp_model_path": invocation.model,
        "turbo_candidates": invocation.candidates,
        "dry_run": True if invocation.dry_run else None,
    }
    return load_settings(repository=repository, overrides=overrides)


def _load(invocation: Invocation, repository: Path, sources: Sequence[str]) -> list[Task]:
    if invocation.prose is not None:
        return [task_from_prose(invocation.prose)]
    if invocation.all_tasks:
        found = find_tasks(repository)
        if not found:
            raise TaskFileError(
                str(repository / "tasks"),
                "no task found",
                fix="Write one as tasks/NAME.md; README shows the form.",
            )
        return [read_task(path) for path in found]
    return [_read_one(source) for source in sources]


def _read_one(source: str) -> Task:
    if source != "-":
        return read_task(Path(source))
    data = sys.stdin.buffer.read()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise TaskFileError("-", "standard input is not UTF-8") from None
    has_front_matter = text.removeprefix("\ufeff").startswith("---")
    return parse_task(text, source="-") if has_front_matter else task_from_prose(text, source="-")


def _with_test(task: Task, test: str | None) -> Task:
    return task if test is None else task.model_copy(update={"test": test})


@contextlib.contextmanager
def _demo_repository() -> Iterator[Path]:
    """A fresh git repository with the packaged demo in it; removed at the end."""
    packaged = Path(__file__).parent.parent / "demo" / "repository"
    with tempfile.TemporaryDirectory(prefix="turbo-demo-") as parent:
        folder = Path(parent) / "textkit"
        shutil.copytree(packaged, folder, ignore=shutil.ignore_patterns("__pycache__"))
        create_repository(folder, message="The demo repository")
        yield folder
