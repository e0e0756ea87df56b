"""The pure parts of the team: choosing among candidates, and the routes of the graph."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from agent.team.candidates import best_so_far, describe_failure, steps_to_repair
from agent.team.graph import after_choice, after_plan, build_graph, fan_out, why_given_up
from agent.team.reviewer import bound_verdict, describe_tests
from agent.team.state import (
    Candidate,
    Comment,
    Plan,
    Review,
    Step,
    TeamState,
    Verified,
    plan_answer,
)
from agent.team.task_file import Task

TASK = Task(title="T", body="B", source="t.md")
PLAN = Plan(
    summary="S",
    steps=[
        Step(path="pkg/a.py", action="edit", instruction="A"),
        Step(path="pkg/b.py", action="create", instruction="B", depends_on=[1]),
    ],
)


def candidate(index: int, failures: int | None, *, number: int = 0) -> Candidate:
    """None failures: nothing usable was written."""
    if failures is None:
        return Candidate(round=number, index=index, seed=1, status="invalid", reason="no code")
    tests = Verified(
        command="pytest",
        exit_code=1 if failures else 0,
        failures=failures,
        completed=failures < 100,
        summary=f"{failures} failed",
        evidence="pkg/b.py:3: E assert" if failures else "",
        duration_s=0.1,
    )
    status = "red" if failures else "green"
    return Candidate(round=number, index=index, seed=1, status=status, commit="c", tests=tests)


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ([2, 0, 0], 1),
        ([100, 7], 1),
        ([3, 1, 2], 1),
        ([2, 2], 0),
        ([None, 5], 1),
        ([None, None], None),
        ([], None),
    ],
)
def test_the_best_is_green_or_fails_least(failures: list[int | None], expected: int | None) -> None:
    best = best_so_far([candidate(index, count) for index, count in enumerate(failures)])
    assert (best.index if best else None) == expected


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [
        ([[3, 1], [None, None]], (0, 1)),
        ([[1], [5]], (0, 0)),
        ([[0], [1]], (0, 0)),
        ([[2], [100]], (0, 0)),
        ([[2, 2], [2, 2]], (1, 0)),
        ([[0], [0]], (1, 0)),
        ([[4], [2], [3]], (1, 0)),
    ],
)
def test_the_best_of_all_rounds_goes_on_and_of_equals_the_latest(
    rounds: list[list[int | None]], expected: tuple[int, int]
) -> None:
    written = [
        candidate(index, failures, number=number)
        for number, all_failures in enumerate(rounds)
        for index, failures in enumerate(all_failures)
    ]
    best = best_so_far(written)
    assert best is not None
    assert (best.round, best.index) == expected


def test_who_weakened_the_tests_comes_after_all_who_did_not() -> None:
    cheat = candidate(0, 0).model_copy(update={"status": "red", "weakened": "t.py: 0 tests"})
    assert best_so_far([cheat, candidate(1, 100)]) == candidate(1, 100)
    assert best_so_far([cheat]) == cheat
    assert describe_failure(cheat, None) == "t.py: 0 tests"
    assert "without weakening them after 1 round: t.py" in why_given_up([cheat], None, 1)


def test_a_repair_rewrites_the_files_that_the_evidence_names() -> None:
    assert [s.path for s in steps_to_repair(PLAN, "b.py:3: in test")] == ["pkg/b.py"]
    assert [s.path for s in steps_to_repair(PLAN, "something broke")] == ["pkg/a.py", "pkg/b.py"]


def test_evidence_is_the_failing_output_and_the_comments() -> None:
    remark = Comment(file="pkg/a.py", line=7, severity="error", text="Off by one.")
    review = Review(verdict="revise", comments=[remark])
    assert describe_failure(candidate(0, 1), None).startswith("Tests: exit code 1\npkg/b.py:3")
    assert describe_failure(candidate(0, 0), review) == "pkg/a.py:7 error: Off by one."
    assert describe_failure(candidate(0, 0), Review(verdict="revise")) == ""


def test_red_tests_turn_acceptance_into_revision() -> None:
    accepted = Review(verdict="accept")
    assert bound_verdict(accepted, candidate(0, 1)).verdict == "revise"
    assert bound_verdict(accepted, candidate(0, 0)).verdict == "accept"
    untested = Candidate(round=0, index=0, seed=1, status="green", commit="c")
    assert bound_verdict(accepted, untested).verdict == "accept"
    assert describe_tests(untested.tests) == ""
    assert describe_tests(candidate(0, 2).tests) == "exit code 1\n2 failed"


@pytest.mark.parametrize(
    ("state", "route"),
    [
        ({"failure": "x"}, "end"),
        ({"review": None}, "again"),
        ({"review": Review(verdict="revise")}, "again"),
        ({"review": Review(verdict="accept")}, "accepted"),
        ({"review": Review(verdict="accept"), "failure": "x"}, "end"),
    ],
)
def test_after_the_review(state: TeamState, route: str) -> None:
    assert after_choice(state) == route


@pytest.mark.parametrize(("state", "route"), [({}, "fan_out"), ({"failure": "x"}, "end")])
def test_after_the_plan(state: TeamState, route: str) -> None:
    assert after_plan(state) == route


def test_a_repair_round_starts_from_the_best_of_all_rounds() -> None:
    state: TeamState = {
        "task": TASK,
        "test_command": None,
        "plan": PLAN,
        "first_round": 0,
        "round": 2,
        "candidates": [candidate(0, 3), candidate(1, 1), candidate(0, None, number=1)],
        "review": None,
    }
    work = fan_out(state, 3)
    assert [w["index"] for w in work] == [0, 1, 2]
    start = work[0]["start_from"]
    assert start is not None
    assert (start.round, start.index) == (0, 1)
    assert fan_out({**state, "round": 0, "candidates": []}, 1)[0]["start_from"] is None


def test_the_reason_for_giving_up_names_what_was_wrong() -> None:
    assert "no code" in why_given_up([candidate(0, None)], None, 1)
    assert "2 failed" in why_given_up([candidate(0, 2)], None, 3)
    remark = Comment(file="f", line=1, severity="error", text="Off by one.")
    verdict = Review(verdict="revise", comments=[remark])
    assert "Off by one." in why_given_up([candidate(0, 0)], verdict, 3)


def test_the_planner_can_only_name_allowed_paths() -> None:
    form = plan_answer(["a.py"])
    step = {"path": "b.py", "action": "edit", "instruction": "x", "depends_on": []}
    with pytest.raises(ValidationError, match=r"a\.py"):
        form.model_validate({"summary": "", "steps": [step], "read": []})
    assert plan_answer([]).model_validate({"summary": "", "steps": [step], "read": []})


def test_the_graph_can_be_drawn() -> None:
    drawn = build_graph(4).get_graph().draw_mermaid()
    assert all(node in drawn for node in ("plan", "code", "choose", "next_round"))
