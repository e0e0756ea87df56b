"""Which steps of a plan may be written at the same time. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from agent.team.state import Plan, Step


def waves(plan: Plan, chosen: Sequence[Step]) -> list[list[Step]]:
    """The chosen steps of the plan in groups; a group needs only what the groups before it wrote.

    A step waits for those that it depends on, directly or through steps that were not chosen, for
    earlier ones of its own file, and for earlier ones whose file every coder is shown. Within a
    group the plan's order stays.
    """
    level: dict[int, int] = {}
    for number, step in enumerate(plan.steps, 1):
        before = [
            other
            for other in range(1, number)
            if other in step.depends_on
            or plan.steps[other - 1].path == step.path
            or plan.steps[other - 1].path in plan.read
        ]
        level[number] = max((level[other] + 1 for other in before), default=0)
    grouped: dict[int, list[Step]] = {}
    for number, step in enumerate(plan.steps, 1):
        if any(step is one for one in chosen):
            grouped.setdefault(level[number], []).append(step)
    return [grouped[key] for key in sorted(grouped)]


def shown_to(step: Step, plan: Plan) -> list[str]:
    """The files that the step's coder sees: its own, those that it depends on, those to read."""
    needed = [plan.steps[number - 1].path for number in step.depends_on]
    return list(dict.fromkeys([step.path, *needed, *plan.read]))
