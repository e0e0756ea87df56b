"""The life and the deaths of a llama-server, real and misbehaving ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from agent.core import llamacpp_server, server_launching
from agent.core.config import Settings, embedded_model
from agent.core.errors import BinaryError, ModelError, ServerDied, ServerError
from agent.core.llamacpp_candidates import Candidate
from agent.core.llamacpp_server import LlamaCppServer
from agent.core.server_launching import open_server

Make = Callable[..., Path]
HOLDER = Path(__file__).parent.parent / "fakes" / "hold_server.py"

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def started(
    monkeypatch: pytest.MonkeyPatch, wait_gone: Callable[[int], None]
) -> Iterator[list[int]]:
    """The pid of every server that a test starts; none may be left, nor a child in its group."""
    pids: list[int] = []
    real = asyncio.create_subprocess_exec

    async def remember(*argv: str, **options: object) -> asyncio.subprocess.Process:
        process = await real(*argv, **options)
        pids.append(process.pid)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", remember)
    yield pids
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) in pids:
                wait_gone(process.pid)


def fake(path: Path, **more: object) -> Settings:
    return Settings(llamacpp_binary_path=path, **more)


def taken_port() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


async def test_the_embedded_model_is_served(started: list[int], tmp_path: Path) -> None:
    notices: list[str] = []
    async with open_server(Settings(llamacpp_parallel=2), notice=notices.append) as server:
        assert server.pid in started
        assert server.model == embedded_model()
        assert server.slots == 2
        assert server.description.startswith("llama-server ")
        assert server.death() is None
        assert not server.plan.api_key_file.exists()
        private = server.plan.api_key_file.parent
        assert private.stat().st_mode & 0o077 == 0
        async with httpx.AsyncClient(base_url=server.url) as client:
            assert (await client.get("/props")).status_code == 401
            key = {"Authorization": f"Bearer {server.api_key}"}
            props = (await client.get("/props", headers=key)).json()
            assert props["total_slots"] == 2
            assert props["default_generation_settings"]["n_ctx"] == server.plan.context
        assert server.api_key not in Path(f"/proc/{server.pid}/cmdline").read_text()
        assert "listening" in server.log_tail()
        assert server.log.stat().st_mode & 0o077 == 0
    assert server.death() is not None
    assert not private.exists()
    assert len(notices) == 1
    assert "No model set" in notices[0]


async def test_it_starts_in_half_a_second(started: list[int]) -> None:
    async def once() -> float:
        began = time.monotonic()
        async with open_server(Settings()):
            return time.monotonic() - began

    assert min([await once() for _ in range(3)]) < 0.5


async def test_a_death_in_the_middle_of_a_request_is_told(started: list[int]) -> None:
    async with open_server(Settings()) as server:
        os.kill(server.pid, signal.SIGKILL)
        reason = await asyncio.wait_for(server.watch(), 2)
        assert reason == server.death()
        assert reason.startswith("llama-server was killed (SIGKILL)")
        assert "listening" in reason


async def test_an_exception_ends_the_server(started: list[int]) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_server(Settings()):
            raise ZeroDivisionError
    assert len(started) == 1


@pytest.mark.parametrize("behaviour", ["good", "late", "no_key_file"])
async def test_fakes_that_behave(fake_server: Make, started: list[int], behaviour: str) -> None:
    async with open_server(fake(fake_server(behaviour))) as server:
        assert server.death() is None


async def test_late_names_log_and_way_out(
    fake_server: Make, started: list[int], tmp_path: Path
) -> None:
    settings = fake(fake_server("never_ready"), llamacpp_start_timeout_s=0.3)
    with pytest.raises(ServerError, match=r"not ready after 0\.3 s") as caught:
        async with open_server(settings, log_dir=tmp_path):
            pass
    assert "loading model" in caught.value.message
    assert str(caught.value.log) in caught.value.message
    assert "LLAMACPP_START_TIMEOUT_S" in caught.value.fix


@pytest.mark.parametrize(
    ("says", "kind", "reason", "fix"),
    [
        ("couldn't bind HTTP server socket, port: 1", "port", "port is taken", "LLAMACPP_PORT"),
        ("error: invalid argument: --x", "flag", "refused a flag", "another build"),
        ("error: invalid device: Vulkan7", "device", "device", "LLAMACPP_USE_VULKAN=auto"),
        ("E failed to create_context with model", "memory", "memory", "LLAMACPP_CONTEXT_SIZE"),
        ("E unable to allocate CPU buffer\nE failed to load model", "memory", "memory", "smaller"),
        ("tensor 'x' data is not within the file bounds, model is corrupted or incomplete",
         "model", "damaged", "Fetch the file again"),
        ("E unknown model architecture: 'new'\nE failed to load model", "model", "architecture",
         "newer"),
        ("E failed to load model, 'x.gguf'", "model", "could not load", "Fetch"),
        ("something else", "other", "exit status 1", "log"),
    ],
)  # fmt: skip
async def test_deaths_while_starting(
    fake_server: Make, started: list[int], says: str, kind: str, reason: str, fix: str
) -> None:
    settings = fake(fake_server("exits", says=says), llamacpp_port=server_launching._free_port())
    with pytest.raises(ServerDied) as caught:
        async with open_server(settings):
            pass
    assert caught.value.kind == kind
    assert caught.value.exit_code == 3
    assert reason in caught.value.message
    assert says.splitlines()[0] in caught.value.message
    assert fix in caught.value.fix


async def test_a_server_that_dies_while_it_loads(fake_server: Make, started: list[int]) -> None:
    with pytest.raises(ServerDied, match="could not load the model"):
        async with open_server(fake(fake_server("dies_loading"))):
            pass


async def test_a_server_for_another_cpu_gives_way_to_the_next(
    fake_server: Make, started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = fake_server("sigill"), fake_server("good")
    named = (Candidate(origin="PATH", path=bad), Candidate(origin="installed", path=good))
    monkeypatch.setattr("agent.core.llamacpp_binary.candidates", lambda _: iter(named))
    notices: list[str] = []
    async with open_server(Settings(), notice=notices.append) as server:
        assert server.plan.argv[0] == str(good)
    assert any("newer CPU" in line and str(bad) in line for line in notices)
    assert len(started) == 2


@pytest.mark.parametrize("behaviour", ["ignores_term", "forks"])
async def test_what_does_not_want_to_die_is_killed(
    fake_server: Make,
    started: list[int],
    wait_gone: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    behaviour: str,
) -> None:
    monkeypatch.setattr(llamacpp_server, "_PATIENCE_S", 0.1)
    path = fake_server(behaviour)
    async with open_server(fake(path)) as server:
        pass
    wait_gone(server.pid)
    if behaviour == "forks":
        wait_gone(int((path.parent / "child").read_text()))


async def test_cancellation_while_it_starts(fake_server: Make, started: list[int]) -> None:
    async def hold() -> None:
        async with open_server(fake(fake_server("never_ready"))):
            pytest.fail("it cannot be ready")

    task = asyncio.create_task(hold())
    while not started:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancellation_while_it_stops(fake_server: Make, started: list[int]) -> None:
    async def hold() -> None:
        async with open_server(fake(fake_server("ignores_term"))):
            pass

    task = asyncio.create_task(hold())
    while not started:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.4)  # it is in the patience after a TERM now
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_taken_port_of_the_user(started: list[int]) -> None:
    with taken_port() as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ServerDied, match=f"port is taken .*port {port}") as caught:
            async with open_server(Settings(llamacpp_port=port)):
                pass
    assert "LLAMACPP_PORT" in caught.value.fix


async def test_a_taken_port_of_which_the_log_says_nothing(
    fake_server: Make, started: list[int]
) -> None:
    with taken_port() as listener:
        settings = fake(fake_server("exits"), llamacpp_port=listener.getsockname()[1])
        with pytest.raises(ServerDied, match="port is taken"):
            async with open_server(settings):
                pass


async def test_a_lost_port_is_chosen_again(
    started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    free = server_launching._free_port
    with taken_port() as listener:
        ports = iter([listener.getsockname()[1], free()])
        monkeypatch.setattr(server_launching, "_free_port", lambda: next(ports))
        async with open_server(Settings()) as server:
            assert server.death() is None
    assert len(started) == 2


async def test_another_server_on_the_port_is_not_taken_for_ours(
    fake_server: Make, started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers /health, but does not know our key; ours cannot bind and dies."""
    async with open_server(fake(fake_server("good"))) as other:
        monkeypatch.setattr(server_launching, "_PORT_TRIES", 1)
        monkeypatch.setattr(server_launching, "_free_port", lambda: other.plan.port)
        with pytest.raises(ServerDied, match="port is taken"):
            async with open_server(Settings()):
                pass
        assert other.death() is None


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(embedded_model().read_bytes()[:3_000_000]), "cut off"),
        (lambda path: path.write_text("not a model"), "not a GGUF file"),
        (lambda path: None, "no such file"),
    ],
)
async def test_model_files_that_are_none(
    tmp_path: Path, started: list[int], make: Callable[[Path], object], reason: str
) -> None:
    shutil.copy(embedded_model(), tmp_path / "beside.gguf")
    path = tmp_path / "model.gguf"
    make(path)
    with pytest.raises(ModelError, match=reason) as caught:
        async with open_server(Settings(llamacpp_model_path=path)):
            pass
    assert not started
    if reason == "no such file":
        assert tmp_path / "beside.gguf" in caught.value.available


