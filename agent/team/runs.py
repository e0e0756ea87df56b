"""The name of a run, its workspace, and what is kept of earlier ones."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agent.core.errors import UsageError
from agent.core.held_file import hold, is_held
from agent.core.workspace import Workspace

if TYPE_CHECKING:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

JOURNAL = "journal.jsonl"
"""In the folder of a run."""
MANIFEST = "manifest.json"
TASK = "task.json"
"""The task word for word, of a run that is not over, where the manifest leaves a secret out."""
ANSWERS = "answers.jsonl"
"""What a run that is not over would have to pay for again."""
CHECKPOINTS = "checkpoints.sqlite"
"""Beside the folder of runs."""
KEPT_RUNS = 50
"""Runs whose journal stays, with what those need that did not come to their end."""


def new_run_name() -> str:
    """Sortable by time, unique, fit for a branch name."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


@asynccontextmanager
async def open_workspace(
    repository: Path, run: str, *, base: str | None = None
) -> AsyncIterator[Workspace]:
    """The workspace of a run, by default on the last commit; its worktrees are removed at the
    end."""
    workspace = await Workspace.open(repository, run=run, base=base)
    try:
        yield workspace
    finally:
        await workspace.close()


async def clear_abandoned(repository: Path) -> None:
    """Clear away the worktrees that killed runs left."""
    async with open_workspace(repository, new_run_name()):
        pass


@contextmanager
def held_run(folder: Path) -> Iterator[None]:
    """Keep other processes from the run in `folder`, as long as the block lasts and we live.

    What is held is its journal. Raises UsageError when the run goes on in another process.
    """
    with ExitStack() as stack:
        ours = True
        with contextlib.suppress(OSError):  # no locks here, or the journal cannot be written either
            make_private(folder.parent.parent)
            folder.mkdir(parents=True, exist_ok=True)
            ours = stack.enter_context(hold(folder / JOURNAL))
        if not ours:
            raise UsageError(
                f"Run {folder.name} goes on in another process",
                fix="Wait for its end, or end it with Ctrl-C where it runs.",
            )
        yield


def make_private(state: Path) -> None:
    """Make the folder of runs and checkpoints one that only we can read: what is asked and answered
    stands in there. Raises OSError when it cannot be made."""
    state.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # somebody else's: then it is up to them
        state.chmod(0o700)


def is_alive(folder: Path) -> bool:
    """Whether a process carries out the run in `folder` now."""
    try:
        return is_held(folder / JOURNAL)
    except OSError:
        return False


async def tidy_up(run: str, runs: Path, saver: AsyncSqliteSaver | None) -> None:
    """Forget what `run`, which has come to its end, needed to go on, and all but the newest runs.

    A run that is not over keeps its checkpoint and its answers as long as its journal.
    """
    for name in (ANSWERS, TASK):
        (runs / run / name).unlink(missing_ok=True)
    await forget_checkpoint(run, saver)
    for folder in _old(runs):
        await forget_run(folder, saver)


async def forget_run(folder: Path, saver: AsyncSqliteSaver | None) -> None:
    """Remove the folder and the checkpoint of a run that is not alive."""
    await forget_checkpoint(folder.name, saver)
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def forget_checkpoint(run: str, saver: AsyncSqliteSaver | None) -> None:
    """Remove the checkpoint of a run, unless somebody else has locked the database."""
    if saver is not None:
        with contextlib.suppress(sqlite3.Error):
            await saver.adelete_thread(run)


def _old(runs: Path) -> list[Path]:
    found = sorted(path for path in runs.iterdir() if path.is_dir())[:-KEPT_RUNS]
    return [path for path in found if not is_alive(path)]
