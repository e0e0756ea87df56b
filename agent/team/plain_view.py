"""What a person sees of a run in a log or a pipe: plain lines, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rich.console import Console

from agent.core.terminal import hanging, one_line

UNKEPT = frozenset({"progress", "load"})
"""Events that only the live view shows: there are many, and each replaces the one before."""


class View(Protocol):
    """Shows events of a run as they come."""

    def on_event(self, event: str, data: Mapping[str, Any]) -> None:
        """Show one event."""
        ...

    def close(self) -> None:
        """Leave the terminal in order."""
        ...


class QuietView:
    """Shows nothing."""

    def on_event(self, event: str, data: Mapping[str, Any]) -> None:
        """Ignore the event."""

    def close(self) -> None:
        """There is nothing to leave in order."""


class PlainView:
    """One line per event, for logs and pipes."""

    def __init__(self, console: Console, *, verbose: bool) -> None:
        self._console = console
        self._verbose = verbose

    def on_event(self, event: str, data: Mapping[str, Any]) -> None:
        """Print a line for the event, if it is one that people read."""
        line = describe(event, data)
        if line is None and self._verbose and event not in UNKEPT:
            line = one_line(f"{event}: " + ", ".join(f"{k}={v}" for k, v in data.items()))
        if line is not None:
            self._console.print(hanging(line), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """There is nothing to leave in order."""


def describe(event: str, data: Mapping[str, Any]) -> str | None:
    """The line for an event; None for one that people need not read. It may have more lines, which
    are indented, and each text of a model or a repository stays on one."""
    writer = _LINES.get(event)
    return writer(data) if writer is not None else None


def _plan_line(data: Mapping[str, Any]) -> str:
    steps = [
        one_line(f"{number}. {step['action']} {step['path']}: {step['instruction']}")
        for number, step in enumerate(data["steps"], 1)
    ]
    return "\n".join([f"Plan: {one_line(data['summary'])}", *(f"  {step}" for step in steps)])


def _ready_line(data: Mapping[str, Any]) -> str | None:
    if data["seconds"] == 0:  # a later task of the session finds it ready
        return None
    return f"Ready after {data['seconds']:.1f} s: {data['description']}"


def _candidate_line(data: Mapping[str, Any]) -> str:
    summary = one_line(data["summary"] or "") or "no tests"
    line = f"Candidate {data['candidate']}: {data['status']} - {summary}"
    lint = str(data.get("lint") or "").splitlines()
    return "\n".join([line, *(f"  lint: {complaint}" for complaint in lint)])


def _review_line(data: Mapping[str, Any]) -> str:
    remarks = [
        one_line(f"{comment['file']}:{comment['line']} {comment['severity']}: {comment['text']}")
        for comment in data["comments"]
    ]
    verdict = one_line(f"Review of candidate {data['candidate']}: {data['verdict']}")
    return "\n".join([verdict, *(f"  {remark}" for remark in remarks)])


_LINES: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "notice": lambda data: str(data["text"]),
    "server_ready": _ready_line,
    "server_restarted": lambda data: f"Server started again: {one_line(data['reason'])}",
    "run_started": lambda data: f"Task: {one_line(data['task'])}",
    "plan_refused": lambda data: f"Plan refused: {one_line(data['reason'])}",
    "plan_ready": _plan_line,
    "round_started": lambda data: f"Round {data['round'] + 1}: repair",
    "candidate_verified": _candidate_line,
    "review_ready": _review_line,
    "committed": lambda data: f"Commit {data['commit'][:12]} on {one_line(data['branch'])}",
}
