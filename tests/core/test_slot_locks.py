from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.core import slot_locks
from agent.core.slot_locks import SlotLocks

SERVER = "http://127.0.0.1:8080"
CHILD = """
import sys, time
from pathlib import Path
from agent.core.slot_locks import SlotLocks

locks = SlotLocks(Path(sys.argv[1]), sys.argv[2])
print(locks.try_acquire(0), flush=True)
locks.stamp(0)
print("stamped", flush=True)
time.sleep(60)
"""


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[SlotLocks]:
    locks = SlotLocks(tmp_path / "made when needed", SERVER)
    yield locks
    locks.close()


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[SlotLocks]:
    locks = SlotLocks(tmp_path / "made when needed", SERVER)
    yield locks
    locks.close()


def use(locks: SlotLocks, slot: int) -> bool:
    """Use a slot as a pool does; whether others had used it."""
    assert locks.try_acquire(slot)
    used = locks.used_by_others(slot)
    locks.stamp(slot)
    locks.release(slot)
    return used


def test_a_slot_has_one_holder(ours: SlotLocks, theirs: SlotLocks) -> None:
    assert ours.try_acquire(0)
    assert not theirs.try_acquire(0)
    assert not ours.try_acquire(0)
    assert theirs.try_acquire(1)
    ours.release(0)
    assert theirs.try_acquire(0)


def test_closing_unlocks_everything_and_may_be_repeated(ours: SlotLocks, theirs: SlotLocks) -> None:
    assert ours.try_acquire(0)
    assert ours.try_acquire(1)
    ours.close()
    ours.close()
    ours.release(0)
    assert theirs.try_acquire(0)
    assert theirs.try_acquire(1)


def test_each_server_has_locks_of_its_own(ours: SlotLocks, tmp_path: Path) -> None:
    other = SlotLocks(tmp_path / "made when needed", "http://127.0.0.1:8081")
    assert ours.try_acquire(0)
    assert other.try_acquire(0)
    other.close()


def test_the_next_holder_sees_whether_others_used_the_slot(
    ours: SlotLocks, theirs: SlotLocks
) -> None:
    assert use(ours, 0)  # nobody can say what an unknown slot holds
    assert not use(ours, 0)
    assert not use(ours, 0)
    assert use(theirs, 0)
    assert use(ours, 0)
    assert not use(ours, 0)


def test_a_look_without_use_leaves_no_trace(ours: SlotLocks, theirs: SlotLocks) -> None:
    use(ours, 0)
    assert theirs.try_acquire(0)
    assert theirs.used_by_others(0)
    theirs.release(0)
    assert not use(ours, 0)


def test_a_stamp_replaces_whatever_was_in_the_file(ours: SlotLocks, tmp_path: Path) -> None:
    use(ours, 0)
    (file,) = (tmp_path / "made when needed").iterdir()
    file.write_text("x" * 100)
    assert use(ours, 0)
    assert not use(ours, 0)


def test_the_lock_dies_with_a_killed_process(ours: SlotLocks, tmp_path: Path) -> None:
    use(ours, 0)
    argv = [sys.executable, "-c", CHILD, str(tmp_path / "made when needed"), SERVER]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "True\n"
            assert child.stdout.readline() == "stamped\n"
            assert not ours.try_acquire(0)
        finally:
            child.kill()
        child.wait()
        assert ours.try_acquire(0)
        assert ours.used_by_others(0)


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ours, theirs = (SlotLocks(tmp_path / "file" / "folder", SERVER) for _ in range(2))
    assert not use(ours, 0)
    assert ours.try_acquire(0)
    assert theirs.try_acquire(0)


def test_a_file_system_without_locks_is_no_error(
    ours: SlotLocks, theirs: SlotLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(handle: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    assert ours.try_acquire(0)
    assert theirs.try_acquire(0)


def test_a_system_without_flock(
    ours: SlotLocks, theirs: SlotLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_locks, "fcntl", None)
    assert not use(ours, 0)
    assert ours.try_acquire(0)
    assert theirs.try_acquire(0)
    ours.release(0)
