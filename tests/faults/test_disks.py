"""A disk is full or read-only: the repository's, or that of the cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from faults.conftest import TASK, TEST, Event, Place, attached
from faults.mounts import Mounts, mounts
from servers import RealServer
from user_state import UserState

from agent.core.config import Settings
from agent.core.prefix_bank import saved_prefixes

MIB = 1 << 20


@dataclass
class Ended:
    code: int
    events: list[Event]
    err: str

    @property
    def last(self) -> Event:
        return self.events[-1]

    def notices(self) -> list[str]:
        return [each["text"] for each in self.events if each["event"] == "notice"]


@dataclass
class Disks:
    """Runs among mounts of a test's own."""

    mounts: Mounts
    place: Place
    environment: dict[str, str]

    def turbo(self, *words: str, at: Callable[[Event], None] = lambda _: None) -> Ended:
        """A command to its end; `at` sees each event as it comes. It may fail, but it says why."""
        process = subprocess.Popen(
            self.mounts.inside(self.place.repository, sys.executable, "-m", "agent", *words),
            env={**os.environ, "XDG_CACHE_HOME": str(self.place.cache), **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        events = []
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            for line in process.stdout:
                if "--json" in words:
                    events.append(json.loads(line))
                    at(events[-1])
            err = process.stderr.read()
        assert "Traceback" not in err, err
        return Ended(process.returncode, events, err)

    def run(self, at: Callable[[Event], None] = lambda _: None) -> Ended:
        words = ("run", "--json", "--candidates", "1", "--test", TEST, TASK)
        return self.turbo(*words, at=at)

    def git(self, *words: str) -> str:
        command = self.mounts.inside(self.place.repository, "git", *words)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def check(self, *, branches: int) -> None:
        """Nothing of the user's has changed, nothing is left behind."""
        repository = self.mounts.seen(self.place.repository)
        assert UserState.of(repository).found == self.place.before.found
        assert len(self.git("worktree", "list").splitlines()) == 1
        assert [*(repository / ".git").rglob("*.lock")] == []
        worktrees = self.mounts.seen(self.place.cache) / "turbo-local-coder" / "worktrees"
        assert not worktrees.exists() or [*worktrees.iterdir()] == []
        assert self.place.processes() == []
        assert len(self.git("branch", "--list", "turbo/*").splitlines()) == branches


@pytest.fixture
def disks(place: Place, real_server: RealServer) -> Iterator[Disks]:
    with mounts() as own:
        yield Disks(own, place, attached(real_server))


@pytest.mark.parametrize("event", ["candidate_started", "candidate_verified"])
def test_a_repository_without_room_ends_the_run_which_goes_on_with_room(
    disks: Disks, event: str
) -> None:
    git = disks.place.repository / ".git"
    disks.mounts.small(git, 4 * MIB)
    filler: list[Path] = []

    def fill(seen: Event) -> None:
        if seen["event"] == event:
            filler.append(disks.mounts.fill(git))

    ended = disks.run(fill)
    assert (ended.code, ended.last["status"]) == (2, "failed")
    assert "Make room" in ended.last["reason"]
    filler[0].unlink()
    disks.check(branches=0)
    again = disks.turbo("runs", "resume", "--json")
    assert again.code == 0, again.err
    assert again.last["status"] == "accepted"
    disks.check(branches=1)


def test_a_repository_that_is_full_from_the_start_is_refused(disks: Disks) -> None:
    git = disks.place.repository / ".git"
    disks.mounts.small(git, 4 * MIB)
    filler = disks.mounts.fill(git)
    ended = disks.run()
    assert ended.code == 2
    assert "Make room" in ended.err
    filler.unlink()
    disks.check(branches=0)


def test_a_cache_without_room_ends_the_run_with_its_name(disks: Disks) -> None:
    disks.place.cache.mkdir(exist_ok=True)
    disks.mounts.small(disks.place.cache, 8 * MIB)
    filler = disks.mounts.fill(disks.place.cache)
    ended = disks.run()
    assert ended.code in (2, 3)
    assert "Make room" in ended.err
    filler.unlink()
    disks.check(branches=0)


async def test_a_server_that_has_no_room_for_prefixes_computes_them(place: Place) -> None:
    """Its file is a device that is always full. It is tried again by the next run."""
    cached = place.cache / "turbo-local-coder"
    for name in ("prefixes", "restore"):
        shutil.rmtree(cached / name, ignore_errors=True)
    (cached / "prefixes").mkdir(parents=True)
    (cached / "prefixes" / f"new-{os.getpid()}-0.kv").symlink_to("/dev/full")
    ended = await place.here(Settings())
    assert ended.result.status == "accepted", ended.result.reason
    notices = [each["text"] for each in ended.named("notice")]
    assert sum("Prefixes cannot be saved" in text for text in notices) == 1
    place.check_accepted()
    again = await place.here(Settings())
    assert again.result.status == "accepted"
    assert len(saved_prefixes(cached / "prefixes")) == 1


def test_a_repository_that_is_read_only_is_refused(disks: Disks) -> None:
    disks.mounts.read_only(disks.place.repository)
    ended = disks.run()
    assert ended.code == 2
    assert ".git folder must be writable" in ended.err
    listed = disks.turbo("runs", "list")
    assert listed.code == 0
    disks.check(branches=0)


def test_a_checkout_that_is_read_only_is_enough(disks: Disks) -> None:
    """But for its .git, nothing is written there."""
    repository = disks.place.repository
    disks.mounts.do("mount", "--bind", repository, repository)
    disks.mounts.do("mount", "--bind", repository / ".git", repository / ".git")
    disks.mounts.do("mount", "-o", "remount,bind,ro", repository)
    assert disks.run().code == 0
    disks.check(branches=1)
