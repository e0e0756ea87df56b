"""`turbo models`, and runs on models that it fetched, on a real llama-server."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.hub_server import HubServer
from team.conftest import run_turbo
from tiny_models import write_split_copy

from agent import download_view
from agent.cli import main
from agent.core import downloads
from agent.core.config import embedded_model, models_dir
from agent.download_view import shown

NAME = "qwen2.5-coder-1.5b"
REPOSITORY = "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF"
FILE = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache and a working folder of this test, and no proxies."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub that serves the embedded model under the name of a real one."""
    with HubServer() as server:
        server.publish(REPOSITORY, {FILE: embedded_model().read_bytes()}, licence="apache-2.0")
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def said(capsys: Capture, *words: str) -> tuple[int, str, str]:
    code = main(["models", *words])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return code, printed.out, printed.err


async def test_nothing_then_one_pull_then_the_demo_runs_by_name(
    hub: HubServer, own_place: Path
) -> None:
    missing = await run_turbo("run", "--model", NAME, "--json", cwd=own_place)
    assert missing.exit_code == 3
    assert f"turbo models pull {NAME}" in missing.last["reason"]
    assert hub.asked == []
    pulled = await run_turbo("models", "pull", NAME, cwd=own_place)
    assert pulled.exit_code == 0, pulled.err
    assert f"turbo run --model {NAME}" in pulled.err
    assert FILE in pulled.err  # a line where a terminal would have a bar
    ended = await run_turbo("run", "--model", NAME, "--json", cwd=own_place)
    assert ended.exit_code == 0, ended.err
    assert ended.last["status"] == "accepted"
    assert FILE in ended.named("server_ready")[0]["model"]


async def test_a_model_in_parts_runs_by_the_name_of_its_repository(
    hub: HubServer, own_place: Path
) -> None:
    parts = write_split_copy(embedded_model(), own_place, "tiny-q8_0", tensors=30)
    assert len(parts) > 1
    hub.publish("acme/tiny-GGUF", {f"q8/{path.name}": path.read_bytes() for path in parts})
    for path in parts:
        path.unlink()
    assert main(["models", "pull", "acme/tiny-GGUF:Q8_0"]) == 0
    ended = await run_turbo(
        "run", "--json", cwd=own_place, LLAMACPP_MODEL_PATH="acme/tiny-GGUF:Q8_0"
    )
    assert ended.exit_code == 0, ended.err
    assert ended.last["status"] == "accepted"


def test_the_daemon_takes_a_name_and_keeps_the_model(hub: HubServer, capsys: Capture) -> None:
    assert said(capsys, "pull", NAME)[0] == 0
    assert main(["server", "start", "--model", NAME]) == 0
    try:
        code, _, err = said(capsys, "rm", NAME)
        assert (code, "turbo server stop" in err) == (3, True)
        assert "in use" in said(capsys, "list")[1]
        out = said(capsys, "prune", "--max-gb", "0")[1]
        assert "Nothing was removed" in out
        assert f"5.1 MiB stay, in use just now: {REPOSITORY}:Q4_K_M" in out
    finally:
        assert main(["server", "stop"]) == 0
    assert said(capsys, "rm", NAME)[0] == 0


def test_a_terminal_gets_a_bar_with_speed_and_time_left(hub: HubServer, own_place: Path) -> None:
    hub.stall_at = 3 << 20
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", "models", "pull", NAME],
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=own_place,
    )
    os.close(theirs)
    seen = ""
    try:
        while not re.search(r"3\.\d/5\.\d MiB.*?MiB/s.*?\d:\d\d:\d\d", seen):
            seen += os.read(ours, 1 << 16).decode(errors="replace")
        hub.go_on.set()
        with contextlib.suppress(OSError):  # the other end is closed
            while os.read(ours, 1 << 16):
                pass
        assert process.wait(20) == 0
    finally:
        hub.go_on.set()
        process.kill()
        process.communicate()
        os.close(ours)


def test_without_a_terminal_there_are_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(download_view, "_LINE_S", 0.0)
    with shown("a.gguf", 4 << 20) as on_bytes:
        on_bytes(1 << 20)  # was there before
        on_bytes(1 << 20)
    first, second, last = capsys.readouterr().err.splitlines()
    assert first == "a.gguf: 1.0 of 4.0 MiB (25%), 0.0 MiB/s, ? left"
    assert re.fullmatch(r"a\.gguf: 2\.0 of 4\.0 MiB \(50%\), [\d,.]+ MiB/s, 0:00 left", second)
    assert last == "a.gguf: 2.0 MiB in 0:00"


