"""Candidates: several answers at the same time, judged by the repository's own tests.

`attempt` writes one candidate: every step of the plan, in a worktree of its own, then linters,
then tests. It never raises for what a model did wrong; such a candidate just loses. The choice
among candidates is pure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from agent.core.errors import BadAnswer, EditError, GarbledOutput
from agent.core.sampling import Sampling, candidate_sampling
from agent.team.coder import Job, write_step
from agent.team.context import Race, TeamContext
from agent.team.edits import check_edit_path
from agent.team.judge import verify_once
from agent.team.state import Attempt, Candidate, Plan, Review, Step, of_round


async def attempt(work: Attempt, context: TeamContext) -> Candidate:
    """Write, apply and test one candidate, or stop as soon as another of the round is green.

    Raises an EngineError when the backend fails, CommandError when tests cannot be started.
    """
    race = context.race(work["round"])
    writing = asyncio.ensure_future(_write_and_test(work, context, race))
    winner = asyncio.ensure_future(race.won.wait())
    try:
        await asyncio.wait({writing, winner}, return_when=asyncio.FIRST_COMPLETED)
        if writing.done():
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
    )
    return candidate


async def _write_and_test(work: Attempt, context: TeamContext, race: Race) -> Candidate:
    number, index, start = work["round"], work["index"], work["start_from"]
    sampling = candidate_sampling(index, seed=context.settings.turbo_seed, attempt=number)
    context.journal.emit("candidate_started", candidate=index, round=number, seed=sampling.seed)
    workspace = context.workspace
    worktree = await workspace.worktree(f"c{index}", at=start.commit if start else None)
    try:
        written = await _write_steps(work, context, worktree, sampling)
    except (BadAnswer, EditError, GarbledOutput) as error:
        return _lost(work, context, "invalid", error.message)
    if start is None and not await _changes_anything(written, context):
        return _lost(work, context, "invalid", "the answer changes nothing")
    context.journal.show("progress", role="coder", candidate=index, phase="test")
    tests, lint = await verify_once(written, worktree, work["test_command"], context, race)
    paths = sorted({step.path for step in work["plan"].steps if (worktree / step.path).exists()})
    commit = await workspace.snapshot(worktree, paths, f"candidate {index} of round {number}")
    return Candidate(
        round=number,
        index=index,
        seed=sampling.seed,
        status="green" if tests is None or tests.green else "red",
        commit=commit,
        diff=await workspace.diff(commit),
        tests=tests,
        reason=lint,
    )


async def _write_steps(
    work: Attempt, context: TeamContext, worktree: Path, sampling: Sampling
) -> dict[str, str]:
    """Carry out the steps in the worktree; what was written, by path."""
    plan, start = work["plan"], work["start_from"]
    evidence = describe_failure(start, work["review"]) if start else ""
    steps = steps_to_repair(plan, evidence) if start else plan.steps
    written: dict[str, str] = {}
    for step in steps:
        target = check_edit_path(step.path, worktree)
        names = [step.path, *(path for path in plan.read if path != step.path)]
        files = {name: await asyncio.to_thread(_read, worktree / name) for name in names}
        job = Job(
            task=work["task"],
            step=step,
            files=files,
            sampling=sampling,
            candidate=work["index"],
            evidence=evidence,
        )
        content = await write_step(job, context)
        await asyncio.to_thread(_write, target, content)
        written[step.path] = content
    return written


def best_of(candidates: Sequence[Candidate]) -> Candidate | None:
    """The candidate of a round to go on with: a green one, else the one with fewest failures.

    A candidate whose tests could not even be collected is worse than one whose tests fail. None
    when nothing usable was written.
    """
    usable = [c for c in candidates if c.status in ("green", "red")]
    return min(
        usable,
        key=_badness,
        default=None,
    )


def _badness(candidate: Candidate) -> tuple[bool, bool, int, int]:
    tests = candidate.tests
    broken, failures = (not tests.completed, tests.failures) if tests else (False, 0)
    return candidate.status != "green", broken, failures, candidate.index


def best_so_far(candidates: Sequence[Candidate]) -> Candidate | None:
    """The best candidate of the last round that wrote anything usable."""
    rounds = sorted({candidate.round for candidate in candidates}, reverse=True)
    found = (best_of(of_round(candidates, number)) for number in rounds)
    return next((best for best in found if best is not None), None)


def steps_to_repair(plan: Plan, evidence: str) -> list[Step]:
    """The steps whose file the evidence names; all of them when it names none."""
    named = [
        step
        for step in plan.steps
        if step.path in evidence or PurePosixPath(step.path).name in evidence
    ]
    return named or list(plan.steps)


def describe_failure(candidate: Candidate, review: Review | None) -> str:
    """Why a candidate was not accepted, as the repairing coder reads it."""
    parts = []
    if candidate.tests is not None and not candidate.tests.green:
        parts.append(f"Tests: exit code {candidate.tests.exit_code}\n{candidate.tests.evidence}")
    if review is not None:
        parts += [
            f"{comment.file}:{comment.line} {comment.severity}: {comment.text}"
            for comment in review.comments
        ]
    return "\n".join(parts) or "The reviewer asked for a revision without saying why."


async def _changes_anything(written: Mapping[str, str], context: TeamContext) -> bool:
    for path, content in written.items():
        if await context.workspace.read(path) != content:
            return True
    return False


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


def _read(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return None


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(content)
