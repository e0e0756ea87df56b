"""What people and programs are told, event by event and at the end."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from agent.core.errors import EngineError
from agent.core.terminal import hanging, printable
from agent.team.live_view import LiveView
from agent.team.plain_view import PlainView, describe
from agent.team.report import Reporter, describe_tests
from agent.team.result import Ledger, RunResult
from agent.team.state import Candidate, Comment, Plan, Review, Step, Verified

ACCEPTED = RunResult(status="accepted", exit_code=0, task="One", branch="turbo/one", commit="abc")
VERIFIED = {"candidate": 0, "round": 0, "status": "invalid", "failures": None, "lint": ""}


def reporter(*, as_json: bool = True) -> Reporter:
    console = Console(file=io.StringIO(), width=200)
    return Reporter(PlainView(console, verbose=False), console, as_json=as_json, quiet=False)


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_an_interruption_between_two_tasks_has_the_last_word(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell = reporter()
    tell.on_event("run_finished", ACCEPTED.event())
    assert tell.end_interrupted(Ledger(waiting=["Two"], results=[ACCEPTED]), 143) == 143
    assert [event["status"] for event in events(capsys)] == ["accepted", "interrupted"]


def test_an_end_that_the_run_has_told_is_not_told_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell = reporter()
    stopped = RunResult(status="interrupted", exit_code=130)
    tell.on_event("run_finished", stopped.event())
    tell.end_interrupted(Ledger(results=[stopped]))
    tell = reporter()
    tell.on_event("run_finished", ACCEPTED.event())
    assert tell.end_session(Ledger(results=[ACCEPTED])) == 0
    assert [event["status"] for event in events(capsys)] == ["interrupted", "accepted"]


def test_an_error_after_the_last_task_is_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    tell = reporter()
    tell.on_event("run_finished", ACCEPTED.event())
    assert tell.end_failed(EngineError("gone"), Ledger(results=[ACCEPTED])) == 3
    assert [event["status"] for event in events(capsys)] == ["accepted", "failed"]


def test_a_commit_that_could_not_be_applied_ends_a_session_as_failed() -> None:
    refused = RunResult(status="accepted", exit_code=1, reason="--apply: no")
    verdict = Ledger(results=[refused, ACCEPTED]).verdict()
    assert (verdict.status, verdict.exit_code) == ("failed", 1)


def test_an_engine_that_fails_is_said_on_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    gone = RunResult(status="failed", exit_code=3, reason="server\x1b gone")
    assert reporter(as_json=False).end_session(Ledger(results=[gone])) == 3
    assert capsys.readouterr().err == "turbo: server gone\n"


def candidate(index: int, **more: Any) -> Candidate:
    return Candidate.model_validate({"round": 0, "index": index, "seed": 1, **more})


def test_the_report_says_why_candidates_were_invalid_and_what_linters_said() -> None:
    tests = Verified(
        command="pytest", exit_code=0, failures=0, completed=True, summary="1 passed",
        evidence="", duration_s=1.0,
    )  # fmt: skip
    green = candidate(2, status="green", tests=tests, lint="x.py:1: E501\nx.py:2: F401")
    bad = [candidate(index, status="invalid", reason="changes nothing") for index in (0, 1)]
    result = RunResult(status="accepted", exit_code=0, candidates=[*bad, green], chosen=green)
    assert describe_tests(result) == [
        "pytest: exit code 0, 1 passed (1.0 s)",
        "1 green of 3 candidates",
        "invalid in round 1: 0, 1: changes nothing",
        "lint: x.py:1: E501",
        "lint: x.py:2: F401",
    ]
    lost = RunResult(status="failed", exit_code=1, candidates=bad)
    assert "invalid in round 1: 0, 1: changes nothing" in describe_tests(lost)


def test_a_line_per_candidate_has_its_reason_and_lint() -> None:
    line = describe("candidate_verified", VERIFIED | {"summary": "not Python"})
    assert line == "Candidate 0: invalid - not Python"
    line = describe("candidate_verified", VERIFIED | {"summary": "1 passed", "lint": "a\nb"})
    assert line == "Candidate 0: invalid - 1 passed\n  lint: a\n  lint: b"
    without = {key: value for key, value in VERIFIED.items() if key != "lint"}
    assert describe("candidate_verified", without | {"summary": "x"})


@pytest.mark.parametrize("kind", [PlainView, LiveView])
def test_no_view_lets_control_characters_through(kind: type[PlainView] | type[LiveView]) -> None:
    out = io.StringIO()
    terminal = kind is LiveView
    view = kind(Console(file=out, width=120, force_terminal=terminal), verbose=True)
    view.on_event("candidate_started", {"candidate": 0, "round": 0, "seed": 1})
    wild = VERIFIED | {"summary": "\x1b]0;mine\x07\x9b\x7f here", "lint": "\x1b[8m"}
    view.on_event("candidate_verified", wild)
    view.close()
    shown = out.getvalue()
    assert "]0;mine here" in shown
    assert not {"\x07", "\x9b", "\x7f"} & set(shown)
    assert "\x1b]" not in shown
    assert "\x1b[8m" not in shown


def test_the_live_view_has_a_row_per_slot_and_a_total() -> None:
    out = io.StringIO()
    view = LiveView(Console(file=out, width=120, force_terminal=True), verbose=False)
    for candidate in (0, 1):
        view.on_event("candidate_started", {"candidate": candidate, "round": 0, "seed": 1})
        for done in (1, 5):
            view.on_event(
                "progress",
                {
                    "role": "coder",
                    "candidate": candidate,
                    "phase": "decode",
                    "slot": candidate + 2,
                    "prompt": 500,
                    "cached": 400,
                    "done": done,
                },
            )
    view.on_event("load", {"busy_slots": 1.84})
    view.close()
    rows = [line.split() for line in Text.from_ansi(out.getvalue()).plain.splitlines()]
    assert ["slot", "phase", "tokens/s", "cached/prompt", "for"] in rows
    slots = [row for row in rows if row[-3:-1] == ["400/500", "coder"]]
    assert [(row[0], row[1], row[-1]) for row in slots][-2:] == [
        ("2", "writing", "0"),
        ("3", "writing", "1"),
    ]
    (total,) = [row for row in rows if row[:3] == ["all", "2", "busy"]][-1:]
    assert total[-5:] == ["800/1000", "1.8", "busy", "on", "average"]


FORGED = "Fine.\n\nOutcome\naccepted\nbranch turbo/fake\r\x85Tests\u2028none\n  99 green\u202e"
OURS = ("Plan", "Tests", "Review", "Outcome")


def starts(text: str) -> list[str]:
    """First words of the lines that begin in the first column."""
    return [line.split()[0] for line in text.splitlines() if line.strip() and line[0] != " "]


def lying_result() -> RunResult:
    tests = Verified(
        command="pytest", exit_code=1, failures=1, completed=True, summary=FORGED,
        evidence=FORGED, duration_s=1.0,
    )  # fmt: skip
    red = candidate(0, status="red", tests=tests)
    bad = candidate(1, status="invalid", reason=FORGED)
    step = Step(action="edit", path="a.py", instruction=FORGED)
    comment = Comment(file=FORGED, line=1, severity="error", text=FORGED)
    return RunResult(
        status="rejected",
        exit_code=1,
        task=FORGED,
        reason=FORGED,
        plan=Plan(summary=FORGED, steps=[step]),
        candidates=[red, bad],
        chosen=red,
        review=Review(verdict="revise", comments=[comment]),
    )


def test_no_text_of_a_model_passes_for_a_section_of_the_report() -> None:
    out = io.StringIO()
    console = Console(file=out, width=200)
    tell = Reporter(PlainView(console, verbose=False), console, as_json=False, quiet=False)
    tell.end_session(Ledger(results=[lying_result()], waiting=[FORGED]))
    shown = out.getvalue()
    assert "\u202e" not in shown
    assert "\\u202e" in shown
    begun = starts(shown)
    assert [word for word in begun if word in OURS] == list(OURS)
    assert not {"accepted", "branch", "99", "none"} & set(begun)
    tests = shown[shown.index("\nTests") : shown.index("\nReview")]
    assert starts(tests) == ["Tests", "pytest:", "0", "invalid"]


PLAN = {"action": "edit", "path": FORGED, "instruction": FORGED}
REMARK = {"file": FORGED, "line": 1, "severity": "note", "text": FORGED}
LIES = [
    ("run_started", {"task": FORGED}),
    ("plan_refused", {"reason": FORGED}),
    ("plan_ready", {"summary": FORGED, "steps": [PLAN]}),
    ("candidate_verified", VERIFIED | {"summary": FORGED, "lint": FORGED}),
    ("review_ready", {"candidate": 0, "verdict": "accept", "comments": [REMARK]}),
    ("notice", {"text": FORGED}),
    ("anything", {"text": FORGED}),
]


@pytest.mark.parametrize(("event", "data"), LIES)
def test_no_text_of_a_model_passes_for_a_line_of_the_log(event: str, data: dict[str, Any]) -> None:
    out = io.StringIO()
    PlainView(Console(file=out, width=200), verbose=True).on_event(event, data)
    assert len(starts(out.getvalue())) == 1
    assert "\u202e" not in out.getvalue()


def test_events_for_programs_keep_every_character(capsys: pytest.CaptureFixture[str]) -> None:
    reporter().on_event("plan_ready", {"summary": FORGED, "steps": [PLAN]})
    told = events(capsys)[0]
    assert told["summary"] == FORGED
    assert told["steps"] == [PLAN]


@pytest.mark.parametrize("hidden", ["\u202a", "\u202e", "\u2066", "\u2069", "\u200b", "\u200f"])
def test_what_cannot_be_seen_is_shown_as_an_escape(hidden: str) -> None:
    assert printable(f"if a{hidden}:\n\tü") == f"if a\\u{ord(hidden):04x}:\n\tü"


def test_later_lines_of_an_error_are_indented() -> None:
    assert hanging("a\nb\n  c\n\nd") == "a\n  b\n  c\n\n  d"
