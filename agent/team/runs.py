"""The name of a run, its workspace, and what is kept of earlier ones."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agent.core.workspace import Workspace

if TYPE_CHECKING:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

JOURNAL = "journal.jsonl"
"""In the folder of a run."""
MANIFEST = "manifest.json"
KEPT_RUNS = 50
"""Runs whose journal stays, and the checkpoint of those that did not come to their end."""


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


async def tidy_up(run: str, runs: Path, saver: AsyncSqliteSaver) -> None:
    """Forget the checkpoint of `run`, which has come to its end, and all but the newest runs.

    A run that was interrupted keeps its checkpoint as long as its journal.
    """
    with contextlib.suppress(sqlite3.Error):  # another run has locked it: a later one tidies up
        await saver.adelete_thread(run)
        for folder in _old(runs):
            await saver.adelete_thread(folder.name)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _old(runs: Path) -> list[Path]:
    return sorted(path for path in runs.iterdir() if path.is_dir())[:-KEPT_RUNS]
