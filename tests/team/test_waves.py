"""Which steps are written at the same time, and what their coders see."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.team.state import Plan, Step
from agent.team.waves import shown_to, waves


def plan_of(*steps: tuple[str, list[int]], read: tuple[str, ...] = ()) -> Plan:
    made = [
        Step(path=path, action="edit", instruction=f"{number}", depends_on=depends)
        for number, (path, depends) in enumerate(steps, 1)
    ]
    return Plan(summary="S", steps=made, read=list(read))


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (plan_of(("a", []), ("b", []), ("c", [])), [["1", "2", "3"]]),
        (plan_of(("a", []), ("b", [1]), ("c", [])), [["1", "3"], ["2"]]),
        (plan_of(("a", []), ("a", []), ("b", [])), [["1", "3"], ["2"]]),
        (plan_of(("a", []), ("b", [1]), ("c", [2]), ("d", [1])), [["1"], ["2", "4"], ["3"]]),
        (plan_of(("a", []), ("b", []), read=("a",)), [["1"], ["2"]]),
    ],
    ids=["independent", "dependent", "one file", "chain", "read by all"],
)
def test_steps_that_need_nothing_of_each_other_go_together(
    plan: Plan, expected: list[list[str]]
) -> None:
    found = waves(plan, plan.steps)
    assert [[step.instruction for step in wave] for wave in found] == expected


def test_only_chosen_steps_and_the_order_through_others_stays() -> None:
    plan = plan_of(("a", []), ("b", [1]), ("c", [2]))
    found = waves(plan, [plan.steps[2], plan.steps[0]])
    assert [[step.path for step in wave] for wave in found] == [["a"], ["c"]]


def test_a_coder_sees_what_its_step_depends_on() -> None:
    plan = plan_of(("a", []), ("b", [1]), ("c", [2]), read=("r", "b"))
    assert shown_to(plan.steps[1], plan) == ["b", "a", "r"]
    assert shown_to(plan.steps[2], plan) == ["c", "b", "r"]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(1, 8))
    steps = []
    for number in range(1, count + 1):
        earlier = st.integers(1, number - 1) if number > 1 else st.nothing()
        depends = draw(st.lists(earlier, max_size=3, unique=True)) if number > 1 else []
        steps.append((draw(st.sampled_from("abcd")), depends))
    return plan_of(*steps, read=tuple(draw(st.lists(st.sampled_from("abcd"), max_size=2))))


@given(plans())
def test_every_step_comes_once_after_all_that_it_needs_and_never_beside_its_own_file(
    plan: Plan,
) -> None:
    found = waves(plan, plan.steps)
    place = {id(step): number for number, wave in enumerate(found) for step in wave}
    assert len(place) == sum(map(len, found)) == len(plan.steps)
    for step in plan.steps:
        for number in step.depends_on:
            assert place[id(plan.steps[number - 1])] < place[id(step)]
    for wave in found:
        assert len({step.path for step in wave}) == len(wave)
