"""Shared fixtures of the tests of agent/core: fake servers, an own cache, model files."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from agent.core import llamacpp_candidates

_FAKES = Path(__file__).parent.parent / "fakes"


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The platform cache directory, moved to a folder of this test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This machine offers no llama-server: none on PATH, no wheel, none installed, no xllamacpp."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(llamacpp_candidates, "_WHEEL", "no_such_wheel")
    monkeypatch.setattr(llamacpp_candidates, "_LIBRARY", "no_such_library")


@pytest.fixture
def fake_server(tmp_path: Path) -> Callable[..., Path]:
    """Make an executable `llama-server` of the given behaviour (see tests/fakes/bad_server.py).

    Its folder holds what it writes: `asked` with the questions it got, `child` with a pid.
    `says` is what it logs before it exits.
    """

    def make(behaviour: str, *, says: str = "") -> Path:
        folder = tmp_path / "fake" / behaviour
        folder.mkdir(parents=True)
        (folder / "says").write_text(says, encoding="utf-8")
        path = folder / "llama-server"
        command = [sys.executable, "-S", "-E", str(_FAKES / "bad_server.py"), behaviour]
        line = shlex.join([*command, str(folder)])
        path.write_text(f'#!/bin/sh\nexec {line} "$@"\n', encoding="utf-8")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def wait_gone() -> Callable[[int], None]:
    """Wait until a process is gone; one that only waits to be reaped by init counts as gone."""

    def wait(pid: int, *, within_s: float = 3.0) -> None:
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if not _lives(pid):
                return
            time.sleep(0.01)
        pytest.fail(f"process {pid} is still there")

    return wait


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
