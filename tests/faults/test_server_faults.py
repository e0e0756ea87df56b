"""The server of a run is killed or hangs in the midst of reading, of writing, of saving."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from faults.conftest import Here, Place, attached
from servers import RealServer

from agent.core.config import Settings
from agent.core.prefix_bank import saved_prefixes

Progress = Mapping[str, Any]
Moment = Callable[[Progress], bool]
_BATCH = 64
"""Tokens; a prompt is read in many steps, so that a fault can come between two of them."""


def reading(at: Progress) -> bool:
    return at["phase"] == "prefill" and 0 < at["done"] < at["prompt"] - _BATCH


def writing(at: Progress) -> bool:
    return at["phase"] == "decode" and at["done"] > 2


def sending(
    signum: signal.Signals, role: str, moment: Moment, find: Callable[[], list[psutil.Process]]
) -> Callable[[str, Progress], None]:
    """A listener that sends a signal to the servers that `find` finds, once, in a request of that
    role."""
    sent: list[psutil.Process] = []

    def listen(event: str, data: Progress) -> None:
        if event == "progress" and not sent and data["role"] == role and moment(data):
            sent.extend(find())
            for server in sent:
                server.send_signal(signum)

    return listen


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize(("role", "moment"), [("planner", reading), ("coder", writing)])
async def test_a_server_that_fails_in_a_request_is_replaced(
    place: Place, signum: signal.Signals, role: str, moment: Moment
) -> None:
    settings = Settings(
        request_timeout_s=1.0, llamacpp_batch_size=_BATCH, llamacpp_ubatch_size=_BATCH
    )
    ended = await place.here(settings, sending(signum, role, moment, place.servers))
    assert ended.result.status == "accepted", ended.result.reason
    (told,) = ended.named("server_restarted")
    assert ("SIGKILL" if signum == signal.SIGKILL else "for 1 s") in told["reason"]
    place.check_accepted()


@pytest.fixture
def prefixes(place: Place) -> Path:
    """The folder of saved prefixes, empty, so that the run has to save one."""
    folder = place.cache / "turbo-local-coder" / "prefixes"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


async def test_a_server_that_is_killed_while_it_saves_a_prefix_is_replaced(
    place: Place, prefixes: Path
) -> None:
    stop = threading.Event()

    def kill_in_the_midst() -> None:
        servers: list[psutil.Process] = []
        while not stop.is_set() and not servers:
            servers = place.servers()
        while not stop.is_set():
            if [*prefixes.glob("*.kv")]:
                for server in servers:
                    server.kill()
                return

    killing = asyncio.create_task(asyncio.to_thread(kill_in_the_midst))
    try:
        ended = await place.here(Settings())
    finally:
        stop.set()
        await killing
    saved_by_the_next_one(place, prefixes, ended)


async def test_a_server_that_hangs_while_it_saves_a_prefix_is_replaced(
    place: Place, prefixes: Path
) -> None:
    """What it opens is a pipe that nobody reads, so that it waits as for a disk that is gone."""
    os.mkfifo(prefixes / f"new-{os.getpid()}-0.kv")
    saved_by_the_next_one(place, prefixes, await place.here(Settings(request_timeout_s=1.0)))


def saved_by_the_next_one(place: Place, prefixes: Path, ended: Here) -> None:
    assert ended.result.status == "accepted", ended.result.reason
    assert ended.result.restarts == 1
    assert not [*prefixes.glob("new-*")]
    assert len(saved_prefixes(prefixes)) == 1
    place.check_accepted()


async def test_a_users_server_that_hangs_ends_the_run_which_goes_on_when_it_is_well(
    place: Place, real_server: RealServer
) -> None:
    def find() -> list[psutil.Process]:
        port = real_server.url.rpartition(":")[2]
        found = []
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):  # others have ended, and nobody has looked yet
                if port in child.cmdline():
                    found.append(child)
        return found

    settings = real_server.settings.model_copy(update={"request_timeout_s": 1.0})
    try:
        ended = await place.here(settings, sending(signal.SIGSTOP, "coder", writing, find))
    finally:
        for server in find():
            server.send_signal(signal.SIGCONT)
    assert (ended.result.exit_code, ended.result.resumable) == (3, True)
    assert "sent neither a token nor progress for 1 s" in ended.result.reason
    assert "REQUEST_TIMEOUT_S" in ended.result.reason
    place.check(branches=0)
    again = await place.turbo("runs", "resume", "--json", **attached(real_server))
    assert again.exit_code == 0, again.err
    place.check_accepted()
