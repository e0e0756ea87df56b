"""Servers whose owner was killed where the kernel does not end them: found again, and ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from agent.core.config import Settings
from agent.core.process_id import ProcessId
from agent.core.server_launching import open_server
from agent.core.server_notes import end_left_over

OWNER = """
import asyncio, sys
from agent.core import llamacpp_server
from agent.core.server_launching import open_server
from agent.core.config import Settings
llamacpp_server.die_with_parent = lambda: None  # as on a system without PR_SET_PDEATHSIG

async def main():
    async with open_server(Settings()) as server:
        print(server.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def kill_owner() -> int:
    """The pid of a server whose owner was killed."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    server = int(owner.stdout.readline())
    with owner:
        os.kill(owner.pid, signal.SIGKILL)
    return server


def notes(cache: Path) -> list[Path]:
    return list((cache / "turbo-local-coder" / "servers").glob("*"))


async def test_a_server_that_was_left_over_is_ended_by_the_next_start(
    own_cache: Path, wait_gone: Callable[[int], None]
) -> None:
    said: list[str] = []
    left_over = kill_owner()
    assert psutil.Process(left_over).status() != psutil.STATUS_ZOMBIE
    async with open_server(Settings()) as server:
        end_left_over(said.append)
        wait_gone(left_over)
        assert said == [f"Ended llama-server {left_over}, which a killed run had left behind."]
        end_left_over(said.append)
        assert server.death() is None
        assert len(said) == len(notes(own_cache)) == 1
    assert notes(own_cache) == []


def test_who_has_its_pid_now_is_left_alone(own_cache: Path) -> None:
    left_over = kill_owner()
    note = notes(own_cache)[0]
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"]) as stranger:
        then = ProcessId.of(left_over)
        assert then is not None
        note.write_text(json.dumps({"pid": stranger.pid, "started": then.started - 100}))
        end_left_over(lambda _: None)
        assert stranger.poll() is None
        stranger.kill()
    assert notes(own_cache) == []
    os.kill(left_over, signal.SIGKILL)


def test_notes_that_make_no_sense_are_removed(own_cache: Path) -> None:
    folder = own_cache / "turbo-local-coder" / "servers"
    folder.mkdir(parents=True)
    for number, text in enumerate(("", "7", "{}", '{"pid": "x", "started": 1}', "\xff")):
        (folder / f"{number}.server").write_text(text, encoding="latin-1")
    said: list[str] = []
    end_left_over(said.append)
    assert said == []
    assert notes(own_cache) == []


def test_a_process_is_told_from_a_later_one_with_its_pid() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"]) as child:
        found = ProcessId.of(child.pid)
        assert found is not None
        assert found.lives()
        assert not ProcessId(child.pid, found.started - 60).lives()
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not found.lives()  # a zombie has ended
    assert ProcessId.of(child.pid) is None
