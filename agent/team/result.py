"""How a run ended: the last event, the exit code, and what the report shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.core.backend_manager import Usage
from agent.team.state import Candidate, Plan, Review

Status = Literal["planned", "accepted", "rejected", "failed", "interrupted"]

INTERRUPTED = 130
"""Exit code after Ctrl-C; a run ended by another signal leaves with 128 + its number."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One task, done or not."""

    status: Status
    """`planned` ends a dry run; `rejected`: green, but the reviewer never accepted."""
    exit_code: int
    reason: str = ""
    """Why it was not accepted."""
    branch: str | None = None
    commit: str | None = None
    plan: Plan | None = None
    candidates: Sequence[Candidate] = ()
    chosen: Candidate | None = None
    """The accepted candidate, or the best of those that were not."""
    review: Review | None = None
    usage: Usage = field(default_factory=Usage)
    busy_s: float = 0.0
    """Wall seconds during which the model worked."""
    wall_s: float = 0.0
    fixed_tokens: dict[str, int] = field(default_factory=dict)
    """Tokens of each role's fixed text, the system prompt included."""

    def event(self) -> dict[str, Any]:
        """The data of ``run_finished``, as ``product.md`` has it."""
        tests = self.chosen.tests if self.chosen else None
        return {
            "status": self.status,
            "reason": self.reason,
            "branch": self.branch,
            "commit": self.commit,
            "tests": {"exit_code": tests.exit_code} if tests else None,
            "candidates": {
                "started": len(self.candidates),
                "green": sum(c.status == "green" for c in self.candidates),
            },
            "tokens": {
                "prompt": self.usage.prompt,
                "computed": self.usage.computed,
                "cached": self.usage.cached,
                "expected_cached": self.usage.expected_cached,
                "predicted": self.usage.predicted,
            },
            "wall_s": round(self.wall_s, 3),
        }


def overall_exit_code(results: Sequence[RunResult]) -> int:
    """0 when every task was accepted (or planned, in a dry run), else the gravest code."""
    return max((result.exit_code for result in results), default=0)
