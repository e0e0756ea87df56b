"""What a run prints: events for programs, a view while it goes on, a report at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from agent.core.errors import TurboError
from agent.team.live_view import LiveView, PlainView, QuietView, View
from agent.team.result import RunResult


class Reporter:
    """Sends events and results where they belong.

    With ``--json`` standard output carries one JSON object per line and nothing else, and its last
    line is always ``run_finished``; everything human goes to standard error.
    """

    def __init__(self, view: View, out: Console, *, as_json: bool, quiet: bool) -> None:
        self._view = view
        self._out = out
        self._as_json = as_json
        self._quiet = quiet
        self._finished = False

    @classmethod
    @contextmanager
    def for_terminal(cls, *, as_json: bool, verbose: bool, quiet: bool) -> Iterator[Reporter]:
        """A reporter for this process's standard streams; the view is closed at the end."""
        error = Console(stderr=True)
        view: View
        if quiet:
            view = QuietView()
        elif error.is_terminal:
            view = LiveView(error, verbose=verbose)
        else:
            view = PlainView(error, verbose=verbose)
        out = error if as_json else Console()
        try:
            yield cls(view, out, as_json=as_json, quiet=quiet)
        finally:
            view.close()

    def on_event(self, event: str, data: Mapping[str, Any]) -> None:
        """Listener of the journal."""
        if event != "progress":
            self._write_json(event, data)
        self._view.on_event(event, data)

    def show_error(self, error: TurboError) -> None:
        """An expected failure that ended everything."""
        self._view.close()
        self._finish(RunResult(status="failed", exit_code=error.exit_code, reason=str(error)))
        sys.stderr.write(f"turbo: {error}\n")

    def show_interrupted(self) -> None:
        """A signal ended everything; what ran has been cleaned up."""
        self._view.close()
        self._finish(RunResult(status="interrupted", exit_code=130))
        sys.stderr.write("turbo: interrupted; nothing was changed, nothing is left running\n")

    def show_results(self, results: Sequence[RunResult]) -> None:
        """The report of each task."""
        self._view.close()
        for result in results:
            if not self._quiet:
                self._show_work(result)
            self._show_outcome(result)

    def _finish(self, result: RunResult) -> None:
        if not self._finished:
            self._write_json("run_finished", result.event())

    def _write_json(self, event: str, data: Mapping[str, Any]) -> None:
        if self._as_json:
            self._finished = event == "run_finished"
            sys.stdout.write(json.dumps({"event": event, **data}) + "\n")
            sys.stdout.flush()

    def _show_work(self, result: RunResult) -> None:
        out = self._out
        if result.plan is not None:
            self._heading("Plan")
            self._line(result.plan.summary)
            for number, step in enumerate(result.plan.steps, 1):
                line = f"{number}. {step.action} {step.path}: {step.instruction}"
                self._line(line)
        chosen = result.chosen
        if chosen is not None:
            self._heading("Diff")
            if out.is_terminal:
                out.print(Syntax(chosen.diff, "diff", background_color="default"))
            else:
                self._line(chosen.diff)
            self._heading("Tests")
            for line in describe_tests(result):
                self._line(line)
        if result.review is not None:
            self._heading("Review")
            self._line(result.review.verdict)
            for comment in result.review.comments:
                line = f"{comment.file}:{comment.line} {comment.severity}: {comment.text}"
                self._line(line)
        self._heading("Outcome")

    def _show_outcome(self, result: RunResult) -> None:
        for line in describe_outcome(result):
            self._line(line)

    def _line(self, text: str) -> None:
        self._out.print(text, markup=False, highlight=False, soft_wrap=True)

    def _heading(self, title: str) -> None:
        self._out.print(Text(f"\n{title}", style="bold"))


def describe_tests(result: RunResult) -> list[str]:
    """The test result of the chosen candidate and how many candidates were green."""
    chosen = result.chosen
    if chosen is None:
        return []
    green = sum(candidate.status == "green" for candidate in result.candidates)
    tally = f"{green} green of {len(result.candidates)} candidates"
    if chosen.tests is None:
        return ["NO TESTS were found; nothing but the reviewer judged the change.", tally]
    tests = chosen.tests
    code = "time limit" if tests.exit_code is None else f"exit code {tests.exit_code}"
    lines = [f"{tests.command}: {code}, {tests.summary} ({tests.duration_s:.1f} s)", tally]
    return lines + tests.evidence.splitlines()


def describe_outcome(result: RunResult) -> list[str]:
    """Status, branch and commit, and what it cost."""
    lines = [f"{result.status}: {result.reason}" if result.reason else result.status]
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
    if result.fixed_tokens:
        fixed = ", ".join(f"{role} {count}" for role, count in result.fixed_tokens.items())
        lines.append(f"fixed prompt tokens: {fixed}")
    lines.append(f"wall: {result.wall_s:.1f} s")
    return lines
