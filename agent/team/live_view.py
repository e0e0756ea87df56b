"""What a person sees on a terminal while a run goes on: candidates and slots, live."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agent.core.terminal import one_line
from agent.team.plain_view import PlainView

_PHASES = {"decode": "writing", "prefill": "reading", "queued": "waiting"}
_WORDS = ("phase", "tests", "for")
_IDLE_AFTER_S = 0.5
"""A slot that works says so with each token; reading a long prompt takes longer than this only on
the slowest machines, and then the row says idle for a while."""
_STYLE = {"green": "green", "red": "red", "invalid": "yellow", "cancelled": "dim"}


class _Speed:
    """Tokens per second of one answer, from the second token on."""

    def __init__(self) -> None:
        self.tokens = 0
        self.per_second = 0.0
        self._begin = 0.0

    def see(self, tokens: int) -> None:
        now = time.monotonic()
        if tokens <= self.tokens or self.tokens == 0:
            self._begin = now
        elif now > self._begin:
            self.per_second = tokens / (now - self._begin)
        self.tokens = tokens


@dataclass
class _Row:
    """One candidate."""

    seed: int
    phase: str = "waiting"
    slot: int | None = None
    tests: str = ""
    speed: _Speed = field(default_factory=_Speed)

    def progress(self, data: Mapping[str, Any]) -> None:
        self.phase = _PHASES.get(data["phase"], data["phase"])
        if data["phase"] == "decode":
            self.slot = data["slot"]
            self.speed.see(data["done"])


@dataclass
class _Slot:
    """What a slot of the server works on, or did last."""

    who: str
    phase: str
    prompt: int
    cached: int
    seen_at: float
    speed: _Speed = field(default_factory=_Speed)


class LiveView:
    """Lines above; below them a row per candidate of the round, a row per slot, and a total."""

    def __init__(self, console: Console, *, verbose: bool) -> None:
        self._lines = PlainView(console, verbose=verbose)
        self._rows: dict[int, _Row] = {}
        self._slots: dict[int, _Slot] = {}
        self._now = ""
        self._busy = 0.0
        self._live = Live(
            console=console, refresh_per_second=8, transient=True, get_renderable=self._render
        )
        self._live.start()

    def on_event(self, event: str, data: Mapping[str, Any]) -> None:
        """Update the tables, or print a line above them."""
        if event == "progress":
            self._on_progress(data)
            return
        if event == "load":
            self._busy = data["busy_slots"]
            return
        self._now = ""
        if event in ("run_started", "round_started", "run_finished", "plan_ready"):
            self._rows.clear()
        if event == "run_finished":
            self._slots.clear()
        elif event == "candidate_started":
            self._rows[data["candidate"]] = _Row(seed=data["seed"])
        elif event == "candidate_verified" and data["candidate"] in self._rows:
            row = self._rows[data["candidate"]]
            row.phase, row.tests = data["status"], str(data["summary"] or "")
        self._lines.on_event(event, data)

    def close(self) -> None:
        """Take the tables away and give the cursor back."""
        self._live.stop()

    def _on_progress(self, data: Mapping[str, Any]) -> None:
        row = self._rows.get(data["candidate"]) if data["candidate"] is not None else None
        if row is not None:
            row.progress(data)
        else:
            self._now = f"{data['role']}: {data['phase']} {data['done'] or ''}"
        if data.get("slot") is not None:
            self._on_slot(data)

    def _on_slot(self, data: Mapping[str, Any]) -> None:
        named = "" if data["candidate"] is None else f" {data['candidate']}"
        slot = self._slots.get(data["slot"])
        now = time.monotonic()
        if slot is None or slot.who != f"{data['role']}{named}":
            slot = self._slots[data["slot"]] = _Slot(f"{data['role']}{named}", "", 0, 0, now)
        slot.phase, slot.seen_at = data["phase"], now
        slot.prompt, slot.cached = data["prompt"], data["cached"]
        if data["phase"] == "decode":
            slot.speed.see(data["done"])

    def _render(self) -> RenderableType:
        if not self._rows:
            return Text(self._now, style="dim")
        return Group(self._candidates(), self._served())

    def _candidates(self) -> Table:
        table = _table("candidate", "slot", "phase", "tokens", "tokens/s", "tests")
        for index, row in sorted(self._rows.items()):
            table.add_row(
                str(index),
                "" if row.slot is None else str(row.slot),
                Text(row.phase, style=_STYLE.get(row.phase, "")),
                str(row.speed.tokens or ""),
                f"{row.speed.per_second:.0f}" if row.speed.per_second else "",
                Text(one_line(row.tests), overflow="ellipsis", no_wrap=True),
            )
        return table

    def _served(self) -> Table:
        table = _table("slot", "phase", "tokens/s", "cached/prompt", "for")
        now = time.monotonic()
        busy = [slot for slot in self._slots.values() if now - slot.seen_at < _IDLE_AFTER_S]
        for number, slot in sorted(self._slots.items()):
            works = slot in busy
            table.add_row(
                str(number),
                _PHASES.get(slot.phase, slot.phase) if works else "idle",
                f"{slot.speed.per_second:.0f}" if works and slot.speed.per_second else "",
                f"{slot.cached}/{slot.prompt}",
                slot.who,
            )
        decoding = [slot.speed.per_second for slot in busy if slot.phase == "decode"]
        cached = sum(slot.cached for slot in self._slots.values())
        prompt = sum(slot.prompt for slot in self._slots.values())
        total = f"{sum(decoding):.0f}" if decoding else ""
        mean = f"{self._busy:.1f} busy on average" if self._busy else ""
        table.add_row("all", f"{len(busy)} busy", total, f"{cached}/{prompt}", mean, style="bold")
        return table


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, justify="left" if title in _WORDS else "right")
    return table
