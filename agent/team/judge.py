"""The judge of candidates: the repository's own formatters, linters and tests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from agent.core.command import run_command
from agent.team.context import Race, TeamContext
from agent.team.state import Verified
from agent.team.verification import lint_commands, run_tests
from agent.team.weakened import hollow_run


async def tidy(paths: Sequence[str], worktree: Path, context: TeamContext) -> str | None:
    """Run the repository's own linters and formatters on `paths`; what they complained about.

    None when there is none to run: then no file has changed. Raises CommandError.
    """
    commands = lint_commands(worktree, paths, checkout=context.workspace.root)
    if not commands:
        return None
    complaints = []
    async with context.test_slots:
        for argv in commands:
            timeout_s = context.settings.turbo_test_timeout_s
            result = await run_command(
                argv, cwd=worktree, timeout_s=timeout_s, sandbox=context.sandbox
            )
            if not result.ok:
                said = context.journal.redactor.text(result.output)
                complaints.append(f"{' '.join(argv)}: {said.strip()[-400:]}")
    return "\n".join(complaints)


async def verify_once(
    diff: str, worktree: Path, command: Sequence[str], context: TeamContext, race: Race
) -> Verified:
    """Run the tests on a candidate, or wait for those of one with the same diff.

    Raises CommandError when they cannot be started.
    """
    known = race.verified.get(diff)
    if known is not None:
        return await asyncio.shield(known)
    known = asyncio.ensure_future(_test(diff, worktree, command, context))
    race.verified[diff] = known
    try:
        return await known
    except asyncio.CancelledError:
        known.cancel()
        await asyncio.gather(known, return_exceptions=True)
        raise


def begin_base_tests(command: Sequence[str], context: TeamContext) -> asyncio.Task[Verified]:
    """The run of the tests before any change; started when it is first asked for."""
    base = context.base_tests
    if base.running is None:
        base.running = asyncio.create_task(_test_base(command, context))
    return base.running


async def why_hollow(tests: Verified, command: Sequence[str], context: TeamContext) -> str:
    """Why a result that is green proves nothing; empty when it does.

    Raises CommandError when the tests cannot be started.
    """
    if not tests.green or context.settings.turbo_weaker_tests == "allow":
        return ""
    # others wait for it too: it does not end with the candidate that asks
    return hollow_run(tests, await asyncio.shield(begin_base_tests(command, context)))


async def _test_base(command: Sequence[str], context: TeamContext) -> Verified:
    known, key = context.base_tests.known, (context.workspace.base, *command)
    if key not in known:
        worktree = await context.workspace.worktree("base")
        known[key] = await _test("", worktree, command, context)
    return known[key]


async def _test(
    diff: str, worktree: Path, command: Sequence[str], context: TeamContext
) -> Verified:
    kept = context.memory.tests(diff, command)
    if kept is not None:
        return kept
    async with context.test_slots:
        report = await run_tests(
            command,
            worktree,
            checkout=context.workspace.root,
            timeout_s=context.settings.turbo_test_timeout_s,
            sandbox=context.sandbox,
            redactor=context.journal.redactor,
        )
    limit = context.settings.turbo_evidence_tokens
    result = Verified(
        command=report.command,
        exit_code=report.exit_code,
        failures=report.failures,
        completed=report.completed,
        ran=report.ran,
        summary=report.summary,
        evidence="" if report.green else report.evidence(limit),
        duration_s=round(report.duration_s, 3),
    )
    context.memory.keep_tests(diff, command, result)
    return result
