"""What git tells about paths that are not just files: submodules, and what its settings name."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agent.core.workspace import Workspace, create_repository


def git(folder: Path, *arguments: str) -> None:
    options = ("-c", "user.name=u", "-c", "user.email=u@x", "-c", "protocol.file.allow=always")
    subprocess.run(["git", *options, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("library", "repo"):
        (tmp_path / name / "tools").mkdir(parents=True)
        (tmp_path / name / "tools" / "clean.sh").write_text("cat\n")
        (tmp_path / name / "plain.py").write_text("")
        create_repository(tmp_path / name, message="first")
    return tmp_path / "repo"


async def test_submodules_are_listed(repository: Path, tmp_path: Path) -> None:
    git(repository, "submodule", "add", "--quiet", "../library", "vendor/lib")
    git(repository, "commit", "-qm", "more")
    workspace = await Workspace.open(repository, run="r", worktrees_root=tmp_path / "w")
    try:
        assert await workspace.submodules() == ("vendor/lib",)
    finally:
        await workspace.close()


async def test_what_the_configuration_runs_or_includes_is_listed(
    repository: Path, tmp_path: Path
) -> None:
    (repository / "hooks").mkdir()
    (repository / "shared.conf").write_text("[user]\n\tname = x\n")
    git(repository, "config", "core.hooksPath", "hooks")
    git(repository, "config", "include.path", "../shared.conf")
    git(repository, "config", "filter.tidy.clean", "sh tools/clean.sh %f")
    git(repository, "config", "alias.go", "!cd tools && ./plain.py")
    git(repository, "config", "remote.origin.url", "plain.py")
    workspace = await Workspace.open(repository, run="r", worktrees_root=tmp_path / "w")
    try:
        named = await workspace.programs_of_git()
    finally:
        await workspace.close()
    assert set(named) == {"hooks", "shared.conf", "tools/clean.sh", "plain.py"}
