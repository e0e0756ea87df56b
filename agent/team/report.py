"""What a run prints: events for programs, a view while it goes on, a report at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from agent.core.errors import TurboError
from agent.core.redaction import Redactor
from agent.core.terminal import hanging, one_line, printable, quoted
from agent.team.live_view import LiveView
from agent.team.plain_view import UNKEPT, PlainView, QuietView, View
from agent.team.replay import Replay
from agent.team.result import INTERRUPTED, Ledger, RunResult, Status

_LIVE_WIDTH = 60
"""Columns below which the tables say nothing that can be read."""


class Reporter:
    """Sends events and results where they belong.

    With ``--json`` standard output carries one JSON object per line and nothing else, and its last
    line is always a ``run_finished`` that tells the end of the session; everything human goes to
    standard error. Each of the ``end_`` methods returns the exit code.
    """

    def __init__(
        self,
        view: View,
        out: Console,
        *,
        as_json: bool,
        quiet: bool,
        redactor: Redactor | None = None,
    ) -> None:
        self._redactor = redactor or Redactor()
        self._view = view
        self._out = out
        self._as_json = as_json
        self._quiet = quiet
        self._last: Status | None = None
        """What the last line says, when it is a ``run_finished``."""

    @classmethod
    @contextmanager
    def for_terminal(
        cls, *, as_json: bool, verbose: bool, quiet: bool, redactor: Redactor
    ) -> Iterator[Reporter]:
        """A reporter for this process's standard streams; the view is closed at the end. What the
        journal has not passed through `redactor` it passes itself."""
        error = Console(stderr=True)
        view: View
        if quiet:
            view = QuietView()
        elif error.is_terminal and error.width >= _LIVE_WIDTH:
            view = LiveView(error, verbose=verbose)
        else:
            view = PlainView(error, verbose=verbose)
        out = error if as_json else Console()
        try:
            yield cls(view, out, as_json=as_json, quiet=quiet, redactor=redactor)
        finally:
            view.close()

    def on_event(self, event: str, data: Mapping[str, Any]) -> None:
        """Listener of the journal."""
        if event not in UNKEPT and self._as_json:
            self._last = data["status"] if event == "run_finished" else None
            write_event(event, data)
        self._view.on_event(event, data)

    def end_session(self, ledger: Ledger) -> int:
        """Every task ended by itself, or an engine failure ended them."""
        self._show(ledger)
        verdict = ledger.verdict()
        if not ledger.results or ledger.results[-1].exit_code != verdict.exit_code:
            self._close(verdict)
        return ledger.exit_code

    def end_replay(self, ledger: Ledger, replay: Replay) -> int:
        """A run was run again; 1 when it went another way, 3 when the engine failed."""
        self._show(ledger)
        self._line(str(replay))
        verdict = ledger.verdict()
        if verdict.exit_code < 3:
            code = 0 if replay.divergence is None else 1
            reason = str(replay.divergence or "")
            verdict = replace(verdict, exit_code=code, reason=reason)
        self._close(verdict)
        return verdict.exit_code

    def end_failed(self, error: TurboError, ledger: Ledger) -> int:
        """An expected failure ended everything."""
        self._show(ledger)
        self._close(RunResult(status="failed", exit_code=error.exit_code, reason=str(error)))
        self._complain(str(error))
        return error.exit_code

    def end_interrupted(self, ledger: Ledger, exit_code: int = INTERRUPTED) -> int:
        """A signal ended everything; what ran has been cleaned up."""
        self._show(ledger)
        self._close(RunResult(status="interrupted", exit_code=exit_code))
        made = ", ".join(ledger.branches)
        self._complain(
            f"interrupted; {f'made before: {made}' if made else 'no branch was made'}; "
            "nothing is left running"
        )
        return exit_code

    def end_in_bug(self, bug: BaseException, ledger: Ledger) -> None:
        """A bug ended everything; its traceback follows."""
        self._show(ledger)
        reason = f"{type(bug).__name__}: {bug}"
        self._close(RunResult(status="failed", exit_code=1, reason=reason))

    def _close(self, result: RunResult) -> None:
        if self._as_json and self._last != result.status:
            self._last = result.status
            write_event("run_finished", self._redactor.data(result.event()))

    def _show(self, ledger: Ledger) -> None:
        """The report of each task, and which ones did not run."""
        self._view.close()
        several = len(ledger.results) + len(ledger.waiting) > 1
        for result in ledger.results:
            if several:
                self._heading(f"Task: {result.task}")
            if not self._quiet:
                self._show_work(result)
            self._show_outcome(result)
        if several:
            for line in describe_session(ledger):
                self._line(line)

    def _show_work(self, result: RunResult) -> None:
        out = self._out
        if result.plan is not None:
            self._heading("Plan")
            self._inside(result.plan.summary)
            for number, step in enumerate(result.plan.steps, 1):
                self._inside(f"{number}. {step.action} {step.path}: {step.instruction}")
        chosen = result.chosen
        if chosen is not None:
            self._heading("Diff")
            if out.is_terminal:
                diff = printable(self._redactor.text(chosen.diff))
                out.print(Syntax(diff, "diff", background_color="default"))
            else:
                self._line(chosen.diff)
        if result.candidates:
            self._heading("Tests")
            for line in describe_tests(result):
                self._line(line)
        if result.review is not None:
            self._heading("Review")
            self._line(result.review.verdict)
            for comment in result.review.comments:
                self._inside(f"{comment.file}:{comment.line} {comment.severity}: {comment.text}")
        self._heading("Outcome")

    def _show_outcome(self, result: RunResult) -> None:
        if result.status == "failed" and result.exit_code > 1:  # not the task's fault
            self._complain(result.reason)
            result = replace(result, reason="")
        for line in describe_outcome(result):
            self._line(line)

    def _inside(self, text: str) -> None:
        """What a model said, as one line that is not taken for one of ours."""
        # redacted before it is joined: some secrets have several lines
        self._line(f"  {one_line(self._redactor.text(text))}")

    def _line(self, text: str) -> None:
        shown = printable(self._redactor.text(text))
        self._out.print(shown, markup=False, highlight=False, soft_wrap=True)

    def _heading(self, title: str) -> None:
        shown = one_line(self._redactor.text(title))
        self._out.print(Text(f"\n{shown}", style="bold"), soft_wrap=True)

    def _complain(self, text: str) -> None:
        complain(self._redactor.text(text))


def describe_session(ledger: Ledger) -> list[str]:
    """What became of several tasks, after the report of each: those that need a look."""
    results, waiting = ledger.results, ledger.waiting
    done = sum(result.exit_code == 0 for result in results)
    lines = [f"\n{done} of {len(results) + len(waiting)} tasks succeeded"]
    lines += [f"{x.status}: {one_line(x.task)} ({x.run})" for x in results if x.exit_code]
    return lines + [f"not run: {one_line(title)}" for title in waiting]


def write_event(event: str, data: Mapping[str, Any]) -> None:
    """One line of JSON on standard output."""
    sys.stdout.write(json.dumps({"event": event, **data}) + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """One thing that went wrong, on standard error."""
    sys.stderr.write(f"turbo: {hanging(text)}\n")


def describe_tests(result: RunResult) -> list[str]:
    """The test result of the chosen candidate, how many were green, and why others were not."""
    chosen = result.chosen
    green = sum(candidate.status == "green" for candidate in result.candidates)
    lines = []
    if chosen is not None and chosen.tests is None:
        lines.append("none")
    elif chosen is not None and chosen.tests is not None:
        tests = chosen.tests
        code = "time limit" if tests.exit_code is None else f"exit code {tests.exit_code}"
        ended = one_line(f"{tests.command}: {code}, {tests.summary}")
        lines.append(f"{ended} ({tests.duration_s:.1f} s)")
    lines.append(f"{green} green of {len(result.candidates)} candidates")
    reasons: dict[tuple[str, int, str], list[str]] = {}
    for candidate in result.candidates:
        lost = "weakened the tests" if candidate.weakened else candidate.status
        if candidate.weakened or candidate.status == "invalid":
            key = (lost, candidate.round, candidate.weakened or candidate.reason)
            reasons.setdefault(key, []).append(str(candidate.index))
    lines += [
        f"{lost} in round {number + 1}: {', '.join(indexes)}: {one_line(reason)}"
        for (lost, number, reason), indexes in reasons.items()
    ]
    if chosen is not None:
        lines += quoted(chosen.tests.evidence) if chosen.tests else []
        lines += [f"lint: {complaint}" for complaint in chosen.lint.splitlines()]
    return lines


def describe_outcome(result: RunResult) -> list[str]:
    """Status, branch and commit, and what it cost."""
    lines = [hanging(f"{result.status}: {result.reason}") if result.reason else result.status]
    if result.chosen is not None and result.chosen.tests is None:
        lines.append("NO TESTS were found: nothing but the reviewer judged the change")
    if result.branch and result.commit:
        lines.append(f"branch {result.branch}")
        lines.append(f"commit {result.commit}")
    usage = result.usage
    if usage.prompt:
        speed = usage.predicted / result.busy_s if result.busy_s else 0.0
        lines.append(
            f"tokens: {usage.prompt} prompt = {usage.computed} computed + {usage.cached} cached; "
            f"{usage.predicted} predicted; {speed:.0f} tokens/s"
        )
    if result.busy_slots:
        lines.append(f"slots: {result.busy_slots:.1f} worked at the same time on average")
    if usage.drafted:
        lines.append(f"speculation: {usage.accepted} of {usage.drafted} guessed tokens were right")
    if usage.cached and result.reading_rate:
        lines.append(
            f"saved: {usage.cached} prompt tokens were not read again, "
            f"{usage.cached / result.reading_rate:.1f} s at the {result.reading_rate:.0f} tokens/s "
            "measured"
        )
    if result.sent:
        lines.append(
            f"left this machine: {result.sent['bytes']} bytes of prompts in "
            f"{result.sent['requests']} requests to {result.sent['host']}"
        )
    if result.restarts:
        times = "once" if result.restarts == 1 else f"{result.restarts} times"
        lines.append(f"server: died or hung and was started again {times}")
    if result.fixed_tokens:
        fixed = ", ".join(f"{role} {count}" for role, count in result.fixed_tokens.items())
        lines.append(f"fixed prompt tokens: {fixed}")
    lines.append(f"wall: {result.wall_s:.1f} s")
    if result.resumed:
        lines.append("resumed: tokens and time are those since then")
    if result.resumable:
        lines.append(f"unfinished: turbo runs resume {result.run} goes on with it")
    return lines
