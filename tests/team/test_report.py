"""What people and programs are told, event by event and at the end."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from agent.core.errors import EngineError
from agent.team.live_view import LiveView
from agent.team.plain_view import PlainView, describe
from agent.team.report import Reporter, describe_tests
from agent.team.result import Ledger, RunResult
from agent.team.state import Candidate, Verified

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
