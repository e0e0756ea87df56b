"""How a run ends: with a commit on a branch of its own, or with the reason why there is none."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from agent.core.errors import EngineError, WorkspaceError
from agent.core.journal import Journal
from agent.core.workspace import Workspace
from agent.team.candidates import best_so_far
from agent.team.context import TeamContext, Totals
from agent.team.preparation import fixed_tokens
from agent.team.result import RunResult, Status
from agent.team.state import Candidate, TeamState
from agent.team.task_file import Task

Answer = TypeVar("Answer")

_TASK_TRAILER = "Turbo-Task"
_RUN_TRAILER = "Turbo-Run"


@dataclass
class Record:
    """What is known of a run so far: whatever ends it, that much is reported."""

    result: RunResult
    totals: Totals = field(default_factory=Totals)
    begin: float = field(default_factory=time.monotonic)

    def begun(self, *, resumed: bool, resumable: bool) -> None:
        """Note that it has a folder, and from where it came."""
        self.result = replace(self.result, resumed=resumed, resumable=resumable)

    def end(self, status: Status, exit_code: int, reason: str = "") -> None:
        """Note how it ended, without forgetting what it came to."""
        self.result = replace(self.result, status=status, exit_code=exit_code, reason=reason)

    def measured(self) -> RunResult:
        """The result with what it has cost."""
        return replace(
            self.result,
            started=self.totals.started,
            usage=self.totals.usage,
            busy_s=self.totals.busy_s,
            busy_slots=self.totals.busy_slots,
            reading_rate=self.totals.reading_rate,
            wall_s=time.monotonic() - self.begin,
        )


async def conclude(
    task: Task,
    state: TeamState,
    context: TeamContext,
    record: Record,
    *,
    publish: bool,
    apply: bool,
) -> None:
    """Judge the last state and, when asked to, publish what was accepted; all goes into
    `record`."""
    candidates = state.get("candidates", [])
    review = state.get("review")
    failure = state.get("failure", "")
    chosen = best_so_far(candidates)
    record.result = replace(
        record.result,
        plan=state.get("plan"),
        candidates=candidates,
        chosen=chosen,
        review=review,
    )
    with contextlib.suppress(EngineError):  # a server that dies now has done its work
        record.result = replace(record.result, fixed_tokens=await fixed_tokens(context))
    if context.settings.dry_run and not failure:
        record.end("planned", 0)
    elif failure or review is None or review.verdict != "accept" or chosen is None:
        green = chosen is not None and chosen.status == "green"
        record.end("rejected" if green else "failed", 1, failure)
    elif not publish:
        record.end("accepted", 0)
    else:
        await to_its_end(_publish(task, chosen, context, record, apply=apply))


async def conclude_published(
    task: Task, workspace: Workspace, journal: Journal, record: Record, *, apply: bool
) -> bool:
    """Whether the run was killed after its commit was on its branch: then it is accepted."""
    found = await workspace.published(_branch(task, workspace.run), run_trailer(workspace.run))
    if found is None:
        return False
    branch, commit = found
    await to_its_end(_deliver(branch, commit, workspace, journal, record, apply=apply))
    return True


async def _publish(
    task: Task, chosen: Candidate, context: TeamContext, record: Record, *, apply: bool
) -> None:
    assert chosen.commit is not None  # noqa: S101 - a green candidate has a commit
    workspace = context.workspace
    branch, commit = await workspace.publish(
        chosen.commit,
        branch=_branch(task, workspace.run),
        message=commit_message(task, workspace.run),
    )
    await _deliver(branch, commit, workspace, context.journal, record, apply=apply)


async def _deliver(
    branch: str,
    commit: str,
    workspace: Workspace,
    journal: Journal,
    record: Record,
    *,
    apply: bool,
) -> None:
    record.result = replace(record.result, branch=branch, commit=commit)
    record.end("accepted", 0)
    journal.emit("committed", branch=branch, commit=commit)
    if apply:
        try:
            moved = await workspace.fast_forward(commit)
        except WorkspaceError as error:
            record.end("accepted", 1, str(error))
        else:
            record.end("accepted", 0, f"{moved} now stands at it")


async def to_its_end(work: Coroutine[Any, Any, Answer]) -> Answer:
    """Do `work` wholly even when this task is cancelled meanwhile; then it is cancelled."""
    doing = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.gather(doing, return_exceptions=True)
        raise


def commit_message(task: Task, run: str) -> str:
    """Title, prose, and trailers that name the task and the run."""
    return f"{task.title}\n\n{task.body}\n\n{task_trailer(task)}\n{run_trailer(run)}\n"


def run_trailer(run: str) -> str:
    """The line by which the commit of a run is recognised."""
    return f"{_RUN_TRAILER}: {run}"


def _branch(task: Task, run: str) -> str:
    return f"turbo/{task.slug}-{run}"


async def done_tasks(tasks: Sequence[Task], workspace: Workspace) -> list[Task]:
    """Those of `tasks` that a commit on a local branch names."""
    beginning = f"{_TASK_TRAILER}: "
    done = await workspace.mentioned(beginning)
    return [task for task in tasks if task_trailer(task).removeprefix(beginning) in done]


def task_trailer(task: Task) -> str:
    """The line by which a done task is recognised: a hash of what was asked."""
    asked = f"{task.title}\0{task.body}\0{task.files}".encode()
    return f"{_TASK_TRAILER}: {hashlib.sha256(asked).hexdigest()[:16]}"