def test_the_commands_around_a_model(hub: HubServer, capsys: Capture) -> None:
    code, out, _ = said(capsys, "list")
    assert code == 0
    assert "0 models" in out
    assert f"\n{NAME} " in out
    assert said(capsys, "pull", NAME)[0] == 0
    code, out, _ = said(capsys, "pull", NAME, "--offline")
    assert (code, "is here already" in out) == (0, True)
    code, out, _ = said(capsys, "list")
    assert out.startswith(f"{NAME} ")
    assert "1 model, 5.1 MiB of 50.0 GiB" in out
    code, out, _ = said(capsys, "path", NAME)
    path = Path(out.strip())
    assert path == models_dir() / REPOSITORY / FILE
    assert said(capsys, "verify")[1].split() == [NAME, "as", "published"]
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\0" if path.read_bytes()[-1:] != b"\0" else b"\1")
    code, out, err = said(capsys, "verify", NAME)
    assert code == 3
    assert f"differs: {FILE}" in out
    assert "turbo models rm" in err
    code, out, _ = said(capsys, "rm", NAME)
    assert (code, f"{NAME} removed, 5.1 MiB freed" in out) == (0, True)
    assert not path.exists()
    code, _, err = said(capsys, "path", NAME)
    assert (code, f"turbo models pull {NAME}" in err) == (3, True)


