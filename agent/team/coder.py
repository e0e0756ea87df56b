"""The coder: one step of the plan in, the new content of one file out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.core.backend_manager import Reply, Request
from agent.core.errors import BadAnswer, EditError
from agent.core.sampling import Sampling
from agent.team.context import TeamContext
from agent.team.edits import FailedHunk, apply_hunks, parse_hunks, parse_whole_file
from agent.team.repo_context import render_step
from agent.team.state import Step
from agent.team.task_file import Task

_SEED_STRIDE = 101
"""Between the seeds of a first answer and of the questions that follow it."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one coder is to write."""

    task: Task
    step: Step
    files: Mapping[str, str | None]
    """Files as they are now in the candidate's worktree: the step's own and those to read."""
    sampling: Sampling
    candidate: int
    evidence: str = ""
    """Why the last round was not accepted; empty in the first round."""


async def write_step(job: Job, context: TeamContext) -> str:
    """The new content of the step's file.

    Small and new files are answered whole, larger ones as search/replace blocks. A block that
    does not apply is asked for again alone, with the nearest lines shown; then the whole file.
    Raises EditError or BadAnswer when nothing usable came, or another BackendError.
    """
    current = job.files.get(job.step.path)
    limit = context.settings.turbo_whole_file_tokens
    if current is None or await context.backend.count_tokens(current) <= limit:
        return await _whole(job, context, current)
    path = job.step.path
    reply = await _ask(job, context, context.prompts.fill("answer_edits", path=path), follow_up=0)
    try:
        applied = apply_hunks(current, parse_hunks(reply.text, path=path))
        content, failed = applied.content, applied.failed
    except EditError:
        content, failed = current, ()
        applied = None
    for number, hunk in enumerate(failed, 1):
        mended = await _mend(job, context, content, hunk, follow_up=number)
        if mended is None:
            applied = None
            break
        content = mended
    if applied is not None:
        return content
    return await _whole(job, context, current, follow_up=len(failed) + 1)


async def _whole(job: Job, context: TeamContext, current: str | None, follow_up: int = 0) -> str:
    path = job.step.path
    words = context.prompts.fill("answer_whole_file", path=path)
    reply = await _ask(job, context, words, follow_up=follow_up)
    if reply.finish == "length":
        raise BadAnswer(
            f"{path}: the answer was cut off after {reply.usage.predicted} tokens",
            fix="Raise TURBO_ANSWER_TOKENS, or split the task.",
        )
    return parse_whole_file(reply.text, path=path, previous=current)


async def _mend(
    job: Job, context: TeamContext, content: str, hunk: FailedHunk, follow_up: int
) -> str | None:
    words = context.prompts.fill(
        "answer_hunk", path=job.step.path, reason=hunk.reason, nearest=hunk.nearest
    )
    reply = await _ask(job, context, words, follow_up=follow_up)
    try:
        applied = apply_hunks(content, parse_hunks(reply.text, path=job.step.path))
    except EditError:
        return None
    return None if applied.failed else applied.content


async def _ask(job: Job, context: TeamContext, answer_format: str, *, follow_up: int) -> Reply:
    step = job.step
    stale = {
        path: content
        for path, content in job.files.items()
        if path not in context.shown or context.shown[path] != content
    }
    volatile = {
        "step": render_step(step.path, step.action, step.instruction, stale),
        "answer_format": answer_format,
    }
    role = "coder"
    if job.evidence:
        role = "repair"
        volatile["evidence"] = job.evidence
    prompt = context.prompt(role, task=job.task.prose, files=job.task.may_change, **volatile)
    sampling = job.sampling.with_seed(job.sampling.seed + _SEED_STRIDE * follow_up)
    request = Request(
        prompt=prompt, sampling=sampling, max_tokens=context.settings.turbo_answer_tokens
    )
    return await context.ask(request, role=role, candidate=job.candidate)
