"""Whatever a clone has in the place of a small file: nothing waits for it or is filled by it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.core.config import load_settings
from agent.core.errors import SettingsError, TaskFileError
from agent.core.regular_file import MOST_BYTES, read_regular
from agent.core.toolchain_paths import tool_root
from agent.team.task_file import read_task
from agent.team.toolchain import detect_test_command, lint_commands

KINDS = ("/dev/zero", "/dev/ptmx", "pipe")


@pytest.fixture(params=KINDS)
def endless(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What a symbolic link of a repository leads to."""
    if request.param != "pipe":
        return Path(request.param)
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    return folder


def load(root: Path, here: Path) -> None:
    load_settings(
        repository=root, working_directory=here, environ={}, user_file=root.parent / "none.toml"
    )


@pytest.mark.parametrize("name", ["turbo.toml", ".env"])
def test_settings_are_read_from_files_alone(root: Path, endless: Path, name: str) -> None:
    (root / name).symlink_to(endless)
    with pytest.raises(SettingsError, match=rf"/{name}: cannot be read: it is a device") as refused:
        load(root, root)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("name", ["turbo.toml", ".env"])
def test_settings_of_any_size_are_refused_by_name(root: Path, name: str) -> None:
    with (root / name).open("wb") as file:
        file.truncate(400_000_000)
    with pytest.raises(SettingsError, match=rf"/{name}: larger than 1,000,000 bytes"):
        load(root, root)


@pytest.mark.parametrize("value", ["[" * 100_000, "9" * 5_000])
def test_toml_that_python_cannot_hold_is_wrong_toml(root: Path, value: str) -> None:
    (root / "turbo.toml").write_text(f"llamacpp_port = {value}\n")
    with pytest.raises(SettingsError, match=r"turbo\.toml: "):
        load(root, root.parent)
    (root / "pyproject.toml").write_text(f"port = {value}\n")
    assert lint_commands(root, ["a.py"]) == []


def test_a_link_to_a_settings_file_is_followed(root: Path) -> None:
    (root / "real.toml").write_text("nonsense = 1\n")
    (root / "turbo.toml").symlink_to("real.toml")
    with pytest.raises(SettingsError, match="unknown setting nonsense"):
        load(root, root)


def test_a_folder_named_dotenv_is_somebody_elses(root: Path) -> None:
    (root / ".env").mkdir()
    load(root, root)


@pytest.mark.parametrize(
    "name",
    ["pyproject.toml", "package.json", "Makefile", "setup.cfg", "ruff.toml", "tox.ini"],
)
def test_what_is_no_file_configures_no_tool(root: Path, endless: Path, name: str) -> None:
    (root / "a.py").write_text("")
    (root / name).symlink_to(endless)
    assert detect_test_command(root) is None
    assert lint_commands(root, ["a.py"]) == []


def test_a_virtual_environment_without_a_readable_note_is_itself_alone(
    root: Path, endless: Path
) -> None:
    tools = root / ".venv" / "bin"
    tools.mkdir(parents=True)
    (tools.parent / "pyvenv.cfg").symlink_to(endless)
    assert list(tool_root(tools, root.parent / "home")) == [tools.parent]


def test_a_task_is_read_from_a_file_alone(root: Path, endless: Path) -> None:
    (root / "task.md").symlink_to(endless)
    with pytest.raises(TaskFileError, match="it is a device, a pipe or a socket"):
        read_task(root / "task.md")


def test_no_more_is_read_than_was_asked_for(root: Path) -> None:
    (root / "x").write_bytes(b"x" * 100)
    assert read_regular(root / "x", 10) == b"x" * 11
    assert len(read_regular(root / "x")) == 100 < MOST_BYTES