def test_what_is_left_of_a_pull_is_listed(
    hub: HubServer, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_PAUSES_S", (0.0,))
    hub.cuts = [1 << 20, 0, 0]
    code, _, err = said(capsys, "pull", NAME)
    assert (code, "1.0 MiB of it are kept" in err) == (3, True)
    out = said(capsys, "list")[1]
    assert out.startswith(f"{NAME} ")
    assert "not whole; a pull of it goes on from there" in out
    assert "0 models, 1.0 MiB of 50.0 GiB" in out
    assert said(capsys, "pull", NAME)[0] == 0
    assert "not whole" not in said(capsys, "list")[1]


def test_a_truncated_model_is_told_and_fetched_again_or_removed(
    hub: HubServer, capsys: Capture
) -> None:
    assert said(capsys, "pull", NAME)[0] == 0
    path = models_dir() / REPOSITORY / FILE
    os.truncate(path, 1000)
    assert f"damaged: {FILE} has 1,000 bytes" in said(capsys, "list")[1]
    for words in (("verify",), ("verify", NAME)):
        code, out, err = said(capsys, *words)
        assert (code, "1,000 bytes of" in out) == (3, True)
        assert f"turbo models rm {NAME}, turbo models pull {NAME}" in err
    code, _, err = said(capsys, "path", NAME)
    assert (code, "damaged in the model cache" in err) == (3, True)
    assert said(capsys, "pull", NAME)[0] == 0
    assert "as published" in said(capsys, "verify")[1]
    os.truncate(path, 1000)
    code, out, _ = said(capsys, "rm", NAME, NAME)
    assert (code, out.count("removed")) == (0, 1)
    assert not path.exists()


def test_an_unfinished_pull_can_be_removed(
    hub: HubServer, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_PAUSES_S", (0.0,))
    hub.cuts = [1 << 20, 0, 0]
    assert said(capsys, "pull", NAME)[0] == 3
    code, out, _ = said(capsys, "rm", NAME)
    assert (code, f"{NAME} removed, 1.0 MiB freed" in out) == (0, True)
    code, _, err = said(capsys, "rm", NAME)
    assert (code, "Fetch it" in err, "turbo models list" in err) == (3, False, True)


def test_pruning(hub: HubServer, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(capsys, "pull", NAME)[0] == 0
    assert "Nothing was removed" in said(capsys, "prune")[1]
    monkeypatch.setenv("MODEL_CACHE_MAX_GB", "0.001")
    assert f"{REPOSITORY}:Q4_K_M removed" in said(capsys, "prune")[1]
    code, _, err = said(capsys, "pull", NAME)
    assert (code, "MODEL_CACHE_MAX_GB" in err) == (3, True)


def test_a_pull_makes_room_and_says_so(
    hub: HubServer, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.publish("acme/other-GGUF", {"other-q8_0.gguf": embedded_model().read_bytes()})
    monkeypatch.setenv("MODEL_CACHE_MAX_GB", "0.008")
    assert said(capsys, "pull", NAME)[0] == 0
    code, _, err = said(capsys, "pull", "acme/other-GGUF:Q8_0")
    assert code == 0
    assert f"Removed {REPOSITORY}:Q4_K_M" in err
    assert "1 model," in said(capsys, "list")[1]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("pull", "/a/path.gguf"), 2, "no name of a model"),
        (("pull", "qwen2.5-coder-7"), 3, "Did you mean qwen2.5-coder-7b"),
        (("pull", f"{NAME}:Q1"), 3, "It has Q4_K_M"),
        (("pull", "acme/none-GGUF"), 3, "no such repository"),
        (("pull", NAME, "--offline"), 3, "nothing is to be fetched"),
        (("rm", NAME), 3, "not in the model cache"),
        (("info", "none.gguf"), 3, "no such file"),
        (("info", "a" * 300), 3, "no such name in the catalogue"),
        (("info", f"/{'a' * 5000}"), 3, "File name too long"),
        (("path", "a" * 300), 3, "no such name in the catalogue"),
        (("prune", "--max-gb", "inf"), 2, "a number of GiB"),
    ],
)
def test_wrong_input(
    hub: HubServer, capsys: Capture, words: tuple[str, ...], code: int, text: str
) -> None:
    ended, _, err = said(capsys, *words)
    assert (ended, text in err) == (code, True), err


def test_a_wrong_catalogue_of_the_user(
    hub: HubServer, capsys: Capture, own_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.core.config import user_catalogue
    from agent.core.model_catalogue import catalogue

    monkeypatch.setenv("XDG_CONFIG_HOME", str(own_place / "config"))
    catalogue.cache_clear()
    user_catalogue().parent.mkdir(parents=True)
    user_catalogue().write_text('[[model]]\nname = "mine"\n')
    code, _, err = said(capsys, "list")
    assert code == 2
    assert "models.toml: model mine: repository: Field required" in err
    catalogue.cache_clear()


def test_what_is_recommended_for_programs(capsys: Capture) -> None:
    code, out, _ = said(capsys, "recommend", "--json")
    rows = json.loads(out)
    assert code == 0
    assert {"name", "needed", "verdict", "why"} <= rows[0].keys()
    code, out, _ = said(capsys, "recommend")
    assert code == 0
    assert rows[0]["name"] in out


def test_what_a_file_tells(capsys: Capture) -> None:
    code, out, _ = said(capsys, "info", str(embedded_model()))
    assert code == 0
    assert "KV cache        12.0 MiB per slot of 4,096 tokens" in out
    facts = json.loads(said(capsys, "info", str(embedded_model()), "--json")[1])
    assert facts["architecture"] == "qwen3"
    assert facts["memory"]["kv_per_slot"] == 12 << 20
    assert facts["memory"]["fits"] is True


def test_a_pipe_is_no_model(capsys: Capture, own_place: Path) -> None:
    os.mkfifo(own_place / "pipe")
    code, _, err = said(capsys, "info", "./pipe")
    assert (code, "a pipe or a device" in err) == (3, True)


def test_a_limit_without_end_is_refused(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_CACHE_MAX_GB", "inf")
    code, _, err = said(capsys, "list")
    assert (code, "MODEL_CACHE_MAX_GB" in err) == (2, True)


def test_the_settings_of_the_repository_hold(capsys: Capture, own_place: Path) -> None:
    (own_place / ".git").mkdir()
    (own_place / "turbo.toml").write_text("llamacpp_parallel = 3\n")
    facts = json.loads(said(capsys, "info", str(embedded_model()), "--json")[1])
    assert facts["memory"]["slots"] == 3


def test_what_is_here_for_programs(hub: HubServer, capsys: Capture) -> None:
    assert "0 models to verify" in said(capsys, "verify")[1]
    assert json.loads(said(capsys, "list", "--json")[1])["models"] == []
    assert said(capsys, "pull", NAME)[0] == 0
    about = json.loads(said(capsys, "list", "--json")[1])
    (model,) = about["models"]
    assert about["limit"] == 50 << 30
    assert (model["name"], model["whole"], model["in_use"]) == (NAME, True, False)
    assert model["size"] == embedded_model().stat().st_size
    (row,) = json.loads(said(capsys, "verify", "--json")[1])
    assert row["fault"] is None
    os.truncate(model["path"], 1000)
    code, out, _ = said(capsys, "verify", "--json")
    assert code == 3
    assert "1,000 bytes" in json.loads(out)[0]["fault"]
