"""The coder: one step of the plan in, the new content of one file out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from agent.core.backend_manager import Reply, Request
from agent.core.errors import BadAnswer, EditError
from agent.core.prompts import Prompt
from agent.core.sampling import Sampling
from agent.team.context import TeamContext
from agent.team.edits import FailedHunk, apply_hunks, parse_hunks, parse_whole_file, seen_again
from agent.team.repo_context import looks_the_same, render_step
from agent.team.state import Step
from agent.team.task_file import Task

_SEED_STRIDE = 101
"""Between the seeds of a first answer and of the questions that follow it."""
_PRIORITY = 1
"""A waiting review goes first: it may end the round."""
_TEMPLATE_TOKENS = 64
"""What a chat template puts around the two messages, at the most."""
_LEAST_ANSWER = 64
"""An answer with less room for what is new is not worth asking for."""
_GROWTH_TOKENS = 256
"""What a file may grow by, besides a third of its size."""


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
    alike: int = 1
    """Candidates that are asked the very same thing at the same time, this one included."""


async def write_step(job: Job, context: TeamContext) -> str:
    """The new content of the step's file.

    Small and new files are answered whole, larger ones as search/replace blocks. A block that
    does not apply is asked for again alone, with the nearest lines shown; then the whole file.
    Raises EditError or BadAnswer when nothing usable came, or another BackendError.
    """
    current = job.files.get(job.step.path)
    limit = context.settings.turbo_whole_file_tokens
    size = 0 if current is None else await context.backend.count_tokens(current)
    if current is None or size <= limit:
        return await _whole(job, context, current, size)
    path = job.step.path
    reply = await _ask(job, context, context.prompts.fill("answer_edits", path=path), follow_up=0)
    try:
        if reply.finish == "length":
            raise EditError(f"{path}: the answer was cut off")
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
    return await _whole(job, context, current, size, follow_up=len(failed) + 1)


async def _whole(
    job: Job, context: TeamContext, current: str | None, size: int, follow_up: int = 0
) -> str:
    path = job.step.path
    words = context.prompts.fill("answer_whole_file", path=path)
    reply = await _ask(job, context, words, follow_up=follow_up, size=size)
    if reply.finish == "length":
        raise BadAnswer(
            f"{path}: the answer was cut off after {reply.usage.predicted} tokens",
            fix="Raise TURBO_ANSWER_TOKENS and LLAMACPP_CONTEXT_SIZE, or split the task.",
        )
    return parse_whole_file(reply.text, path=path, previous=current)


async def _mend(
    job: Job, context: TeamContext, content: str, hunk: FailedHunk, follow_up: int
) -> str | None:
    """The content with a failed block put right; everything shown is `content` as it is now."""
    now = seen_again(content, hunk)
    words = context.prompts.fill(
        "answer_hunk", path=job.step.path, reason=now.reason, nearest=now.nearest
    )
    job = replace(job, files={**job.files, job.step.path: content})
    reply = await _ask(job, context, words, follow_up=follow_up)
    try:
        applied = apply_hunks(content, parse_hunks(reply.text, path=job.step.path))
    except EditError:
        return None
    return None if applied.failed else applied.content


async def _ask(
    job: Job, context: TeamContext, answer_format: str, *, follow_up: int, size: int = 0
) -> Reply:
    step = job.step
    stale = {
        path: content
        for path, content in job.files.items()
        if path not in context.shown or not looks_the_same(context.shown[path], content)
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
    most = await _longest_answer(prompt, context, step.path, size)
    request = Request(
        prompt=prompt,
        sampling=sampling,
        max_tokens=most,
        alike=1 if follow_up else job.alike,
        priority=_PRIORITY,
    )
    return await context.ask(request, role=role, candidate=job.candidate)


async def _longest_answer(prompt: Prompt, context: TeamContext, path: str, size: int) -> int:
    """Tokens that the answer may have: those of a file of `size` tokens with room to grow, as far
    as the context goes. Raises BadAnswer when not even the file as it is would fit."""
    wanted = context.settings.turbo_answer_tokens
    if size:
        wanted = max(wanted, size * 13 // 10 + _GROWTH_TOKENS)
    asked = await context.backend.count_tokens(f"{prompt.system}\n{prompt.user}")
    room = context.backend.context - asked - _TEMPLATE_TOKENS
    if room < size + _LEAST_ANSWER:
        raise BadAnswer(
            f"{path}: an answer of {size + _LEAST_ANSWER} tokens does not fit: the prompt has "
            f"{asked}, and a slot serves {context.backend.context}",
            fix=f"Raise LLAMACPP_CONTEXT_SIZE to at least {asked + wanted + _TEMPLATE_TOKENS}, "
            "show fewer files (context: in the task file), or split the task.",
        )
    return min(wanted, room)
