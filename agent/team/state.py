"""What a run knows, as data: plan, candidates, reviews, result.

Everything here is frozen and survives a checkpoint. Live things (backend, worktrees, journal)
are in `agent.team.context`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field, create_model

from agent.team.task_file import Task

Path = Annotated[str, Field(min_length=1, max_length=200)]
"""A path as a model writes it; bounded, because a schema does not end a string by itself."""


Number = Annotated[int, Field(ge=1, le=8)]
"""The number of a step, counted from 1."""


class Frozen(BaseModel):
    """Base of all data of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(Frozen):
    """One file to create or edit."""

    path: Path
    action: Literal["create", "edit"]
    instruction: str = Field(min_length=1, max_length=1200)
    depends_on: list[Number] = Field(default_factory=list, max_length=8)
    """Numbers of earlier steps, counted from 1."""


class Plan(Frozen):
    """What the planner decided."""

    summary: str = Field(max_length=400)
    steps: list[Step] = Field(min_length=1, max_length=8)
    read: list[Path] = Field(default_factory=list, max_length=8)
    """Further files that the coder must see."""


def plan_answer(allowed: Sequence[str]) -> type[Plan]:
    """The form of a planner's answer: all keys required, and paths limited to `allowed` if any.

    The schema then keeps a small model from inventing a path at all.
    """
    kind: Any = Literal[tuple(allowed)] if allowed else Path
    step: Any = create_model(
        "PlannedStep",
        __base__=Step,
        path=(kind, ...),
        depends_on=(list[Number], Field(max_length=8)),
    )
    return create_model(
        "PlanAnswer",
        __base__=Plan,
        steps=(list[step], Field(min_length=1, max_length=8)),
        read=(list[Path], Field(max_length=8)),
    )


class Verified(Frozen):
    """What the test command said about one candidate."""

    command: str
    exit_code: int | None
    """None when the time limit ended it."""
    failures: int
    completed: bool
    """False when tests could not be collected, built or ended; `failures` then says little."""
    ran: int | None = None
    """Tests that ran to a verdict; None when they were not counted."""
    summary: str
    """The last line that matters, for people."""
    evidence: str
    """The output cut to what a repair needs; empty when green."""
    duration_s: float

    @property
    def green(self) -> bool:
        """True when the command ended with exit code 0."""
        return self.exit_code == 0


class Comment(Frozen):
    """One remark of the reviewer."""

    file: str = Field(max_length=200)
    line: int = Field(ge=0, le=999_999)
    severity: Literal["error", "warning", "note"]
    text: str = Field(max_length=500)


class Review(Frozen):
    """The reviewer's judgement."""

    verdict: Literal["accept", "revise"]
    comments: list[Comment] = Field(default_factory=list, max_length=6)


class Candidate(Frozen):
    """One answer to the whole plan: written, applied, tested."""

    round: int
    index: int
    seed: int
    status: Literal["green", "red", "invalid", "cancelled"]
    """green: tests passed, or there are none; invalid: nothing usable was written."""
    commit: str | None = None
    """A commit that no branch names, on top of the run's base."""
    diff: str = ""
    tests: Verified | None = None
    reason: str = ""
    """Why it is invalid, was cancelled or could not be reviewed, with what to do about it."""
    review: Review | None = None
    """None while it was not reviewed: it is red, or another one was accepted first."""
    weakened: str = ""
    """How it weakened the tests, or what came of them: it is red then, whatever they say."""
    lint: str = ""
    """What the repository's linters complained about; it does not decide anything."""


class ReviewAnswer(Review):
    """The form of a reviewer's answer: all keys required."""

    comments: list[Comment] = Field(max_length=6)


class TeamState(TypedDict, total=False):
    """The state of the graph. Candidates only ever accumulate."""

    task: Task
    test_command: tuple[str, ...] | None
    plan: Plan
    plans: list[Plan]
    """All plans so far; the last one is `plan`."""
    first_round: int
    """The round in which `plan` was first coded; earlier candidates followed another plan."""
    round: int
    """The round that runs or ran last, from 0."""
    candidates: Annotated[list[Candidate], operator.add]
    review: Review | None
    """Of the best candidate so far; None while none is green. It stays when a later round writes
    nothing better, so that the next repair still has its comments."""
    failure: str
    """Why the run ends without an accepted commit; empty while it may still succeed."""


class Attempt(TypedDict):
    """What one fan-out branch is given."""

    task: Task
    test_command: tuple[str, ...] | None
    plan: Plan
    round: int
    index: int
    start_from: Candidate | None
    """The candidate to repair; None in the first round."""
    review: Review | None
    """The review of `start_from`, when it is green."""