async def test_a_damaged_model_that_the_header_does_not_show(
    tmp_path: Path, started: list[int]
) -> None:
    """The real server's own words are understood: a tensor of an unknown type."""
    content = bytearray(embedded_model().read_bytes())
    at = content.index(b"general.architecture") + len("general.architecture") + 12
    content[at : at + 3] = b"zzz"
    path = tmp_path / "odd.gguf"
    path.write_bytes(content)
    kinds = []
    for _ in range(4):  # llama-server's log thread sometimes loses its last lines at exit
        with pytest.raises(ServerDied) as caught:
            async with open_server(Settings(llamacpp_model_path=path)):
                pass
        kinds.append(caught.value.kind)
        if "architecture" in str(caught.value):
            break
    assert kinds[-1] == "model"


async def test_vulkan_that_is_required_and_missing(fake_server: Make, started: list[int]) -> None:
    with pytest.raises(BinaryError, match="finds no Vulkan device"):
        async with open_server(fake(fake_server("good"), llamacpp_use_vulkan="1")):
            pass


async def test_a_cache_that_cannot_be_written(
    own_cache: Path, started: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_cache.write_text("a file where the folder should be")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with open_server(Settings()) as server:
        assert server.log.is_relative_to(tmp_path)


async def test_a_binary_that_vanished(
    fake_server: Make, started: list[int], tmp_path: Path
) -> None:
    path = fake_server("good")
    async with open_server(fake(path)) as server:
        plan = replace(server.plan, api_key_file=tmp_path / "key")
    path.unlink()
    with pytest.raises(BinaryError, match="cannot be executed"):
        async with LlamaCppServer.launch(plan, log=tmp_path / "log", timeout_s=1):
            pass


@pytest.mark.parametrize(
    ("signum", "status"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, -15), (signal.SIGINT, 130)],
)
def test_nothing_survives_us(
    wait_gone: Callable[[int], None], signum: signal.Signals, status: int
) -> None:
    with subprocess.Popen([sys.executable, HOLDER], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            about = json.loads(holder.stdout.readline())
            holder.send_signal(signum)
            assert holder.wait(3) == status
            wait_gone(about["server"])
            private = Path(about["private"])
            if signum == signal.SIGINT:
                assert not private.exists()
            shutil.rmtree(private, ignore_errors=True)
        finally:
            holder.kill()
