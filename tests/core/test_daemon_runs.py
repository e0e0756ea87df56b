"""Runs on the daemon: which use it, that they share it, and that they outlive its server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest
from cutting import cut
from daemons import Daemons, daemons
from team.conftest import run_turbo

from agent.core.backend_manager import Opened, Request, get_backend
from agent.core.config import Settings
from agent.core.daemon_record import Serving, users_of_the_daemon
from agent.core.errors import ServerError
from agent.core.prompts import Prompt
from agent.core.sampling import CODING

SHARED = "".join(f"def helper_{number}(value):\n    return value\n" for number in range(40))


def ask(name: str, tokens: int = 60) -> Request:
    prompt = Prompt("You write code.", SHARED, "# Role: coder\n", f"Write {name}.")
    return Request(prompt=prompt, sampling=CODING, max_tokens=tokens)


def ask_long(name: str) -> Request:
    """For an answer that is long enough for something to happen meanwhile."""
    numbers = {"type": "array", "items": {"type": "integer"}, "minItems": 200, "maxItems": 200}
    return replace(ask(name, 1500), json_schema=numbers)


@pytest.fixture
def own(own_cache: Path, tmp_path: Path) -> Iterator[Daemons]:
    with daemons(own_cache, tmp_path) as found:
        yield found


@asynccontextmanager
async def opened(**settings: object) -> AsyncIterator[tuple[Opened, list[str], list[str]]]:
    """A backend, the notices, and why the server was started again."""
    notices: list[str] = []
    restarts: list[str] = []
    async with get_backend(
        Settings(**settings),  # type: ignore[arg-type]
        notice=notices.append,
        on_restart=restarts.append,
    ) as found:
        yield found, notices, restarts


def kill(serving: Serving, signum: signal.Signals = signal.SIGKILL) -> None:
    os.kill(serving.process.pid, signum)


async def test_the_demo_runs_on_it_and_leaves_it_running(own: Daemons, tmp_path: Path) -> None:
    own.started()
    runs = [await run_turbo("run", "--json", cwd=tmp_path) for _ in range(2)]
    assert [run.exit_code for run in runs] == [0, 0], runs[0].err
    for run in runs:
        assert "of the daemon" in run.named("server_ready")[0]["description"]
        assert run.named("cache_miss") == []
    assert runs[0].named("plan_ready") == runs[1].named("plan_ready")
    assert runs[1].last["tokens"]["computed"] < runs[0].last["tokens"]["computed"]
    assert [x.pid for x in own.servers()] == [own.serving.process.pid]
    assert own.status()["users"] == []


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"llamacpp_parallel": 2}, "LLAMACPP_PARALLEL is 4 there and 2 here"),
        ({"turbo_determinism": "strict"}, "nobody else uses"),
    ],
)
async def test_a_run_that_asks_for_something_else_says_so_and_has_its_own(
    own: Daemons, settings: dict[str, object], reason: str
) -> None:
    own.started()
    async with opened(**settings) as (found, notices, _):
        assert "of the daemon" not in found.description
        assert users_of_the_daemon() == []
        reply = await found.backend.complete(ask("a"))
    assert reply.usage.predicted > 0
    assert sum("The daemon" in line and reason in line for line in notices) == 1


async def test_its_own_server_does_not_want_the_port_of_the_daemon(own: Daemons) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own.started(LLAMACPP_PORT=str(port))
    async with opened(llamacpp_port=port) as (found, _, _):
        assert "of the daemon" in found.description
    async with opened(llamacpp_port=port, llamacpp_parallel=2) as (found, _, _):
        assert found.backend.slots == 2


async def test_without_a_daemon_nothing_is_said_of_one(own: Daemons) -> None:
    async with opened() as (found, notices, _):
        assert "of the daemon" not in found.description
    assert not any("The daemon" in line for line in notices)


async def test_two_runs_share_its_slots_and_what_was_saved(own: Daemons) -> None:
    own.started()
    serving = own.serving
    deferred: list[int] = []
    done = asyncio.Event()

    async def watch() -> None:
        key = {"Authorization": f"Bearer {serving.api_key}"}
        async with httpx.AsyncClient(base_url=serving.url, headers=key) as client:
            while not done.is_set():
                lines = (await client.get("/metrics")).text.splitlines()
                deferred.extend(
                    int(x.split()[-1]) for x in lines if x.startswith("llamacpp:requests_deferred")
                )
                await asyncio.sleep(0.005)

    async with AsyncExitStack() as stack:
        backends = [(await stack.enter_async_context(opened()))[0].backend for _ in range(2)]
        watching = asyncio.create_task(watch())
        replies = await asyncio.gather(
            *(backend.complete(ask(f"{x}", 100)) for x in range(8) for backend in backends)
        )
        done.set()
        await watching
    assert len(deferred) > 10
    assert max(deferred) == 0
    assert not any(reply.miss for reply in replies)
    asked = sum(reply.usage.prompt for reply in replies)
    assert sum(reply.usage.computed for reply in replies) < asked / 2
    async with opened() as (found, _, _):
        assert (await found.backend.complete(ask("later"))).usage.cached > 400


async def test_it_is_not_stopped_under_a_run(own: Daemons) -> None:
    own.started()
    async with opened() as (found, _, _):
        assert own.status()["users"] == [os.getpid()]
        for words in (("stop",), ("restart",)):
            said = own.server(*words)
            assert said.code == 2
            assert str(os.getpid()) in said.err
            assert "--force" in said.err
        assert (await found.backend.complete(ask("a"))).usage.predicted > 0
        assert own.server("stop", "--force").code == 0
        with pytest.raises(ServerError, match="daemon ended") as failed:
            await found.backend.complete(ask("b"))
        assert "turbo server start" in failed.value.fix
    assert own.processes() == []


async def test_a_run_outlives_the_server(own: Daemons) -> None:
    own.started()
    async with opened() as (found, _, restarts):
        undisturbed = await found.backend.complete(ask_long("a"))
        first = own.serving
        other = asyncio.create_task(found.backend.complete(ask("b", 200)))
        asked = await cut(found.backend, ask_long("a"), partial(kill, first))
        kill(first)
        replies = await asyncio.gather(asked, other)
        assert own.serving.starts == 2
    assert replies[0].text == undisturbed.text
    assert replies[0].usage.cached > 400  # what was saved is restored, not computed again
    assert len(restarts) == 1
    assert not any(reply.miss for reply in replies)


async def test_one_that_died_between_two_requests_is_no_surprise(own: Daemons) -> None:
    own.started()
    async with opened() as (found, _, restarts):
        await found.backend.complete(ask("a"))
        kill(own.serving)
        while own.serving.starts == 1:
            await asyncio.sleep(0.02)
        reply = await found.backend.complete(ask("b"))
    assert reply.miss is None
    assert len(restarts) == 1
    assert "SIGKILL" in restarts[0]


async def test_a_server_that_answered_before_each_death_is_always_started_again(
    own: Daemons,
) -> None:
    own.started()
    async with opened() as (found, _, restarts):
        for number in range(1, 7):
            assert (await found.backend.complete(ask("a"))).usage.predicted > 0
            kill(own.serving)
            while own.serving.starts == number:
                await asyncio.sleep(0.02)
        assert (await found.backend.complete(ask("b"))).usage.predicted > 0
    assert len(restarts) == 6


async def test_one_that_hangs_is_replaced_once_for_all_runs(own: Daemons) -> None:
    own.started()
    async with AsyncExitStack() as stack:
        runs = [await stack.enter_async_context(opened(request_timeout_s=1.5)) for _ in range(2)]
        first = own.serving
        asked = await cut(runs[0][0].backend, ask_long("a"), partial(kill, first))
        replies = await asyncio.gather(asked, runs[1][0].backend.complete(ask("b", 300)))
        assert own.serving.starts == 2
    assert all(reply.usage.predicted > 0 for reply in replies)
    assert [len(restarts) for _, _, restarts in runs] == [1, 1]


async def test_a_killed_daemon_fails_the_run_with_a_way_out(own: Daemons) -> None:
    record = own.started()
    async with opened() as (found, _, _):
        kill(own.serving, signal.SIGSTOP)  # the request is under way for sure when it dies
        asking = asyncio.create_task(found.backend.complete(ask("a")))
        await asyncio.sleep(0.2)
        os.kill(record.supervisor.pid, signal.SIGKILL)
        with pytest.raises(ServerError, match="daemon ended") as failed:
            await asking
    assert failed.value.exit_code == 3


async def test_a_request_that_kills_every_server_is_given_up(own: Daemons) -> None:
    async def kill_every_server() -> None:
        while True:
            own.kill_servers()
            await asyncio.sleep(0.005)

    own.started()
    async with opened() as (found, _, _):
        killing = asyncio.create_task(kill_every_server())
        with pytest.raises(ServerError):
            await found.backend.complete(ask("a", 300))
        killing.cancel()


async def test_a_run_wakes_a_server_that_sleeps(own: Daemons) -> None:
    own.started("--sleep-idle", "0.01")
    while own.status()["state"] != "asleep":
        await asyncio.sleep(0.1)
    async with opened() as (found, _, restarts):
        first = await found.backend.complete(ask("a"))
        while own.status()["state"] != "asleep":
            await asyncio.sleep(0.1)
        again = await found.backend.complete(ask("a"))
    assert again.text == first.text
    assert again.usage.cached > 400  # what the slots held is gone, what was saved is not
    assert again.miss is None
    assert restarts == []


def test_the_doctor_examines_the_server_that_a_run_would_use(own: Daemons) -> None:
    own.started()
    said = own.turbo("doctor", "--json")
    assert said.code == 0, said.err
    checks = {check["name"]: check for check in json.loads(said.out)["checks"]}
    assert "the daemon" in checks["server"]["found"]
    assert checks["server"]["details"]["pid"] == own.serving.process.pid
    asked = ("server", "layers and buffers", "restore probe", "slots", "schema probe")
    assert {checks[name]["state"] for name in asked} == {"ok"}
    assert checks["memory"]["state"] == "not checked"  # what is free is what the daemon left
    assert own.serving.starts == 1
    assert own.status()["users"] == []

    other = own.turbo("doctor", "--json", LLAMACPP_PARALLEL="2")
    checks = {check["name"]: check for check in json.loads(other.out)["checks"]}
    assert "LLAMACPP_PARALLEL is 4 there and 2 here" in checks["server"]["found"]
    assert checks["slots"]["details"] == {"slots": 2}
    assert [x.pid for x in own.servers()] == [own.serving.process.pid]
