"""The live things that nodes use, opened by `workflow.run_task` and closed by it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel

from agent.core.backend_manager import Backend, OnProgress, Progress, Reply, Request, Usage
from agent.core.config import Settings
from agent.core.journal import Journal
from agent.core.json_answer import UnfitAnswer, constrained, parse_answer
from agent.core.prompts import Prompt, PromptBook
from agent.core.sandbox import Sandbox
from agent.core.workspace import Workspace
from agent.team.memory import Memory
from agent.team.secret_files import FileReader
from agent.team.state import Plan, Review, Verified

Answer = TypeVar("Answer", bound=BaseModel)
_ENOUGH_TO_TELL = 64
"""Computed prompt tokens below which a request's rate says little."""


@dataclass
class Meter:
    """What one request has cost so far, also when it is cancelled or fails."""

    _before: Usage = field(default_factory=Usage)
    """Of tries that the backend gave up and began anew."""
    _now: Usage = field(default_factory=Usage)

    @property
    def usage(self) -> Usage:
        """Tokens of all its tries."""
        return self._before + self._now

    def see(self, progress: Progress) -> None:
        """Note how far the backend has come."""
        if progress.phase == "queued":
            self._before, self._now = self.usage, Usage()
            return
        decoding = progress.phase == "decode"
        prompt = progress.prompt if decoding else progress.done
        cached = min(progress.cached, prompt)
        self._now = Usage(
            prompt=prompt,
            computed=prompt - cached,
            cached=cached,
            predicted=progress.done if decoding else 0,
        )

    def end(self, usage: Usage) -> None:
        """Note what the last try has cost, as the backend tells it."""
        self._now = usage


@dataclass
class Totals:
    """What a run has cost so far."""

    usage: Usage = field(default_factory=Usage)
    requests: int = 0
    started: int = 0
    """Candidates that were begun, in all rounds."""
    busy_s: float = 0.0
    """Wall seconds during which at least one request ran."""
    busy_slots: float = 0.0
    """Slots that decoded at the same time, on average, as the server counts."""
    reading_rate: float = 0.0
    """Prompt tokens per second of the request that read fastest; others shared the machine."""
    _running: int = 0
    _since: float = 0.0

    def note_rate(self, reply: Reply) -> None:
        """Learn from a reply how fast prompts are read."""
        computed, seconds = reply.usage.computed, reply.timing.prefill_s
        if computed >= _ENOUGH_TO_TELL and seconds > 0:
            self.reading_rate = max(self.reading_rate, computed / seconds)

    @contextmanager
    def request(self) -> Iterator[Meter]:
        """Measure one request, from sending to its end, however it ends."""
        if self._running == 0:
            self._since = time.monotonic()
        self._running += 1
        meter = Meter()
        try:
            yield meter
        finally:
            self._running -= 1
            if self._running == 0:
                self.busy_s += time.monotonic() - self._since
            self.usage += meter.usage
            self.requests += 1


@dataclass
class Race:
    """What the candidates of one round share."""

    turns: asyncio.Semaphore
    """Bounds the candidates that are worked on at the same time, in the order of their index."""
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the first candidate that the reviewer accepts; the others stop."""
    reviewing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One review at a time, in the order in which candidates turn green."""
    verified: dict[str, asyncio.Future[Verified]] = field(default_factory=dict)
    """Test results by diff: identical candidates are tested once."""
    reviews: dict[str, Review] = field(default_factory=dict)
    """Verdicts by diff: identical candidates are reviewed once."""


@dataclass
class BaseTests:
    """What the tests say before any change; they run once, while the first green candidate is
    reviewed."""

    known: dict[tuple[str, ...], Verified] = field(default_factory=dict)
    """Results by commit and command, of all runs of the session."""
    running: asyncio.Task[Verified] | None = None

    def are_known(self) -> bool:
        """Whether asking for them takes no time."""
        return self.running is not None and self.running.done()

    async def close(self) -> None:
        """End them if they still run: nobody waits for them any more."""
        if self.running is not None:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)


