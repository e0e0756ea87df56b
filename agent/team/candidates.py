"""Candidates: several answers at the same time, judged by the repository's own tests.

`attempt` writes one candidate: every step of the plan, in a worktree of its own, then linters, then
tests, and a review when they are green. The commit is made before the tests run: it holds what they
are about to judge and nothing that they leave behind. Nothing is raised for what a model did wrong;
such a candidate just loses. The choice among candidates is pure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from agent.core.errors import BadAnswer, ContextTooSmall, EditError, GarbledOutput
from agent.core.sampling import Sampling, candidate_sampling
from agent.team.coder import Job, write_step
from agent.team.context import Race, TeamContext
from agent.team.edits import MOST_BYTES, read_file, write_file
from agent.team.judge import begin_base_tests, tidy, verify_once, why_hollow
from agent.team.reviewer import read_review_ahead, review_candidate
from agent.team.state import Attempt, Candidate, Plan, Review, Step, Verified
from agent.team.waves import shown_to, waves
from agent.team.weakened import weaker_tests

NO_ANSWER = (BadAnswer, ContextTooSmall, GarbledOutput)
"""What a model causes and another request need not meet."""


async def attempt(work: Attempt, context: TeamContext) -> Candidate:
    """Write, apply, test and review one candidate, or stop as soon as another one is accepted.

    Candidates are tested as each is complete, while others still decode; green ones are reviewed
    in turn. Raises an EngineError when the backend fails, CommandError when tests cannot be
    started.
    """
    race = context.race(work["round"])
    verified: list[Candidate] = []
    running = asyncio.ensure_future(_run(work, context, race, verified))
    accepted = asyncio.ensure_future(race.accepted.wait())
    try:
        await asyncio.wait({running, accepted}, return_when=asyncio.FIRST_COMPLETED)
        if running.done() and not running.cancelled():
            return running.result()
    finally:
        for task in (running, accepted):
            task.cancel()
        await asyncio.gather(running, accepted, return_exceptions=True)
    if verified:
        return verified[0]
    return _too_late(work, context)


def _too_late(work: Attempt, context: TeamContext) -> Candidate:
    candidate = _lost(work, context, "cancelled", "another candidate was accepted first")
    _tell(candidate, context)
    return candidate


async def _run(
    work: Attempt, context: TeamContext, race: Race, verified: list[Candidate]
) -> Candidate:
    """One candidate to its end; `verified` gets it as soon as its tests have run."""
    async with race.turns:
        if race.accepted.is_set():
            return _too_late(work, context)
        return await _write_test_review(work, context, race, verified)


async def _write_test_review(
    work: Attempt, context: TeamContext, race: Race, verified: list[Candidate]
) -> Candidate:
    candidate = await _write_and_test(work, context, race)
    if context.base_tests.are_known():
        candidate = await _unless_hollow(candidate, work, context)
    verified.append(candidate)
    _tell(candidate, context)
    if candidate.status != "green":
        return candidate
    async with race.reviewing:
        review = race.reviews.get(candidate.diff)
        if review is None:
            try:
                review = await review_candidate(work["task"], candidate, context)
            except NO_ANSWER as error:
                reason = f"The reviewer gave no usable answer: {error}"
                return candidate.model_copy(update={"reason": reason})
            race.reviews[candidate.diff] = review
            context.journal.emit("review_ready", candidate=candidate.index, **review.model_dump())
        candidate = await _unless_hollow(candidate, work, context)
        if candidate.weakened:
            verified[:] = [candidate]
            _tell(candidate, context)
            return candidate
        if review.verdict == "accept":
            race.accepted.set()
    return candidate.model_copy(update={"review": review})


async def _unless_hollow(candidate: Candidate, work: Attempt, context: TeamContext) -> Candidate:
    """The candidate, red when its green tests prove less than those before the change."""
    command = work["test_command"]
    if command is None or candidate.tests is None or candidate.weakened:
        return candidate
    if reason := await why_hollow(candidate.tests, command, context):
        return candidate.model_copy(update={"status": "red", "weakened": reason})
    return candidate


def _tell(candidate: Candidate, context: TeamContext) -> None:
    context.journal.emit(
        "candidate_verified",
        candidate=candidate.index,
        round=candidate.round,
        status=candidate.status,
        failures=candidate.tests.failures if candidate.tests else None,
        summary=candidate.weakened
        or (candidate.tests.summary if candidate.tests else candidate.reason),
        weakened=candidate.weakened,
        lint=candidate.lint,
    )


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
        weakened = await _why_weaker(work, context, worktree)
    except (*NO_ANSWER, EditError) as error:
        return _lost(work, context, "invalid", str(error))
    tests, command = None, work["test_command"]
    if command is not None and not weakened:
        context.journal.show("progress", role="coder", candidate=index, phase="test")
        tests = await _verify(work, diff, worktree, command, context, race)
        if tests.green and context.settings.turbo_weaker_tests == "refuse":
            begin_base_tests(command, context)  # the review goes on meanwhile
    passed = (tests is None or tests.green) and not weakened
    return Candidate(
        round=number,
        index=index,
        seed=sampling.seed,
        status="green" if passed else "red",
        commit=commit,
        diff=diff,
        tests=tests,
        weakened=weakened,
        lint=lint or "",
    )


async def _verify(
    work: Attempt,
    diff: str,
    worktree: Path,
    command: Sequence[str],
    context: TeamContext,
    race: Race,
) -> Verified:
    """The tests; meanwhile an idle slot may read what the reviewer will be asked."""
    if context.settings.turbo_overlap == "off" or diff in race.verified:
        return await verify_once(diff, worktree, command, context, race)
    reading = asyncio.ensure_future(read_review_ahead(work["task"], diff, context))
    try:
        tests = await verify_once(diff, worktree, command, context, race)
        if tests.green:  # what is still missing would be read for the review anyway
            await reading
        return tests
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _write_steps(
    work: Attempt, context: TeamContext, worktree: Path, sampling: Sampling
) -> None:
    """Carry out the steps in the worktree, those that do not need one another at the same time."""
    plan, start = work["plan"], work["start_from"]
    evidence = ""
    if start is not None:
        told = describe_failure(start, work["review"])
        evidence = told or context.prompts.fill("no_reason")
        if start.weakened:
            evidence = context.prompts.fill("weakened", reasons=told)
    steps = steps_to_repair(plan, evidence) if start else plan.steps

    async def write(step: Step, alike: int) -> None:
        names = shown_to(step, plan)
        files = {name: await asyncio.to_thread(read_file, name, worktree) for name in names}
        job = Job(
            task=work["task"],
            step=step,
            files=files,
            sampling=sampling,
            candidate=work["index"],
            evidence=evidence,
            alike=alike,
        )
        content = await write_step(job, context)
        await asyncio.to_thread(write_file, step.path, worktree, content)

    for number, wave in enumerate(waves(plan, steps)):
        # after the first wave each candidate sees what it wrote itself
        alike = 1 if number else context.candidates
        try:
            async with asyncio.TaskGroup() as group:
                for step in wave:
                    group.create_task(write(step, alike))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None


def _written(work: Attempt, worktree: Path) -> list[str]:
    """The steps' files that are there. Raises EditError for what a tool has made of one that is no
    text file any more."""
    paths = sorted({step.path for step in work["plan"].steps})
    return [path for path in paths if read_file(path, worktree) is not None]


async def _why_weaker(work: Attempt, context: TeamContext, worktree: Path) -> str:
    """What the tests among the steps' files lost since the base; empty when they lost nothing."""
    if context.settings.turbo_weaker_tests == "allow":
        return ""
    found: list[str] = []
    for path in sorted({step.path for step in work["plan"].steps}):
        before = await context.workspace.read(path)
        if before is not None:
            after = await asyncio.to_thread(read_file, path, worktree)
            found += await asyncio.to_thread(weaker_tests, path, before, after or "")
    return "; ".join(found)


