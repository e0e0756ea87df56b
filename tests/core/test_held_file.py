"""Files that tell whether their writer lives: with processes that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from agent.core.held_file import held_note, held_notes, hold, is_held, take_abandoned

HOLDER = """
import sys, time
from pathlib import Path
from agent.core.held_file import held_note, hold
folder = Path(sys.argv[1])
with hold(folder / "lock"), held_note(folder, "user", "of the other"):
    print("held", flush=True)
    time.sleep(60)
"""


def other(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_ends_with_its_holder(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "lock")
    with other(tmp_path) as process:
        assert is_held(tmp_path / "lock")
        with hold(tmp_path / "lock", patience_s=0) as ours:
            assert not ours
        os.kill(process.pid, signal.SIGKILL)
    assert not is_held(tmp_path / "lock")
    with hold(tmp_path / "lock") as ours:
        assert ours
        assert is_held(tmp_path / "lock")


def test_whoever_looks_does_not_keep_others_from_holding(tmp_path: Path) -> None:
    with hold(tmp_path / "lock"):
        pass
    looker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from agent.core.held_file import is_held\n"
            "while True: is_held(Path(sys.argv[1]))",
            str(tmp_path / "lock"),
        ]
    )
    try:
        for _ in range(300):
            with hold(tmp_path / "lock") as ours:
                assert ours
    finally:
        looker.kill()
        looker.wait()


def test_notes_of_the_living_and_of_the_killed(tmp_path: Path) -> None:
    with held_note(tmp_path, "user", "ours"):
        with other(tmp_path) as process:
            assert sorted(held_notes(tmp_path, "user")) == ["of the other", "ours"]
            assert list(take_abandoned(tmp_path, "user")) == []
            os.kill(process.pid, signal.SIGKILL)
        assert held_notes(tmp_path, "user") == ["ours"]
        assert list(take_abandoned(tmp_path, "user")) == ["of the other"]
        assert list(take_abandoned(tmp_path, "user")) == []
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_who_waits_for_a_file_that_its_holder_removes_holds_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lock"
    path.parent.mkdir()
    held = threading.Event()
    with hold(path) as ours:
        assert ours

        def wait() -> None:
            with hold(path, patience_s=10) as later:
                if later and is_held(path):
                    held.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        path.unlink()
        path.parent.rmdir()
    waiting.join(10)
    assert held.is_set()
