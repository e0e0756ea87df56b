"""How runs ended: the last event, the exit code, and what the report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from agent.core.backend_manager import Usage
from agent.team.state import Candidate, Plan, Review

Status = Literal["planned", "accepted", "rejected", "failed", "interrupted"]

INTERRUPTED = 130
"""Exit code after Ctrl-C; a session ended by another signal leaves with 128 + its number."""
_MOST_DIFF = 50_000
"""Characters of a diff that a report shows; git has the whole."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One task, done or not."""

    status: Status
    """`planned` ends a dry run; `rejected`: green, but the reviewer never accepted."""
    exit_code: int
    task: str = ""
    """Its title."""
    run: str = ""
    """The name of its folder below ``.turbo/runs``."""
    reason: str = ""
    """Why it was not accepted."""
    branch: str | None = None
    commit: str | None = None
    plan: Plan | None = None
    candidates: Sequence[Candidate] = ()
    chosen: Candidate | None = None
    """The accepted candidate, or the best of those that were not."""
    review: Review | None = None
    started: int = 0
    """Candidates that were begun, in all rounds."""
    usage: Usage = field(default_factory=Usage)
    busy_s: float = 0.0
    """Wall seconds during which the model worked."""
    busy_slots: float = 0.0
    """Slots that decoded at the same time, on average; 0 when unknown."""
    reading_rate: float = 0.0
    """Prompt tokens per second, as measured; 0 when unknown."""
    sent: Mapping[str, Any] | None = None
    """What went to another machine: its `host`, `requests`, and `bytes` of their bodies; None when
    nothing leaves this one."""
    restarts: int = 0
    """Times that the server died or hung and was started again."""
    resumed: bool = False
    """An earlier process of this run was killed or interrupted; what is counted here came after."""
    resumable: bool = False
    """It did not come to its end, and ``turbo runs resume`` goes on with it."""
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
                "started": self.started,
                "green": sum(c.status == "green" for c in self.candidates),
            },
            "tokens": {
                "prompt": self.usage.prompt,
                "computed": self.usage.computed,
                "cached": self.usage.cached,
                "expected_cached": self.usage.expected_cached,
                "predicted": self.usage.predicted,
            },
            "left_machine": dict(self.sent) if self.sent else None,
            "resumed": self.resumed,
            "resumable": self.resumable,
            "wall_s": round(self.wall_s, 3),
        }


@dataclass
class Ledger:
    """What became of the tasks of a session; filled as it goes, so that an end loses nothing."""

    waiting: list[str] = field(default_factory=list)
    """Titles of the tasks that have not run, in their order."""
    results: list[RunResult] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 when every task was accepted (or planned, in a dry run), else the gravest code."""
        return max((result.exit_code for result in self.results), default=0)

    @property
    def branches(self) -> list[str]:
        """The branches that were made."""
        return [result.branch for result in self.results if result.branch]

    def enter(self, result: RunResult) -> None:
        """Note the end of the task that was next. Of thousands of tasks no more is kept than the
        report shows."""
        chosen = result.chosen and _with_diff(result.chosen, _shortened(result.chosen.diff))
        others = [_with_diff(candidate, "") for candidate in result.candidates]
        self.results.append(replace(result, chosen=chosen, candidates=others))
        del self.waiting[:1]

    def verdict(self) -> RunResult:
        """All tasks as one: what the exit code of the session means."""
        if not self.results:
            return RunResult(status="accepted", exit_code=0, reason="nothing to do")
        worst = max(self.results, key=lambda result: result.exit_code)
        bad = sum(result.exit_code != 0 for result in self.results)
        return RunResult(
            status="failed" if worst.exit_code and worst.status == "accepted" else worst.status,
            exit_code=worst.exit_code,
            reason=f"{bad} of {len(self.results)} tasks did not succeed" if bad else "",
            candidates=[each for result in self.results for each in result.candidates],
            started=sum(result.started for result in self.results),
            usage=sum((result.usage for result in self.results), Usage()),
            busy_s=sum(result.busy_s for result in self.results),
            reading_rate=max(result.reading_rate for result in self.results),
            wall_s=sum(result.wall_s for result in self.results),
        )


def _with_diff(candidate: Candidate, diff: str) -> Candidate:
    return candidate.model_copy(update={"diff": diff})


def _shortened(diff: str) -> str:
    """`diff`, or its first lines and how many follow."""
    if len(diff) <= _MOST_DIFF:
        return diff
    head = diff[:_MOST_DIFF].rpartition("\n")[0] or diff[:_MOST_DIFF]
    return f"{head}\n... and {diff.count(chr(10), len(head) + 1) or 1} more lines\n"
