"""The planner: task and repository in, a checked plan out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from agent.core.backend_manager import Request
from agent.core.errors import BadAnswer, EditError, NotText
from agent.core.repository_path import tidy_path, why_not_beside, why_refused
from agent.core.sampling import CODING
from agent.core.workspace import Workspace
from agent.team.context import TeamContext
from agent.team.edits import check_edit_path
from agent.team.guarded_paths import why_guarded
from agent.team.repo_context import render_file
from agent.team.state import Plan, Step, plan_answer
from agent.team.task_file import Task

_SEED_STRIDE = 100
"""Between the seeds of one plan and the next."""
_PLAN_TOKENS = 700
"""Longest plan, in tokens."""
_NAME_IT = "If it is to be changed, name it under files in the task file."


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What the repository holds before the work, as far as it decides what a plan may touch."""

    root: Path
    tracked: frozenset[str]
    submodules: tuple[str, ...]
    programs: tuple[str, ...]
    """Paths that git's configuration names."""

    @classmethod
    async def of(cls, workspace: Workspace) -> Ground:
        """That of the base commit."""
        return cls(
            root=workspace.root,
            tracked=frozenset(await workspace.files()),
            submodules=await workspace.submodules(),
            programs=await workspace.programs_of_git(),
        )

    def why_guarded(self, path: str) -> str | None:
        """Why only a task that names `path` may change it; None when any may."""
        return why_guarded(path, self.tracked, self.programs)

    def can_be_read(self, path: str) -> bool:
        """Whether a coder can be shown the tracked file `path`."""
        return path in self.tracked and why_refused(path, self.root) is None


@asynccontextmanager
async def plan_ahead(task: Task, context: TeamContext) -> AsyncIterator[TeamContext]:
    """Ask for the first plan now; the context in which the node that plans finds it, or the error
    that it ended in. A plan that nobody waited for ends with the block."""
    asked = asyncio.create_task(make_plan(task, context))
    try:
        yield replace(context, first_plan=asked)
    finally:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


async def make_plan(task: Task, context: TeamContext, earlier: Sequence[Plan] = ()) -> Plan:
    """Ask for a plan; a bad one is asked for again once, with the reason and another seed.

    `earlier` plans led nowhere: what is asked for is another one. Raises BadAnswer when the second
    answer is bad too or an earlier plan again, or another BackendError.
    """
    form = plan_answer(task.files)
    ground: Ground | None = None  # git is asked once the model has answered: first things first
    correction = ""
    seed = context.settings.turbo_seed + _SEED_STRIDE * len(earlier)
    for attempt in range(2):
        prompt = context.prompt(
            "planner",
            task=task.prose,
            files=task.may_change,
            correction=correction,
        )
        sampling = CODING.with_seed(seed + attempt).warmer(0.6 if attempt or earlier else 0.05)
        request = Request(prompt=prompt, sampling=sampling, max_tokens=_PLAN_TOKENS)
        try:
            plan = await context.ask_json(request, form, role="planner")
            ground = ground or await Ground.of(context.workspace)
            return _unlike(earlier, await settle(plan, task, context, ground))
        except BadAnswer as error:
            if attempt == 1:
                raise BadAnswer(f"No usable plan: {error}") from None
            context.journal.emit("plan_refused", reason=str(error))
            correction = context.prompts.fill("planner_correction", reason=error.message)
    raise AssertionError("unreachable: the loop returns or raises")


def _unlike(earlier: Sequence[Plan], plan: Plan) -> Plan:
    if any(plan.steps == other.steps for other in earlier):
        raise BadAnswer("the model made a plan again that has led nowhere")
    return plan


async def settle(plan: Plan, task: Task, context: TeamContext, ground: Ground) -> Plan:
    """The plan with what can be known put right: spelling of paths, actions, what is read.

    Steps on guarded files are left out when others remain: small models plan tests that nobody
    asked for. Raises BadAnswer that names the step when a path, its file or a dependency is wrong.
    """
    steps: list[Step] = []
    number_of: dict[int, int] = {}
    """The numbers of the steps that stay, by those that the model gave them."""
    guarded: list[str] = []
    for number, step in enumerate(plan.steps, 1):
        path = tidy_path(step.path)
        if task.files and path not in task.files:
            raise BadAnswer(f"step {number}: {path} is not one of {', '.join(task.files)}")
        made = {each.path for each in steps}
        try:
            await _check_target(path, context, ground, made)
        except (EditError, NotText) as error:
            raise BadAnswer(f"step {number}: {error.message}") from None
        if any(not 1 <= other < number for other in step.depends_on):
            raise BadAnswer(f"step {number}: depends_on may only name earlier steps")
        if path not in task.files and (reason := ground.why_guarded(path)):
            guarded.append(f"{path} {reason}")
            continue
        number_of[number] = len(steps) + 1
        steps.append(
            Step(
                path=path,
                action="edit" if path in ground.tracked or path in made else "create",
                instruction=step.instruction,
                depends_on=[number_of[each] for each in step.depends_on if each in number_of],
            )
        )
    if not steps:
        raise BadAnswer(f"step 1: {guarded[0]}, and the task does not name it", fix=_NAME_IT)
    if guarded:
        text = f"Left out of the plan, because the task does not name it: {'; '.join(guarded)}."
        context.journal.emit("notice", text=f"{text} {_NAME_IT}")
    wanted = dict.fromkeys(tidy_path(path) for path in plan.read)
    read = await _fitting([path for path in wanted if ground.can_be_read(path)], context)
    return Plan(summary=plan.summary, steps=steps, read=read)


async def _check_target(path: str, context: TeamContext, ground: Ground, made: set[str]) -> None:
    """Refuse what a coder cannot write. Raises EditError or NotText."""
    check_edit_path(path, context.workspace.root)
    if reason := why_not_beside(path, ground.tracked | made, ground.submodules):
        raise EditError(f"{path!r} {reason}")
    if reason := await context.workspace.why_filtered([path]):
        raise EditError(reason)
    # the checkout of the user may hold something else than the commit that the work starts from
    above = next((str(x) for x in PurePosixPath(path).parents if str(x) in ground.tracked), None)
    if above is not None:
        raise EditError(f"{path!r} lies below {above}, which is no folder")
    await context.reader.read(path)


async def _fitting(paths: Sequence[str], context: TeamContext) -> list[str]:
    """Those of `paths`, in order, that are text and fit into the budget for files together.

    What the repository part of the prompt shows costs nothing more.
    """
    budget = context.settings.turbo_repository_tokens
    room = budget
    kept, left_out = [], []
    for path in paths:
        if path in context.shown:
            kept.append(path)
            continue
        try:
            content = await context.reader.read(path)
        except NotText:
            continue
        # a token is rarely more than a handful of bytes: do not count what cannot fit
        cost = room + 1
        if content is not None and len(content) <= 12 * budget:
            cost = await context.backend.count_tokens(render_file(path, content))
        if cost > room:
            left_out.append(path)
            continue
        room -= cost
        kept.append(path)
    if left_out:
        left = ", ".join(left_out)
        context.journal.emit("notice", text=f"Not shown to the coders for want of room: {left}")
    return kept