@dataclass(frozen=True)
class TeamContext:
    """Everything live that a node may use."""

    backend: Backend
    workspace: Workspace
    prompts: PromptBook
    settings: Settings
    journal: Journal
    reader: FileReader
    """Reads files for prompts, but no secret ones."""
    repository: str
    """The repository part of every prompt of this run."""
    shown: Mapping[str, str | None]
    """The files that `repository` shows, by path; None for one that does not exist yet."""
    candidates: int
    test_slots: asyncio.Semaphore
    """Bounds test commands that run at the same time: no more than there are cores."""
    sandbox: Sandbox
    """Confines test, lint and format commands."""
    totals: Totals = field(default_factory=Totals)
    memory: Memory = field(default_factory=Memory)
    """What an earlier process of this run was answered already."""
    races: dict[int, Race] = field(default_factory=dict)
    base_tests: BaseTests = field(default_factory=BaseTests)
    first_plan: asyncio.Task[Plan] | None = None
    """The run's first plan, where it was asked for before the graph was there to do so."""

    def race(self, round_number: int) -> Race:
        """The race of that round; made when it is first asked for."""
        strict = self.settings.turbo_determinism == "strict"
        turns = asyncio.Semaphore(1 if strict else self.candidates)
        return self.races.setdefault(round_number, Race(turns))

    def prompt(self, role: str, *, task: str, files: str, **volatile: str) -> Prompt:
        """The prompt of a role with this run's repository part."""
        return self.prompts.prompt(
            role, repository=self.repository, task=task, files=files, **volatile
        )

    async def ask(self, request: Request, *, role: str, candidate: int | None = None) -> Reply:
        """The model's answer as text. Raises a BackendError."""
        known = self.memory.reply(request)
        if known is not None:
            self._tell_known(request, known, role, candidate)
            return known
        with self.totals.request() as meter:
            reply = await self.backend.complete(request, self._progress(meter, role, candidate))
            meter.end(reply.usage)
        self.memory.keep_reply(request, reply)
        self._account(request, reply, role, candidate)
        return reply

    async def read_ahead(self, prompt: Prompt, *, role: str) -> None:
        """Let an idle slot read a prompt's beginning before it is asked. Raises a BackendError."""
        with self.totals.request() as meter:
            await self.backend.read_ahead(prompt, self._progress(meter, role, None))

    async def ask_json(self, request: Request, answer: type[Answer], *, role: str) -> Answer:
        """The model's answer in the form of `answer`. Raises a BackendError."""
        asked = constrained(request, answer)
        known = self.memory.reply(asked)
        if known is not None:
            self._tell_known(request, known, role, None)
            return parse_answer(known, answer)
        with self.totals.request() as meter:
            progress = self._progress(meter, role, None)
            try:
                value, reply = await self.backend.complete_json(request, answer, progress)
            except UnfitAnswer as error:
                meter.end(error.usage)
                self.memory.keep_unfit(asked, error)
                raise
            meter.end(reply.usage)
        self.memory.keep_reply(asked, reply)
        self._account(request, reply, role, None)
        return value

    def _account(self, request: Request, reply: Reply, role: str, candidate: int | None) -> None:
        self.totals.note_rate(reply)
        told = _told(request, reply, role, candidate)
        self.journal.emit("answered", **told, slot=reply.slot, tokens=asdict(reply.usage))
        if reply.miss is not None:
            self.journal.emit("cache_miss", role=role, **asdict(reply.miss))

    def _tell_known(self, request: Request, reply: Reply, role: str, candidate: int | None) -> None:
        self.journal.emit("remembered", **_told(request, reply, role, candidate))

    def _progress(self, meter: Meter, role: str, candidate: int | None) -> OnProgress:
        def tell(progress: Progress) -> None:
            meter.see(progress)
            self.journal.show(
                "progress",
                role=role,
                candidate=candidate,
                phase=progress.phase,
                slot=progress.slot,
                prompt=progress.prompt,
                done=progress.done,
                cached=progress.cached,
            )

        return tell


def _told(request: Request, reply: Reply, role: str, candidate: int | None) -> dict[str, Any]:
    return {
        "role": role,
        "candidate": candidate,
        "seed": reply.seed,
        "prompt": _digest(request.prompt.system + request.prompt.user),
        "answer": _digest(reply.text),
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
