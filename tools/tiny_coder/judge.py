"""Whether an answer is right: the code is run against asserts that no prompt has shown."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from agent.core.errors import TurboError
from agent.team.answer_parser import parse_whole_file
from tools.tiny_coder.compose import Case, Function
from tools.tiny_coder.evidence import test_file, test_path

_LIMIT_S = 20


def parsed(answer: str, path: str, before: str) -> str | None:
    """The file in a coder's answer as the product reads it; None when it is unusable."""
    try:
        return parse_whole_file(answer, path=path, previous=before or None)
    except TurboError:
        return None


def passes(content: str, name: str, cases: list[Case]) -> bool:
    """Whether a module's function gives every expected answer."""
    asserts = "\n".join(case.assertion(name) for case in cases)
    command = [sys.executable, "-I", "-c", f"{content}\n\n{asserts}\n"]
    try:
        finished = subprocess.run(command, capture_output=True, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return finished.returncode == 0


def keeps(content: str, before: str) -> bool:
    """Whether all functions that stood in the file still do."""
    return all(part in content for part in before.split("\n\n\n"))


def pytest_evidence(content: str, function: Function, path: str) -> str:
    """What pytest says about the content, as the repair prompt shows it."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, text in ((path, content), (test_path(path), test_file(function, path))):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text + "\n", encoding="utf-8")
        command = [
            sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider",
            "--rootdir", folder, test_path(path),
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": folder, "COLUMNS": "120"}
        try:
            finished = subprocess.run(
                command, cwd=root, env=environment, capture_output=True, text=True,
                timeout=_LIMIT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return "Tests: no exit code\nE   the tests did not end"
    return f"Tests: exit code {finished.returncode}\n{_trimmed(finished.stdout)}"


def _trimmed(output: str) -> str:
    kept = [
        line
        for line in output.splitlines()
        if line.strip() and not line.startswith(("===", "___", "F ", ". "))
    ]
    return "\n".join(kept)[-900:]
