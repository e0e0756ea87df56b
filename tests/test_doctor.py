"""`turbo doctor`: what it says of a sound machine and of everything that may be wrong."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from fakes.gguf_writer import BASIC, gguf
from fakes.llama_server import KEY, FakeLlamaServer, answer
from pydantic import SecretStr
from servers import RealServer

from agent.cli import main
from agent.core import doctor_machine
from agent.core.config import Settings, embedded_model
from agent.core.doctor import examine
from agent.core.gguf_info import read_gguf

NAMES = [
    *("binary", "CPU", "memory", "devices", "model", "server", "layers and buffers"),
    *("restore probe", "context per slot", "slots", "schema probe", "sandbox", "git"),
    *("disk of the cache", "disk of the repository"),
]
Checks = dict[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def examined(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Checks]:
    """The exit code and the checks by name."""
    code = main(["doctor", "--json", *arguments])
    report = json.loads(capsys.readouterr().out)
    checks = {check["name"]: check for check in report["checks"]}
    assert list(checks) == NAMES
    assert report["healthy"] == (code == 0)
    assert report["failures"] == sum(x["state"] == "failure" for x in checks.values())
    assert all(x["fix"] for x in checks.values() if x["state"] in ("failure", "warning"))
    return code, checks


def servers_with(word: str) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(word in part for part in process.info["cmdline"] or ())
    ]


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_sound_machine_passes_and_no_server_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMACPP_PARALLEL", "3")
    code, checks = examined(capsys)
    assert code == 0
    assert [x["name"] for x in checks.values() if x["state"] == "not checked"] == []
    sound = {"binary", "CPU", "devices", "server", "layers and buffers", "restore probe", "git"}
    assert {name for name in sound if checks[name]["state"] != "ok"} == set()
    assert checks["model"]["state"] == "warning"  # the embedded one is no help with work
    assert checks["model"]["details"]["path"] == str(embedded_model())
    assert checks["slots"]["details"] == {"slots": 3}
    assert checks["context per slot"]["details"] == {"tokens": 4096}
    assert checks["restore probe"]["details"] == {"restore": "any"}
    assert set(json.loads(checks["schema probe"]["details"]["answer"])) == {"signal", "count"}
    (cpu,) = checks["layers and buffers"]["details"]["buffers"]
    assert cpu["device"] == "CPU"
    assert 4 << 20 < cpu["model"] < 16 << 20
    assert cpu["kv"] > 1 << 20
    key = next(x for x in checks["server"]["details"]["argv"] if x.endswith("/key"))
    assert servers_with(key) == []


def test_a_server_that_runs_already_is_asked_and_left_alone(
    real_server: RealServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMACPP_URL", real_server.url)
    monkeypatch.setenv("LLAMACPP_API_KEY", real_server.api_key)
    code = main(["doctor"])
    out = capsys.readouterr().out
    assert code == 0
    assert "\x1b" not in out
    rows = {line.split("  ")[0]: line for line in out.splitlines()}
    assert set(NAMES) <= set(rows)
    assert "not checked" in rows["binary"]
    assert "LLAMACPP_URL is set" in rows["binary"]
    assert "answers are held to their schema" in rows["schema probe"]
    assert "0 failures" in out


def test_a_server_that_is_not_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMACPP_URL", "http://127.0.0.1:9")
    code, checks = examined(capsys)
    assert code == 3
    assert "127.0.0.1:9" in checks["server"]["found"]
    assert checks["schema probe"]["state"] == "not checked"
    assert checks["git"]["state"] == "ok"


def test_an_ollama_that_is_not_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKEND", "ollama")
    monkeypatch.setenv("OLLAMA_LOCAL", "http://127.0.0.1:9")
    code, checks = examined(capsys)
    assert code == 3
    assert checks["server"]["state"] == "failure"
    assert "BACKEND=ollama" in checks["binary"]["found"]


async def test_a_server_that_ignores_schemas_fails() -> None:
    async with FakeLlamaServer(answer("def ", "add")) as server:
        settings = Settings(llamacpp_url=server.url, llamacpp_api_key=SecretStr(KEY))
        checks = {x.name: x for x in await examine(settings, repository=None)}
    assert checks["schema probe"].state == "failure"
    assert "not held" in checks["schema probe"].found
    assert "turbo server binaries" in checks["schema probe"].fix
    assert checks["server"].state == "ok"


EMBEDDING = gguf(BASIC | {"llama.pooling_type": 1})


def unknown_architecture() -> bytes:
    known = read_gguf(embedded_model()).architecture.encode()
    return embedded_model().read_bytes().replace(known, b"x" + known[1:])


@pytest.mark.parametrize(
    ("content", "failing", "found", "fix"),
    [
        (lambda: EMBEDDING, "model", "embedding model", "LLAMACPP_MODEL_PATH"),
        (lambda: embedded_model().read_bytes()[:100_000], "model", "cut off", "again"),
        (lambda: b"no model", "model", "GGUF", ""),
        (unknown_architecture, "server", "architecture", "newer"),
    ],
    ids=["embedding", "truncated", "text", "architecture"],
)
def test_a_model_that_is_of_no_use(
    content: Callable[[], bytes],
    failing: str,
    found: str,
    fix: str,
    elsewhere: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = elsewhere / "model.gguf"
    path.write_bytes(content())
    code, checks = examined(capsys, "--model", str(path))
    assert code == 3
    assert checks[failing]["state"] == "failure"
    assert found in checks[failing]["found"]
    assert fix in checks[failing]["fix"]
    assert checks["schema probe"]["state"] == "not checked"
    assert checks["binary"]["state"] == "ok"
    assert checks["git"]["state"] == "ok"
    assert servers_with(str(path)) == []


def test_a_binary_that_is_a_script(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program(elsewhere, "script", "echo hello")
    monkeypatch.setenv("LLAMACPP_BINARY_PATH", str(path))
    code, checks = examined(capsys)
    assert code == 3
    assert checks["binary"]["state"] == "failure"
    assert str(path) in checks["binary"]["found"]
    assert checks["server"]["state"] == "not checked"
    assert "no binary runs here" in checks["server"]["found"]
    assert checks["model"]["state"] == "warning"


def test_settings_that_contradict(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMACPP_CONTEXT_SIZE", "1000000")
    code, checks = examined(capsys)
    assert code == 3
    assert "LLAMACPP_CONTEXT_SIZE" in checks["server"]["found"] + checks["server"]["fix"]


@pytest.mark.parametrize(
    ("script", "state", "said"),
    [
        ("exit 0", "ok", "works"),
        ("echo 'setting up uid map: Permission denied'; exit 1", "warning", "Permission denied"),
        (None, "warning", "not installed"),
    ],
)
async def test_the_sandbox_is_tried(
    script: str | None,
    state: str,
    said: str,
    elsewhere: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from agent.core.doctor_machine import check_sandbox

    folder = elsewhere / "bin"
    folder.mkdir()
    if script is not None:
        program(folder, "bwrap", script)
    monkeypatch.setenv("PATH", str(folder))
    check = await check_sandbox()
    assert (check.state, said in check.found) == (state, True)
    assert bool(check.fix) == (state == "warning")


@pytest.mark.parametrize(
    ("script", "state"),
    [
        ("echo git version 2.20.1", "failure"),
        ("echo git version 2.39.5 \\(Apple Git-154\\)", "ok"),
        ("exit 1", "failure"),
    ],
)
async def test_git_is_asked_for_its_version(
    script: str, state: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.core.doctor_machine import check_git

    program(elsewhere / "bin", "git", script)
    monkeypatch.setenv("PATH", str(elsewhere / "bin"))
    check = await check_git()
    assert check.state == state
    assert ("2.28" in check.fix) == (state == "failure")


@pytest.mark.parametrize(
    ("free", "state"), [(10 << 30, "ok"), (2 << 30, "warning"), (1 << 20, "failure")]
)
def test_a_disk_that_is_nearly_full(
    free: int, state: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr(doctor_machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    check = doctor_machine.check_disk("cache", elsewhere / "not" / "made" / "yet")
    assert check.state == state
    assert str(elsewhere) in check.found
    assert ("turbo prefixes prune" in check.fix) == (state != "ok")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_its_server(elsewhere: Path, signum: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "agent", "doctor"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=elsewhere,
    ) as process:
        try:
            children = wait_for_server(process)
            process.send_signal(signum)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 128 + signum
    assert "Traceback" not in err
    assert out == ""
    psutil.wait_procs(children, timeout=5)
    assert [child for child in children if child.is_running()] == []


def wait_for_server(process: subprocess.Popen[str]) -> list[psutil.Process]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        if any("--model" in words_of(child) for child in children):
            return children
        time.sleep(0.002)
    pytest.fail("no server was started")


def words_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # it was a question to the binary, and has its answer
        return []


def test_a_cache_that_cannot_be_used_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    check = doctor_machine.check_cache()
    assert str(tmp_path / "tmp") in check.found
    assert f"{tmp_path / 'file'}" in check.found
    assert "cannot be written" in check.found
    assert "XDG_CACHE_HOME" in check.fix
    shutil.rmtree(tmp_path / "tmp")
    (tmp_path / "tmp").write_text("")
    assert doctor_machine.check_cache().state == "failure"