async def _keep(work: Attempt, context: TeamContext, worktree: Path) -> tuple[str, str]:
    """A commit of the steps' files as they are now, and its diff.

    Raises EditError when git sees no change since the base, or since what was to be repaired, and
    for a file that became too large: also a formatter may have written it.
    """
    start = work["start_from"]
    message = f"candidate {work['index']} of round {work['round']}"
    written = _written(work, worktree)
    for path in written:
        if (worktree / path).stat().st_size > MOST_BYTES:
            raise EditError(f"{path} would be larger than {MOST_BYTES} bytes")
    commit = await context.workspace.snapshot(worktree, written, message)
    diff = await context.workspace.diff(commit)
    if not diff or (start is not None and diff == start.diff):
        raise EditError("the answer changes nothing")
    return commit, diff


def best_so_far(candidates: Sequence[Candidate]) -> Candidate | None:
    """The candidate of all rounds to go on with: an accepted one, else a green one, else the one
    with fewest failures, else one that weakened the tests.

    A candidate whose tests could not even be collected is worse than one whose tests fail. Of
    equals it is one of the latest round. None when nothing usable was written.
    """
    usable = [c for c in candidates if c.status in ("green", "red")]
    return min(usable, key=_badness, default=None)


def _badness(candidate: Candidate) -> tuple[bool, bool, bool, bool, bool, int, int, int]:
    tests, review = candidate.tests, candidate.review
    accepted = review is not None and review.verdict == "accept"
    broken, failures = (not tests.completed, tests.failures) if tests else (False, 0)
    red = candidate.status != "green"
    judged = not accepted, red, bool(candidate.weakened), review is None
    return *judged, broken, failures, -candidate.round, candidate.index


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
    parts = [candidate.weakened] if candidate.weakened else []
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
