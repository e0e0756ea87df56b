"""One task done by the whole team: the product's own command on a repository of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tools.tiny_coder.evidence import test_file, test_path
from tools.tiny_coder.scene import Scene

_ROOT = Path(__file__).parents[2]
_LIMIT_S = 300
_NOBODY = {
    "GIT_AUTHOR_NAME": "evaluation",
    "GIT_AUTHOR_EMAIL": "evaluation@localhost",
    "GIT_COMMITTER_NAME": "evaluation",
    "GIT_COMMITTER_EMAIL": "evaluation@localhost",
}


@dataclass(frozen=True)
class TeamResult:
    """What came out of a run."""

    status: str
    content: str | None
    """The changed file on the branch; None when nothing was accepted."""

    @property
    def accepted(self) -> bool:
        """Whether the team committed something."""
        return self.status == "accepted"


def run_team(scene: Scene, binary: Path, model: Path, *, candidates: int = 4) -> TeamResult:
    """Let the team do the scene's task; its tests are the visible cases only."""
    with tempfile.TemporaryDirectory() as folder:
        repository, task_file = Path(folder) / "repository", Path(folder) / "task.md"
        create_repository(repository, scene)
        task_file.write_text(task_file_text(scene), encoding="utf-8")
        command = [
            sys.executable, "-m", "agent.team.workflow", "--json", "--repo", str(repository),
            "--model", str(model.resolve()), "--candidates", str(candidates), str(task_file),
        ]  # fmt: skip
        environment = {**os.environ, **_NOBODY, "LLAMACPP_BINARY_PATH": str(binary.resolve())}
        environment["PYTHONPATH"] = str(_ROOT)
        finished = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True,
            timeout=_LIMIT_S, check=False,
        )  # fmt: skip
        return _result(finished.stdout, repository, scene.changes[0].path)


def create_repository(repository: Path, scene: Scene) -> None:
    """A git repository with what the scene shows, and the tests of its visible cases."""
    change = scene.changes[0]
    files = dict.fromkeys(scene.listing, "")
    files[test_path(change.path)] = test_file(change.function, change.path)
    files["conftest.py"] = ""
    if change.before:
        files[change.path] = change.before
    for path, content in files.items():
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        (repository / path).write_text(f"{content}\n" if content else "", encoding="utf-8")
    git(repository, "init", "--quiet", "--initial-branch", "main")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "start")


def task_file_text(scene: Scene) -> str:
    """The scene's task as a user would write it down."""
    lines = ["---", f"title: {json.dumps(scene.task.title)}"]
    if scene.files != "any":
        lines.append(f"files: {json.dumps(scene.files.split(', '))}")
    tests = test_path(scene.changes[0].path)
    lines += [f"test: python -m pytest -q {tests}", "---", scene.task.body, ""]
    return "\n".join(lines)


def _result(output: str, repository: Path, path: str) -> TeamResult:
    for line in reversed(output.splitlines()):
        event = json.loads(line)
        if event.get("event") == "run_finished":
            content = None
            if event["status"] == "accepted":
                content = git(repository, "show", f"{event['commit']}:{path}")
            return TeamResult(event["status"], content)
    return TeamResult("no result", None)


def git(repository: Path, *arguments: str) -> str:
    """What a git command prints. Raises subprocess.CalledProcessError."""
    return subprocess.run(
        ["git", "-C", str(repository), *arguments],
        env={**os.environ, **_NOBODY},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
