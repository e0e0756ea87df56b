"""Repositories and a command line for the tests of the team."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from team.forked import Forked, start_server

from agent.core.workspace import create_repository

TASK = """---
title: Add a double helper
files: [kit/double.py]
test: pytest -q -p no:cacheprovider
---
Add a function `double(number)` to `kit/double.py` that multiplies number by 2.
"""

TESTS = """from kit.double import double


def test_double():
    assert double(2) == 4
"""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    exit_code: int
    out: str
    err: str
    events: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, exit_code: int, out: bytes, err: bytes, arguments: Sequence[str]) -> Outcome:
        text = out.decode()
        events = [json.loads(line) for line in text.splitlines()] if "--json" in arguments else []
        return cls(exit_code, text, err.decode(), events)

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1]

    def named(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.events if each["event"] == event]


@pytest.fixture(scope="session", autouse=True)
def server_that_forks() -> None:
    """Before any test changes the environment, which would then mark that process, too."""
    start_server()


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small package whose test of the wanted feature fails."""
    folder = tmp_path / "repo"
    for name, text in {
        "kit/__init__.py": "",
        "kit/other.py": "def one():\n    return 1\n",
        "tests/test_double.py": TESTS,
        "tasks/add-double.md": TASK,
        "README.md": "# kit\n",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    create_repository(folder, message="first")
    return folder


async def run_turbo(
    *arguments: str,
    cwd: Path,
    stdin: str | bytes | None = None,
    after: Callable[[asyncio.subprocess.Process], Any] | None = None,
    program: tuple[str, ...] = ("-m", "agent"),
    **environment: str,
) -> Outcome:
    """Run the real command in a process of its own; `after` may act on it while it runs."""
    whole = {**os.environ, **environment}
    if after is None and program == ("-m", "agent") and "PYTHONIOENCODING" not in whole:
        return await _run_forked(arguments, cwd, stdin, whole)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *program,
        *arguments,
        cwd=cwd,
        env=whole,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        acting = asyncio.ensure_future(after(process)) if after is not None else None
        out, err = await process.communicate(_bytes(stdin))
        if acting is not None:
            await acting
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()
    assert process.returncode is not None
    return Outcome.of(process.returncode, out, err, arguments)


async def _run_forked(
    arguments: tuple[str, ...], cwd: Path, stdin: str | bytes | None, environment: dict[str, str]
) -> Outcome:
    process = Forked(arguments, cwd, environment)
    try:
        out, err = await process.communicate(_bytes(stdin))
        return Outcome.of(await process.wait(), out, err, arguments)
    except BaseException:
        process.kill()
        raise


def _bytes(text: str | bytes | None) -> bytes:
    return text.encode() if isinstance(text, str) else text or b""


async def until(happened: Callable[[], bool], limit_s: float = 20.0) -> None:
    """Wait for something that another process does."""
    async with asyncio.timeout(limit_s):
        while not happened():
            await asyncio.sleep(0.02)
