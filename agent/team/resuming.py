"""Which run goes on, and which runs cannot."""

from __future__ import annotations

from pathlib import Path

import agent
from agent.core.errors import UsageError
from agent.team.manifest import Manifest
from agent.team.replay import find_run
from agent.team.run_list import RunSummary, list_runs


def run_to_resume(runs: Path, name: str | None) -> Manifest | None:
    """The manifest of the run that is to go on: the one of that name (or of its beginning), or the
    newest that is not over. None when `name` is None and every run is over.

    Raises UsageError that says why the run cannot go on and what to do.
    """
    if name is None:
        summary = next((each for each in list_runs(runs) if each.resumable), None)
        if summary is None:
            return None
        folder = runs / summary.run
    else:
        folder = find_run(runs, name)
        summary = RunSummary.of(folder)
    _refuse(summary)
    manifest = Manifest.read(folder)
    if manifest.replay_of:
        raise UsageError(
            f"Run {summary.run} repeats {manifest.replay_of}; a replay does not go on",
            fix=f"Begin it again: turbo replay {manifest.replay_of}",
        )
    if (made_by := manifest.versions.get("turbo")) != agent.__version__:
        raise UsageError(
            f"Run {summary.run} was begun by version {made_by}, and this is {agent.__version__}",
            fix="Go on with the version that began it, or give it up: "
            f"turbo runs discard {summary.run}",
        )
    return manifest


def _refuse(summary: RunSummary) -> None:
    if summary.status == "running":
        raise UsageError(
            f"Run {summary.run} goes on in another process",
            fix="Wait for its end, or end it with Ctrl-C where it runs.",
        )
    if summary.status != "killed" and not summary.resumable:
        made = f", its commit is on {summary.branch}" if summary.branch else ""
        raise UsageError(
            f"Run {summary.run} is over: {summary.status}{made}",
            fix="Begin the task anew with turbo run, or this run with turbo replay.",
        )
