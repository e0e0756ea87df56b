"""Removing runs: their folders, checkpoints and worktrees. Commits on branches stay."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

from agent.core.errors import UsageError, WorkspaceError
from agent.core.workspace import Workspace
from agent.team.replay import find_run
from agent.team.run_list import RunSummary, run_folders
from agent.team.runs import forget_run, held_run, new_run_name, open_workspace

UNFINISHED_DAYS = 14
"""What could go on is kept at least that long."""
_DAY_S = 86_400.0


@dataclass
class Cleaned:
    """What `clean` did."""

    removed: list[str] = field(default_factory=list)
    """Names of runs."""
    kept: list[str] = field(default_factory=list)
    """Names of runs that can go on, or go on now."""
    deleted: list[str] = field(default_factory=list)
    """Branches."""
    branches: list[str] = field(default_factory=list)
    """Branches of runs that are there after it."""


async def discard(repository: Path, name: str) -> RunSummary:
    """Remove one run, finished or not; what it was. Its branch stays.

    Raises UsageError when there is no such run, or when it goes on in another process.
    """
    async with open_workspace(repository, new_run_name()) as workspace:
        folder = find_run(workspace.state_dir / "runs", name)
        summary = RunSummary.of(folder)
        await asyncio.to_thread(_forget, folder)
    return summary


async def clean(repository: Path, *, unfinished: bool, merged_branches: bool) -> Cleaned:
    """Remove the runs that are over, or that were left unfinished long ago; with `unfinished` all
    that no process carries out now. With `merged_branches` their branches go that are merged into
    the one that is checked out."""
    cleaned = Cleaned()
    async with open_workspace(repository, new_run_name()) as workspace:
        for folder in run_folders(workspace.state_dir / "runs"):
            summary = RunSummary.of(folder)
            young = time.time() - summary.started < UNFINISHED_DAYS * _DAY_S
            if summary.status == "running" or (summary.resumable and young and not unfinished):
                cleaned.kept.append(folder.name)
                continue
            try:
                await asyncio.to_thread(_forget, folder)
            except UsageError:  # it has gone on just now
                cleaned.kept.append(folder.name)
            else:
                cleaned.removed.append(folder.name)
        for branch, merged in (await workspace.branches("turbo/")).items():
            if merged and merged_branches and await _deleted(branch, workspace):
                cleaned.deleted.append(branch)
            else:
                cleaned.branches.append(branch)
    return cleaned


def _forget(folder: Path) -> None:
    with held_run(folder):
        forget_run(folder)


async def _deleted(branch: str, workspace: Workspace) -> bool:
    try:
        await workspace.delete_merged(branch)
    except WorkspaceError:  # it is checked out somewhere
        return False
    return True
