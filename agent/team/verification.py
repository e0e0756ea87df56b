"""Run the tests of a worktree, and say what came of it."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.core.command import CommandResult, run_command
from agent.core.config import command_environment
from agent.core.errors import TaskFileError
from agent.core.redaction import Redactor
from agent.core.sandbox import Sandbox
from agent.team.evidence import last_line, summarise_failure
from agent.team.tally import read_tally
from agent.team.toolchain import detect_test_command, lint_commands, node_modules, tool_folders

__all__ = [
    "VerificationReport",
    "detect_test_command",
    "lint_commands",
    "run_tests",
    "split_command",
    "summarise_failure",
]

_SHELL = re.compile(r"[|&;<>$`*?~(){}\[\]\n#!]|^\s*\w+=")
_PIPE = re.compile(r"(?<!\|)\|(?!\|)")
_CHARACTERS_PER_TOKEN = 3
"""Of test output, roughly; low, so that the limit is kept."""


@dataclass(frozen=True, kw_only=True)
class VerificationReport:
    """What a test command said about one worktree."""

    command: str
    """As one would type it."""

    result: CommandResult
    root: Path
    """The folder that it ran in."""

    failures: int
    """Tests that failed, 1 for a red command that does not tell, 0 when green."""

    completed: bool
    """False when tests could not be collected or built, did not end, or were not counted: then
    `failures` says little, and a candidate that got further is better."""

    ran: int | None
    """Tests that ran to a verdict; None when they were not counted."""

    summary: str
    """The last line that matters, for people."""

    @property
    def exit_code(self) -> int | None:
        """None when the deadline ended it."""
        return self.result.exit_code

    @property
    def green(self) -> bool:
        """It ended by itself, with 0."""
        return self.result.ok

    @property
    def duration_s(self) -> float:
        """Wall seconds."""
        return self.result.duration_s

    def evidence(self, limit_tokens: int) -> str:
        """What of the output a repair needs, in about `limit_tokens` tokens at most."""
        limit = limit_tokens * _CHARACTERS_PER_TOKEN
        first = f"{self.summary}\n" if self.result.timed_out or self.result.over else ""
        room = limit - len(first)
        return first + summarise_failure(self.result.output, limit_chars=room, root=self.root)


def split_command(text: str, source: str, *, line: int = 0, key: str = "test") -> tuple[str, ...]:
    """The argument vector of a test command as the user wrote it.

    A command that needs a shell gets one: it is the user's own word, not the model's. A pipeline is
    run with ``pipefail``, else the status of ``pytest | tee log`` would be that of `tee`, and red
    tests would look green. Raises TaskFileError for an empty command or an open quote.
    """
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        reason = str(error).lower()
        fix = "Close the quote, or put the command into a script."
        raise TaskFileError(source, reason, line=line, key=key, fix=fix) from None
    if not words:
        fix = "Name a command, or leave it out."
        raise TaskFileError(source, "is empty", line=line, key=key, fix=fix)
    if not _SHELL.search(text):
        return words
    return ("bash", "-o", "pipefail", "-c", text) if _PIPE.search(text) else ("sh", "-c", text)


async def run_tests(
    command: Sequence[str],
    root: Path,
    *,
    checkout: Path,
    timeout_s: float,
    sandbox: Sandbox | None = None,
    redactor: Redactor | None = None,
) -> VerificationReport:
    """Run `command` in `root`, a worktree of the repository that is checked out at `checkout`. What
    it prints is the report's only as `redactor` leaves it: it goes into prompts and journals.

    Raises CommandError when it cannot be started. Red is a report, not an error.
    """
    result = await run_command(
        command,
        cwd=root,
        timeout_s=timeout_s,
        env=_environment(root, checkout),
        sandbox=sandbox,
    )
    redact = (redactor or Redactor()).text
    result = replace(result, output=await asyncio.to_thread(redact, result.output))
    tally = read_tally(result.output)
    summary = tally.line if tally else last_line(result.output)
    if result.timed_out:
        summary = f"not finished after {timeout_s:g} s"
    elif result.over:
        summary = f"ended for {result.over}"
    counted = tally.failures if tally else 0
    cut = result.timed_out or result.over is not None
    return VerificationReport(
        command=shlex.join(command),
        result=result,
        root=root,
        failures=0 if result.ok else max(counted, 1),
        completed=result.ok or (not cut and tally is not None and tally.completed),
        ran=tally.ran if tally else None,
        summary=summary or f"exit code {result.exit_code}",
    )


def _environment(root: Path, checkout: Path) -> dict[str, str]:
    """The user's tools, but the worktree's code.

    A package that is installed in editable mode leads to the user's checkout; PYTHONPATH comes
    before it. Packages of node_modules are found where the user installed them.
    """
    sources = [folder for folder in (root / "src", root) if folder.is_dir()]
    extra = {"PYTHONPATH": os.pathsep.join(map(str, sources))}
    if (modules := node_modules(checkout)) is not None:
        extra["NODE_PATH"] = str(modules)
    return command_environment(tools=tool_folders(checkout)) | extra
