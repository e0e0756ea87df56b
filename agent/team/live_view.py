"""What a person sees while a run goes on: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agent.core.terminal import printable

_STYLE = {"green": "green", "red": "red", "invalid": "yellow", "cancelled": "dim"}


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
        if line is None and self._verbose and event != "progress":
            line = f"{event}: " + ", ".join(f"{key}={value}" for key, value in data.items())
        if line is not None:
            self._console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """There is nothing to leave in order."""


@dataclass
class _Row:
    seed: int
    phase: str = "waiting"
    tokens: int = 0
    slot: int | None = None
    begin: float = 0.0
    per_second: float = 0.0
    tests: str = ""

    def progress(self, data: Mapping[str, Any]) -> None:
        self.phase = {"decode": "writing", "prefill": "reading", "queued": "waiting"}.get(
            data["phase"], data["phase"]
        )
        if data["phase"] != "decode":
            return
        now = time.monotonic()
        if data["done"] <= self.tokens or self.tokens == 0:
            self.begin = now
        elif now > self.begin:
            self.per_second = data["done"] / (now - self.begin)
        self.tokens, self.slot = data["done"], data["slot"]


class LiveView:
    """Lines above, and below them a table with one row per candidate of the round."""

    def __init__(self, console: Console, *, verbose: bool) -> None:
        self._lines = PlainView(console, verbose=verbose)
        self._rows: dict[int, _Row] = {}
        self._now = ""
        self._live = Live(
            console=console, refresh_per_second=8, transient=True, get_renderable=self._render
        )
        self._live.start()

    def on_event(self, event: str, data: Mapping[str, Any]) -> None:
        """Update the table, or print a line above it."""
        if event == "progress":
            row = self._rows.get(data["candidate"]) if data["candidate"] is not None else None
            if row is not None:
                row.progress(data)
            else:
                self._now = f"{data['role']}: {data['phase']} {data['done'] or ''}"
            return
        self._now = ""
        if event in ("run_started", "round_started", "run_finished", "review_ready"):
            self._rows.clear()
        elif event == "candidate_started":
            self._rows[data["candidate"]] = _Row(seed=data["seed"])
        elif event == "candidate_verified" and data["candidate"] in self._rows:
            row = self._rows[data["candidate"]]
            row.phase, row.tests = data["status"], str(data["summary"] or "")
        self._lines.on_event(event, data)

    def close(self) -> None:
        """Take the table away and give the cursor back."""
        self._live.stop()

    def _render(self) -> RenderableType:
        table = Table(box=None, pad_edge=False)
        for title in ("candidate", "slot", "phase", "tokens", "tokens/s", "tests"):
            table.add_column(title, justify="left" if title in ("phase", "tests") else "right")
        for index, row in sorted(self._rows.items()):
            table.add_row(
                str(index),
                "" if row.slot is None else str(row.slot),
                Text(row.phase, style=_STYLE.get(row.phase, "")),
                str(row.tokens or ""),
                f"{row.per_second:.0f}" if row.per_second else "",
                Text(printable(row.tests), overflow="ellipsis", no_wrap=True),
            )
        return Group(table if self._rows else Text(self._now, style="dim"))


def describe(event: str, data: Mapping[str, Any]) -> str | None:
    """The line for an event; None for one that people need not read."""
    writer = _LINES.get(event)
    return writer(data) if writer is not None else None


def _plan_line(data: Mapping[str, Any]) -> str:
    steps = [
        f"  {number}. {step['action']} {step['path']}: {step['instruction']}"
        for number, step in enumerate(data["steps"], 1)
    ]
    return "\n".join([f"Plan: {data['summary']}", *steps])


def _ready_line(data: Mapping[str, Any]) -> str | None:
    if data["seconds"] == 0:  # a later task of the session finds it ready
        return None
    return f"Ready after {data['seconds']:.1f} s: {data['description']}"


def _candidate_line(data: Mapping[str, Any]) -> str:
    line = f"Candidate {data['candidate']}: {data['status']} - {data['summary'] or 'no tests'}"
    lint = str(data.get("lint") or "").splitlines()
    return "\n".join([line, *(f"  lint: {complaint}" for complaint in lint)])


def _review_line(data: Mapping[str, Any]) -> str:
    remarks = [
        f"  {comment['file']}:{comment['line']} {comment['severity']}: {comment['text']}"
        for comment in data["comments"]
    ]
    return "\n".join([f"Review of candidate {data['candidate']}: {data['verdict']}", *remarks])


_LINES: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "notice": lambda data: str(data["text"]),
    "server_ready": _ready_line,
    "run_started": lambda data: f"Task: {data['task']}",
    "plan_refused": lambda data: f"Plan refused: {data['reason']}",
    "plan_ready": _plan_line,
    "round_started": lambda data: f"Round {data['round'] + 1}: repair",
    "candidate_verified": _candidate_line,
    "review_ready": _review_line,
    "committed": lambda data: f"Commit {data['commit'][:12]} on {data['branch']}",
}
