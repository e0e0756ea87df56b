"""The live things that nodes use, opened by `workflow.run_task` and closed by it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel

from agent.core.backend_manager import Backend, OnProgress, Progress, Reply, Request, Usage
from agent.core.config import Settings
from agent.core.journal import Journal
from agent.core.prompts import Prompt, PromptBook
from agent.core.workspace import Workspace
from agent.team.state import Tests

Answer = TypeVar("Answer", bound=BaseModel)


@dataclass
class Totals:
    """What a run has cost so far."""

    usage: Usage = field(default_factory=Usage)
    requests: int = 0
    busy_s: float = 0.0
    """Wall seconds during which at least one request ran."""
    _running: int = 0
    _since: float = 0.0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Measure one request, from sending to its end."""
        if self._running == 0:
            self._since = time.monotonic()
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            if self._running == 0:
                self.busy_s += time.monotonic() - self._since

    def add(self, usage: Usage) -> None:
        """Count one reply."""
        self.usage += usage
        self.requests += 1


@dataclass
class Race:
    """What the candidates of one round share."""

    won: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the first green candidate; the others stop."""
    verified: dict[tuple[tuple[str, str], ...], asyncio.Future[tuple[Tests | None, str]]] = field(
        default_factory=dict
    )
    """Results by content: identical answers are tested once."""


@dataclass(frozen=True)
class TeamContext:
    """Everything live that a node may use."""

    backend: Backend
    workspace: Workspace
    prompts: PromptBook
    settings: Settings
    journal: Journal
    repository: str
    """The repository part of every prompt of this run."""
    shown: Mapping[str, str | None]
    """The files that `repository` shows, by path; None for one that does not exist yet."""
    candidates: int
    test_slots: asyncio.Semaphore
    """Bounds test commands that run at the same time: no more than there are cores."""
    totals: Totals = field(default_factory=Totals)
    races: dict[int, Race] = field(default_factory=dict)

    def race(self, round_number: int) -> Race:
        """The race of that round; made when it is first asked for."""
        return self.races.setdefault(round_number, Race())

    def prompt(self, role: str, *, task: str, files: str, **volatile: str) -> Prompt:
        """The prompt of a role with this run's repository part."""
        return self.prompts.prompt(
            role, repository=self.repository, task=task, files=files, **volatile
        )

    async def ask(self, request: Request, *, role: str, candidate: int | None = None) -> Reply:
        """The model's answer as text. Raises a BackendError."""
        with self.totals.request():
            reply = await self.backend.complete(request, self._progress(role, candidate))
        self.totals.add(reply.usage)
        return reply

    async def ask_json(self, request: Request, answer: type[Answer], *, role: str) -> Answer:
        """The model's answer in the form of `answer`. Raises a BackendError."""
        progress = self._progress(role, None)
        with self.totals.request():
            value, reply = await self.backend.complete_json(request, answer, progress)
        self.totals.add(reply.usage)
        return value

    def _progress(self, role: str, candidate: int | None) -> OnProgress:
        def tell(progress: Progress) -> None:
            self.journal.show(
                "progress",
                role=role,
                candidate=candidate,
                phase=progress.phase,
                slot=progress.slot,
                prompt=progress.prompt,
                done=progress.done,
            )

        return tell
