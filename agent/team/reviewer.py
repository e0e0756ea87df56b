"""The reviewer: task, diff and test result in, a verdict out."""

from __future__ import annotations

from agent.core.backend_manager import Request
from agent.core.errors import BadAnswer
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
    prompt = context.prompt(
        "reviewer",
        task=task.prose,
        files=task.may_change,
        diff=fenced(candidate.diff, "diff"),
        tests=describe_tests(candidate.tests) or context.prompts.fill("no_tests"),
    )
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


def bound_verdict(review: Review, candidate: Candidate) -> Review:
    """The review, turned into `revise` when the candidate's tests are red."""
    red = candidate.tests is not None and not candidate.tests.green
    if red and review.verdict == "accept":
        return Review(verdict="revise", comments=review.comments)
    return review


def describe_tests(tests: Verified | None) -> str:
    """The test result as the reviewer reads it; empty without tests."""
    return f"exit code {tests.exit_code}\n{tests.summary}" if tests else ""
