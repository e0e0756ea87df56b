"""Replay: a run again from its manifest, and the first place where the two differ.

Only what the model was asked and what it answered is compared, by digest. Of the same answers
follows the same commit, but for its time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from agent.core.errors import UsageError
from agent.core.json_lines import read_objects
from agent.team.runs import MANIFEST

_SHOWN = 5
"""Names of runs that an error message lists."""


@dataclass(frozen=True)
class Answered:
    """One request of a run and its answer."""

    role: str
    candidate: int | None
    number: int
    """Of several requests of this role and candidate, from 1."""
    seed: int
    prompt: str
    """Digest."""
    answer: str
    """Digest."""

    @property
    def branch(self) -> tuple[str, int | None]:
        """Who asked."""
        return self.role, self.candidate

    @property
    def asked(self) -> tuple[str, int]:
        """What was asked."""
        return self.prompt, self.seed

    def __str__(self) -> str:
        of = "" if self.candidate is None else f" of candidate {self.candidate}"
        return f"request {self.number} of the {self.role}{of} (seed {self.seed})"


@dataclass
class Recording:
    """The answers of one run, as its events tell them."""

    answers: list[Answered] = field(default_factory=list)
    cancelled: set[int] = field(default_factory=set)
    """Candidates that were not brought to their end, because another one was accepted."""
    broken_off: bool = False
    """It was interrupted: more would have come."""
    _counts: Counter[tuple[str, int | None]] = field(default_factory=Counter)

    def on_event(self, event: str, data: Mapping[str, Any]) -> None:
        """Listener of a journal."""
        if event == "answered":
            self._answered(data)
        elif event == "remembered":  # it was asked before the run was killed
            self._remembered(data)
        elif event == "candidate_verified" and data["status"] == "cancelled":
            self.cancelled.add(data["candidate"])
        elif event == "run_finished":
            self.broken_off = data["status"] == "interrupted"

    def _answered(self, data: Mapping[str, Any]) -> None:
        branch = (data["role"], data["candidate"])
        self._counts[branch] += 1
        number = self._counts[branch]
        self.answers.append(Answered(*branch, number, data["seed"], data["prompt"], data["answer"]))

    def _remembered(self, data: Mapping[str, Any]) -> None:
        """The answer of a process that was killed, which may have died before it told of it."""
        of = (data["role"], data["candidate"])
        told = ((x.branch, x.seed, x.prompt) for x in self.answers)
        if (of, data["seed"], data["prompt"]) not in told:
            self._answered(data)

    @classmethod
    def of_journal(cls, path: Path) -> Recording:
        """The recording of a run that does not go on any more. Raises UsageError."""
        recording = cls(broken_off=True)  # as long as no end is told
        try:
            for data in read_objects(path):
                recording.on_event(data["event"], data)
        except (OSError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path} cannot be read: {error}", fix="Choose another run to replay."
            ) from None
        return recording


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The first place where two runs differ."""

    request: Answered
    kind: Literal["prompt", "answer", "missing", "added"]

    def __str__(self) -> str:
        return f"{self.request}: {_MEANING[self.kind]}"


_MEANING = {
    "answer": "the same prompt was answered differently",
    "prompt": "another prompt was sent",
    "missing": "it was not sent this time",
    "added": "it was sent only this time",
}


def first_divergence(before: Recording, now: Recording) -> Divergence | None:
    """Where `now` first differs from `before`, in the order of the run in which it shows.

    Requests that run at the same time may be answered in any order, so they are paired by what was
    asked. One of a candidate that was cancelled in either run, or that came after the end of a run
    that was broken off, may be missing in the other: that is a matter of time.
    """
    excused = before.cancelled | now.cancelled
    pairs, left = _paired(before, now)
    for mine in before.answers:
        other = pairs.get(mine)
        if other is not None and other.answer != mine.answer:
            return Divergence(request=mine, kind="answer")
        if other is None:
            instead = [x for x in left if x.branch == mine.branch]
            if instead:
                return Divergence(request=mine, kind="prompt")
            if mine.candidate not in excused and not now.broken_off:
                return Divergence(request=mine, kind="missing")
    added = [x for x in left if x.candidate not in excused and not before.broken_off]
    return Divergence(request=added[0], kind="added") if added else None


def _paired(before: Recording, now: Recording) -> tuple[dict[Answered, Answered], list[Answered]]:
    """The answer of now to each request that was asked in both, and those that only now asked."""
    left = list(now.answers)
    pairs = {}
    for mine in before.answers:
        same = [x for x in left if x.branch == mine.branch and x.asked == mine.asked]
        if same:
            pairs[mine] = next((x for x in same if x.answer == mine.answer), same[0])
            left.remove(pairs[mine])
    return pairs, left


@dataclass(frozen=True, kw_only=True)
class Replay:
    """How a run went again."""

    answers: int
    """Requests of the first run."""
    same: int
    """Those with the same prompt and answer in both."""
    divergence: Divergence | None

    @classmethod
    def of(cls, before: Recording, now: Recording) -> Replay:
        """Compare two runs."""
        pairs, _ = _paired(before, now)
        return cls(
            answers=len(before.answers),
            same=sum(mine.answer == other.answer for mine, other in pairs.items()),
            divergence=first_divergence(before, now),
        )

    def event(self) -> dict[str, Any]:
        """The data of ``replay_compared``."""
        first = self.divergence
        told = {**asdict(first.request), "kind": first.kind} if first else None
        return {"answers": self.answers, "same": self.same, "divergence": told}

    def __str__(self) -> str:
        count = f"{self.same} of {self.answers} answers are the same"
        return f"replay: {count}; first divergence: {self.divergence or 'none'}"


def find_run(runs: Path, name: str) -> Path:
    """The folder of the run of that name, of the only one that begins with it, or for ``last`` of
    the newest one that is no replay and had a server.

    Raises UsageError that lists the newest ones."""
    known = sorted(path for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else []
    if name == "last":
        found = [path for path in known if _is_original(path)][-1:]
    else:
        exact = [path for path in known if path.name == name]
        found = exact or [path for path in known if name and path.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    raise UsageError(
        f"{len(found)} runs begin with {name!r}" if found else f"There is no run {name!r} here",
        fix=_newest(known),
    )


def _is_original(folder: Path) -> bool:
    """Whether its server was ready and it is no replay itself."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        return bool(manifest.get("engine")) and not manifest.get("replay_of")
    except (OSError, ValueError, AttributeError):
        return False


def _newest(known: Sequence[Path]) -> str:
    if not known:
        return "No run was made in this repository yet."
    return f"The newest: {', '.join(path.name for path in reversed(known[-_SHOWN:]))}"
