"""The judge of candidates: the repository's own formatters, linters and tests."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.core.command import run_command
from agent.team.context import Race, TeamContext
from agent.team.state import Tests
from agent.team.verification import lint_commands, run_tests


async def verify_once(
    written: Mapping[str, str],
    worktree: Path,
    test_command: Sequence[str] | None,
    context: TeamContext,
    race: Race,
) -> tuple[Tests | None, str]:
    """Format, lint and test what a candidate wrote, or wait for one that wrote the same.

    The test result, None without tests, and what linters complained about. Raises CommandError.
    """
    key = tuple(sorted((path, _digest(text)) for path, text in written.items()))
    known = race.verified.get(key)
    if known is None:
        known = asyncio.ensure_future(_verify(sorted(written), worktree, test_command, context))
        race.verified[key] = known
        try:
            return await known
        except asyncio.CancelledError:
            known.cancel()
            await asyncio.gather(known, return_exceptions=True)
            raise
    # the worktree of this candidate must hold what the formatter made of the same answer
    result = await asyncio.shield(known)
    await _format(sorted(written), worktree, context)
    return result


async def _verify(
    paths: Sequence[str], worktree: Path, test_command: Sequence[str] | None, context: TeamContext
) -> tuple[Tests | None, str]:
    async with context.test_slots:
        lint = await _format(paths, worktree, context)
        if test_command is None:
            return None, lint
        timeout_s = context.settings.turbo_test_timeout_s
        report = await run_tests(
            test_command, worktree, checkout=context.workspace.root, timeout_s=timeout_s
        )
        limit = context.settings.turbo_evidence_tokens
        return Tests(
            command=report.command,
            exit_code=report.exit_code,
            failures=report.failures,
            completed=report.completed,
            summary=report.summary,
            evidence="" if report.green else report.evidence(limit),
            duration_s=round(report.duration_s, 3),
        ), lint


async def _format(paths: Sequence[str], worktree: Path, context: TeamContext) -> str:
    """Run the repository's own linters and formatters on `paths`; what they complained about."""
    complaints = []
    for argv in lint_commands(worktree, paths, checkout=context.workspace.root):
        timeout_s = context.settings.turbo_test_timeout_s
        result = await run_command(argv, cwd=worktree, timeout_s=timeout_s)
        if not result.ok:
            complaints.append(f"{' '.join(argv)}: {result.output.strip()[-400:]}")
    return "\n".join(complaints)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
