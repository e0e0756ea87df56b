"""The planner: task and repository in, a checked plan out."""

from __future__ import annotations

from agent.core.backend_manager import Request
from agent.core.errors import BadAnswer, EditError
from agent.core.sampling import CODING
from agent.team.context import TeamContext
from agent.team.edits import check_edit_path
from agent.team.state import Plan, Step, plan_answer
from agent.team.task_file import Task

_PLAN_TOKENS = 700
"""Longest plan, in tokens."""


async def make_plan(task: Task, context: TeamContext) -> Plan:
    """Ask for a plan; a bad one is asked for again once, with the reason and another seed.

    Raises BadAnswer when the second is bad too, or another BackendError.
    """
    form = plan_answer(task.files)
    files = set(await context.workspace.files())
    correction = ""
    seed = context.settings.turbo_seed
    for attempt in range(2):
        prompt = context.prompt(
            "planner",
            task=task.prose,
            files=task.may_change,
            correction=correction,
        )
        sampling = CODING.with_seed(seed + attempt).warmer(0.05 if attempt == 0 else 0.6)
        request = Request(prompt=prompt, sampling=sampling, max_tokens=_PLAN_TOKENS)
        try:
            plan = await context.ask_json(request, form, role="planner")
            return settle(plan, task, context, files)
        except BadAnswer as error:
            if attempt == 1:
                raise BadAnswer(f"No usable plan: {error.message}", fix=error.fix) from None
            context.journal.emit("plan_refused", reason=error.message)
            correction = context.prompts.fill("planner_correction", reason=error.message)
    raise AssertionError("unreachable: the loop returns or raises")


def settle(plan: Plan, task: Task, context: TeamContext, files: set[str]) -> Plan:
    """The plan with what can be known put right: actions follow from what exists.

    Raises BadAnswer that names the step when a path or a dependency is wrong.
    """
    steps: list[Step] = []
    for number, step in enumerate(plan.steps, 1):
        if task.files and step.path not in task.files:
            raise BadAnswer(f"step {number}: {step.path} is not one of {', '.join(task.files)}")
        try:
            check_edit_path(step.path, context.workspace.root)
        except EditError as error:
            raise BadAnswer(f"step {number}: {error.message}") from None
        if any(not 1 <= other < number for other in step.depends_on):
            raise BadAnswer(f"step {number}: depends_on may only name earlier steps")
        exists = step.path in files or any(made.path == step.path for made in steps)
        steps.append(
            Step(
                path=step.path,
                action="edit" if exists else "create",
                instruction=step.instruction,
                depends_on=step.depends_on,
            )
        )
    read = [path for path in plan.read if path in files]
    return Plan(summary=plan.summary, steps=steps, read=read)
