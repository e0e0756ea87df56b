"""What became of the runs of a repository, as their folders tell it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent.core.errors import UsageError
from agent.core.json_lines import read_objects
from agent.team.manifest import Manifest
from agent.team.plain_view import describe
from agent.team.runs import JOURNAL, is_alive

_YEAR_10000 = 253_402_300_800.0
_COUNTED = ("prompt", "computed", "cached", "predicted")


@dataclass
class RunSummary:
    """One run, read from its journal event by event."""

    run: str
    status: str = "killed"
    """As in ``run_finished``; `running` while a process carries it out, `killed` when none does and
    no end was told."""
    resumable: bool = False
    """It is not over, and ``turbo runs resume`` can go on with it."""
    task: str = ""
    """Title; empty when it was killed before that was written."""
    started: float = 0.0
    """Seconds since the epoch."""
    branch: str | None = None
    commit: str | None = None
    reason: str = ""
    wall_s: float = 0.0
    """Of all its processes together."""
    plan: dict[str, Any] | None = None
    """The last one."""
    candidates: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    """The last event of each, by round and index."""
    reviews: list[dict[str, Any]] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTED, 0))
    """Of all requests that were answered."""
    _begin: float = 0.0
    _last: float = 0.0

    @classmethod
    def of(cls, folder: Path) -> RunSummary:
        """The summary of the run in `folder`, whatever of it is there."""
        summary = cls(folder.name)
        with contextlib.suppress(OSError):
            for event in read_objects(folder / JOURNAL):
                # of another version, or changed by a disk that fails
                with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
                    summary._take(event["event"], event)
        if is_alive(folder):
            summary.status, summary.resumable = "running", False
        elif summary.status == "killed":
            summary._end_process()
            with contextlib.suppress(UsageError):
                summary.resumable = Manifest.read(folder).resumable
        return summary

    def as_object(self) -> dict[str, Any]:
        """For programs: what ``turbo runs list --json`` has for each."""
        names = ("run", "status", "resumable", "task", "started", "branch", "commit", "reason")
        told = {name: getattr(self, name) for name in names}
        return {**told, "wall_s": round(self.wall_s, 3)}

    def details(self) -> dict[str, Any]:
        """For programs: what ``turbo runs show --json`` has besides."""
        more = {name: asdict(self)[name] for name in ("plan", "reviews", "tokens")}
        return {**self.as_object(), **more, "candidates": list(self.candidates.values())}

    def _take(self, name: str, event: Mapping[str, Any]) -> None:
        told = {key: value for key, value in event.items() if key not in ("time", "event")}
        describe(name, told)  # what cannot be shown is not taken
        self._last = _time(event["time"])
        if name == "run_started":
            if self.status == "killed":
                self._end_process()
            self.status, self.resumable, self.reason = "killed", False, ""
            self.task, self._begin = str(event["task"]), self._last
            self.started = self.started or self._last
        elif name == "plan_ready":
            self.plan = told
        elif name == "candidate_verified":
            self.candidates[event["round"], event["candidate"]] = told
        elif name == "review_ready":
            self.reviews.append(told)
        elif name == "answered":
            for each in _COUNTED:
                self.tokens[each] += event["tokens"][each]
        elif name == "committed":
            self.branch, self.commit = str(event["branch"]), str(event["commit"])
        elif name == "run_finished":
            wall_s = float(event["wall_s"])
            self.status, self.resumable = str(event["status"]), bool(event["resumable"])
            self.reason = str(event["reason"])
            self.wall_s += wall_s
            self._begin = 0.0

    def _end_process(self) -> None:
        """Add the time of a process that was killed."""
        if self._begin:
            self.wall_s += max(0.0, self._last - self._begin)  # the clock may have been set
            self._begin = 0.0


def _time(value: Any) -> float:
    """Seconds since the epoch that a calendar has. Raises TypeError or ValueError."""
    seconds = float(value)
    if not 0 <= seconds < _YEAR_10000:
        raise ValueError(value)
    return seconds


def run_folders(runs: Path) -> list[Path]:
    """The folders of all runs, the newest first."""
    return sorted((x for x in runs.iterdir() if x.is_dir()), reverse=True) if runs.is_dir() else []


def list_runs(runs: Path) -> list[RunSummary]:
    """All runs, the newest first."""
    return [RunSummary.of(folder) for folder in run_folders(runs)]
