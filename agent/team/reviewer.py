"""The reviewer: task, diff and test result in, a verdict out."""

from __future__ import annotations

import contextlib

from agent.core.backend_manager import Request
from agent.core.errors import BackendError, BadAnswer
from agent.core.prompts import Prompt
from agent.core.sampling import CODING
from agent.team.context import TeamContext
from agent.team.repo_context import fenced
from agent.team.state import Candidate, Review, ReviewAnswer, Verified
from agent.team.task_file import Task

_REVIEW_TOKENS = 500
"""Longest review, in tokens."""


async def review_candidate(task: Task, candidate: Candidate, context: TeamContext) -> Review:
    """Ask for a verdict on a candidate; a bad answer is asked for again once with another seed.

    Red tests are never accepted, whatever the model says. Raises a BackendError.
    """
    tests = describe_tests(candidate.tests) or context.prompts.fill("no_tests")
    prompt = _prompt(task, candidate.diff, context, tests)
    seed = context.settings.turbo_seed + 1000 * candidate.round
    for attempt in range(2):
        sampling = CODING.with_seed(seed + attempt).warmer(0.05 if attempt == 0 else 0.5)
        request = Request(prompt=prompt, sampling=sampling, max_tokens=_REVIEW_TOKENS)
        try:
            answer = await context.ask_json(request, ReviewAnswer, role="reviewer")
        except BadAnswer:
            if attempt == 1:
                raise
            continue
        return bound_verdict(Review(**answer.model_dump()), candidate)
    raise AssertionError("unreachable: the loop returns or raises")


async def read_review_ahead(task: Task, diff: str, context: TeamContext) -> None:
    """Let an idle slot read what a review of `diff` will begin with, while its tests still run.

    Never an error: what fails here is met again by the review, if there is one.
    """
    with contextlib.suppress(BackendError):
        await context.read_ahead(_prompt(task, diff, context, tests=""), role="reviewer")


def bound_verdict(review: Review, candidate: Candidate) -> Review:
    """The review, turned into `revise` when the candidate's tests are red."""
    red = candidate.tests is not None and not candidate.tests.green
    if red and review.verdict == "accept":
        return Review(verdict="revise", comments=review.comments)
    return review


def _prompt(task: Task, diff: str, context: TeamContext, tests: str) -> Prompt:
    return context.prompt(
        "reviewer",
        task=task.prose,
        files=task.may_change,
        diff=fenced(diff, "diff"),
        tests=tests,
    )


def describe_tests(tests: Verified | None) -> str:
    """The test result as the reviewer reads it; empty without tests."""
    return f"exit code {tests.exit_code}\n{tests.summary}" if tests else ""
