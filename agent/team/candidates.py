"""Candidates: several answers at the same time, judged by the repository's own tests.

`attempt` writes one candidate: every step of the plan, in a worktree of its own, then linters,
then tests. The commit is made before the tests run: it holds what they are about to judge and
nothing that they leave behind. Nothing is raised for what a model did wrong; such a candidate just
loses. The choice among candidates is pure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from agent.core.errors import BadAnswer, ContextTooSmall, EditError, GarbledOutput
from agent.core.sampling import Sampling, candidate_sampling
from agent.team.coder import Job, write_step
from agent.team.context import Race, TeamContext
from agent.team.edits import read_file, write_file
from agent.team.judge import tidy, verify_once
from agent.team.state import Attempt, Candidate, Plan, Review, Step


async def attempt(work: Attempt, context: TeamContext) -> Candidate:
    """Write, apply and test one candidate, or stop as soon as another of the round is green.

    Raises an EngineError when the backend fails, CommandError when tests cannot be started.
    """
    race = context.race(work["round"])
    writing = asyncio.ensure_future(_write_and_test(work, context, race))
    winner = asyncio.ensure_future(race.won.wait())
    try:
        await asyncio.wait({writing, winner}, return_when=asyncio.FIRST_COMPLETED)
        if writing.done() and not writing.cancelled():
            candidate = writing.result()
            if candidate.status == "green":
                race.won.set()
        else:
            candidate = _lost(work, context, "cancelled", "another candidate was green first")
    finally:
        for task in (writing, winner):
            task.cancel()
        await asyncio.gather(writing, winner, return_exceptions=True)
    context.journal.emit(
        "candidate_verified",
        candidate=candidate.index,
        round=candidate.round,
        status=candidate.status,
        failures=candidate.tests.failures if candidate.tests else None,
        summary=candidate.tests.summary if candidate.tests else candidate.reason,
        lint=candidate.lint,
    )
    return candidate


async def _write_and_test(work: Attempt, context: TeamContext, race: Race) -> Candidate:
    number, index, start = work["round"], work["index"], work["start_from"]
    sampling = candidate_sampling(index, seed=context.settings.turbo_seed, attempt=number)
    context.totals.started += 1
    context.journal.emit("candidate_started", candidate=index, round=number, seed=sampling.seed)
    worktree = await context.workspace.worktree(f"c{index}", at=start.commit if start else None)
    try:
        await _write_steps(work, context, worktree, sampling)
        commit, diff = await _keep(work, context, worktree)
        lint = await tidy(_written(work, worktree), worktree, context)
        if lint is not None:
            commit, diff = await _keep(work, context, worktree)
    except (BadAnswer, ContextTooSmall, EditError, GarbledOutput) as error:
        return _lost(work, context, "invalid", str(error))
    tests = None
    if work["test_command"] is not None:
        context.journal.show("progress", role="coder", candidate=index, phase="test")
        tests = await verify_once(diff, worktree, work["test_command"], context, race)
    return Candidate(
        round=number,
        index=index,
        seed=sampling.seed,
        status="green" if tests is None or tests.green else "red",
        commit=commit,
        diff=diff,
        tests=tests,
        lint=lint or "",
    )


async def _write_steps(
    work: Attempt, context: TeamContext, worktree: Path, sampling: Sampling
) -> None:
    """Carry out the steps in the worktree."""
    plan, start = work["plan"], work["start_from"]
    evidence = ""
    if start is not None:
        told = describe_failure(start, work["review"])
        evidence = told or context.prompts.fill("no_reason")
    steps = steps_to_repair(plan, evidence) if start else plan.steps
    for position, step in enumerate(steps):
        names = [step.path, *(path for path in plan.read if path != step.path)]
        files = {name: await asyncio.to_thread(read_file, name, worktree) for name in names}
        job = Job(
            task=work["task"],
            step=step,
            files=files,
            sampling=sampling,
            candidate=work["index"],
            evidence=evidence,
            # after the first step each candidate sees what it wrote itself
            alike=1 if position else context.candidates,
        )
        content = await write_step(job, context)
        await asyncio.to_thread(write_file, step.path, worktree, content)


def _written(work: Attempt, worktree: Path) -> list[str]:
    return sorted({step.path for step in work["plan"].steps if (worktree / step.path).exists()})


async def _keep(work: Attempt, context: TeamContext, worktree: Path) -> tuple[str, str]:
    """A commit of the steps' files as they are now, and its diff.

    Raises EditError when git sees no change since the base, or since what was to be repaired.
    """
    start = work["start_from"]
    message = f"candidate {work['index']} of round {work['round']}"
    commit = await context.workspace.snapshot(worktree, _written(work, worktree), message)
    diff = await context.workspace.diff(commit)
    if not diff or (start is not None and diff == start.diff):
        raise EditError("the answer changes nothing")
    return commit, diff


def best_so_far(candidates: Sequence[Candidate]) -> Candidate | None:
    """The candidate of all rounds to go on with: a green one, else the one with fewest failures.

    A candidate whose tests could not even be collected is worse than one whose tests fail. Of
    equals it is one of the latest round. None when nothing usable was written.
    """
    usable = [c for c in candidates if c.status in ("green", "red")]
    return min(usable, key=_badness, default=None)


def _badness(candidate: Candidate) -> tuple[bool, bool, int, int, int]:
    tests = candidate.tests
    broken, failures = (not tests.completed, tests.failures) if tests else (False, 0)
    return candidate.status != "green", broken, failures, -candidate.round, candidate.index


def steps_to_repair(plan: Plan, evidence: str) -> list[Step]:
    """The steps whose file the evidence names; all of them when it names none."""
    named = [
        step
        for step in plan.steps
        if step.path in evidence or PurePosixPath(step.path).name in evidence
    ]
    return named or list(plan.steps)


def describe_failure(candidate: Candidate, review: Review | None) -> str:
    """Why a candidate was not accepted, as the repairing coder reads it; empty when unknown."""
    parts = []
    if candidate.tests is not None and not candidate.tests.green:
        parts.append(f"Tests: exit code {candidate.tests.exit_code}\n{candidate.tests.evidence}")
    if review is not None:
        parts += [
            f"{comment.file}:{comment.line} {comment.severity}: {comment.text}"
            for comment in review.comments
        ]
    return "\n".join(parts)


def _lost(work: Attempt, context: TeamContext, status: str, reason: str) -> Candidate:
    seed = candidate_sampling(
        work["index"], seed=context.settings.turbo_seed, attempt=work["round"]
    ).seed
    return Candidate.model_validate(
        {
            "round": work["round"],
            "index": work["index"],
            "seed": seed,
            "status": status,
            "reason": reason,
        }
    )
