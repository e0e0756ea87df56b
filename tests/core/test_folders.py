"""Folders of ours outside the repository."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from agent.core import folders
from agent.core.errors import EngineError
from agent.core.folders import cache_folder, private_folder, why_elsewhere
from agent.core.server_log import end_of, new_log


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(folders, "_MEMORY_DISK", tmp_path / "no such disk")
    return folder


def test_a_folder_of_the_cache(own_cache: Path) -> None:
    assert cache_folder("logs") == own_cache / "turbo-local-coder" / "logs"
    assert cache_folder("logs").is_dir()


def test_a_cache_that_cannot_be_made(own_cache: Path, own_temporary_folder: Path) -> None:
    own_cache.write_text("")
    folder = cache_folder("logs")
    assert folder.is_relative_to(own_temporary_folder)
    assert folder.parent.stat().st_mode & 0o077 == 0
    assert cache_folder("logs") == folder
    assert str(folder.parent) in str(why_elsewhere())


def test_a_foreign_folder_of_the_guessable_name(
    own_cache: Path, own_temporary_folder: Path, tmp_path: Path
) -> None:
    own_cache.write_text("")
    (tmp_path / "theirs").mkdir()
    trap = own_temporary_folder / f"turbo-local-coder-{os.getuid()}"
    trap.symlink_to(tmp_path / "theirs")
    with pytest.raises(EngineError, match="can be written") as refused:
        cache_folder("logs")
    assert "XDG_CACHE_HOME" in refused.value.fix
    assert not list((tmp_path / "theirs").iterdir())


def test_a_private_folder_is_private_and_goes(own_temporary_folder: Path) -> None:
    with private_folder() as folder:
        (folder / "secret").write_text("x")
        assert folder.stat().st_mode & 0o077 == 0
        assert folder.parent == own_temporary_folder
    assert not folder.exists()


def test_folders_of_the_killed_are_swept_and_those_of_the_living_are_not(
    own_temporary_folder: Path,
) -> None:
    left = own_temporary_folder / "turbo-private-left"
    left.mkdir()
    with private_folder() as first, private_folder() as second:
        assert first.is_dir()
        assert second.is_dir()
        assert not left.exists()


def test_old_logs_go(tmp_path: Path) -> None:
    for age in range(30):
        path = tmp_path / f"server-{age}.log"
        path.write_text("")
        os.utime(path, (1000 - age, 1000 - age))
    log = new_log(tmp_path)
    left = {path.name for path in tmp_path.glob("*.log")}
    assert left == {log.name, *(f"server-{age}.log" for age in range(19))}


def test_the_end_of_a_log_is_printable(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 100_000 + b"\n\x1b[31mred\x1b[0m \x07\xff bell\n")
    assert end_of(log).splitlines()[-1] == "red \ufffd bell"
    assert len(end_of(log)) <= 16 << 10
    assert end_of(tmp_path / "none") == ""
