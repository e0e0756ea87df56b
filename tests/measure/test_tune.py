"""`turbo tune` with real servers: what is found, stored, used, and what ends it early."""

from __future__ import annotations

import json
import os
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

from agent.cli import main
from agent.core import server_launching
from agent.core.config import Settings, cache_dir, embedded_model
from agent.core.errors import ServerError
from agent.core.hardware import Hardware, read_hardware
from agent.core.llamacpp_binary import find_binary
from agent.measure.configuration import DEFAULT, Configuration, Space
from agent.measure.server_pool import ServerPool
from agent.measure.tune import tune
from agent.measure.tuning import Tuning

NO_FLASH = Configuration.of(flash_attention="off")
ONLY_FLASH: dict[str, Any] = {
    "llamacpp_parallel": 2,
    "llamacpp_threads": 1,
    "llamacpp_ubatch_size": 512,
    "llamacpp_cache_type_k": "f16",
    "llamacpp_speculation": "off",
}
"""Leaves flash attention alone to be tuned."""
SPACE = Space(variants=(NO_FLASH,), left_out={})
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache and a working folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def more_processes(own_place: Path) -> Callable[[], int]:
    """How many processes we have more than before the test; other tests share a server."""
    before = set(psutil.Process().children(recursive=True))

    def count() -> int:
        return len(set(psutil.Process().children(recursive=True)) - before)

    return count


@pytest.fixture
def server_that(tmp_path: Path) -> Callable[[str, str], Path]:
    """The real llama-server behind a script that says what happens without flash attention, and
    with it."""

    def make(without: str, otherwise: str) -> Path:
        real = find_binary(Settings(), cache=tmp_path / "probes").path
        script = tmp_path / "server" / "llama-server"
        script.parent.mkdir(exist_ok=True)
        script.write_text(
            "#!/bin/sh\n"
            f"real={real}\n"
            'case " $* " in\n'
            '*" --model "*" --flash-attn off "*) ' + without + ";;\n"
            '*" --model "*) ' + otherwise + ";;\n"
            '*) exec "$real" "$@";;\n'
            "esac\n"
        )
        script.chmod(0o755)
        return script

    return make


RUN = 'exec "$real" "$@"'
SLOWLY = f'exec "$real" "$@" --threads {2 * (os.cpu_count() or 1)}'
"""More threads than cores wait for one another."""


async def tuned(settings: Settings, budget_s: float, logs: Path) -> Tuning:
    return await tune(settings, SPACE, budget_s=budget_s, watch=lambda *_: None, log_dir=logs)


def flag(plan: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next((x for x in plan["flags"] if x["flag"] == name), {})
    return found


def planned(capfd: Capture, *options: str) -> dict[str, Any]:
    assert main(["server", "plan", "--json", *options]) == 0
    shown: dict[str, Any] = json.loads(capfd.readouterr().out)
    return shown


def test_the_winner_is_stored_and_used_until_something_changes(
    capfd: Capture,
    own_place: Path,
    monkeypatch: pytest.MonkeyPatch,
    server_that: Callable[[str, str], Path],
    more_processes: Callable[[], int],
) -> None:
    script = server_that(RUN, SLOWLY)
    model = own_place / "model.gguf"
    shutil.copy(embedded_model(), model)
    given = {**ONLY_FLASH, "llamacpp_binary_path": script, "llamacpp_model_path": model}
    for name, value in given.items():
        monkeypatch.setenv(name.upper(), str(value))
    report = own_place / "report"
    options = ["--budget", "12", "--json", "--output", str(report)]
    assert main(["tune", *options]) == 0
    shown = capfd.readouterr()
    found = json.loads(shown.out)
    assert found["winner"] == {"llamacpp_flash_attention": "off"}
    assert found["gain"] > 1.03
    assert found["took_s"] < 12
    rows = {row["label"]: row for row in found["rows"]}
    shown_s = [rows[label]["workflow_s"] for label in ("default", "flash attention off")]
    assert rows["flash attention off"]["times_as_fast"] == found["gain"]
    assert shown_s[0] / shown_s[1] == pytest.approx(found["gain"])
    assert found["not_tried"]["threads"] == "LLAMACPP_THREADS stays as set"
    assert "flash attention off" in shown.err
    last = [x for x in found["samples"] if x["round"] == "last"]
    default, winner = last[0::2], last[1::2]
    assert len(default) == len(winner) >= 2
    faster = [x["workflow_s"] > y["workflow_s"] for x, y in zip(default, winner, strict=True)]
    assert sum(faster) >= 0.8 * len(faster)
    assert "flash attention off" in (report / "tune.md").read_text()
    assert json.loads((report / "tune.json").read_text())["improved"] is True
    assert (report / "tune.png").read_bytes().startswith(b"\x89PNG")
    assert more_processes() == 0

    attention = flag(planned(capfd), "--flash-attn")
    assert (attention["value"], attention["origin"]) == ("off", "tuned")
    assert flag(planned(capfd), "--threads")["origin"] == "setting"
    assert main(["tune", "--show"]) == 0
    assert "LLAMACPP_FLASH_ATTENTION=off" in capfd.readouterr().out

    monkeypatch.setenv("LLAMACPP_FLASH_ATTENTION", "on")
    assert flag(planned(capfd), "--flash-attn")["origin"] == "setting"
    monkeypatch.delenv("LLAMACPP_FLASH_ATTENTION")

    about = model.stat()
    os.utime(model, ns=(1, 1))
    assert flag(planned(capfd), "--flash-attn") == {}
    os.utime(model, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert flag(planned(capfd), "--flash-attn")["origin"] == "tuned"

    with monkeypatch.context() as patch:
        patch.setattr(server_launching, "read_hardware", lambda: another(read_hardware()))
        assert flag(planned(capfd), "--flash-attn") == {}

    stored = next((cache_dir() / "tuning").glob("*.json"))
    whole = stored.read_text()
    stored.write_text(whole[:40])
    damaged = planned(capfd)
    assert flag(damaged, "--flash-attn") == {}
    assert any("is damaged" in note and "turbo tune" in note for note in damaged["notes"])
    stored.write_text(whole)

    assert main(["tune", "--forget"]) == 0
    capfd.readouterr()
    assert flag(planned(capfd), "--flash-attn") == {}
    capfd.readouterr()
    assert main(["tune", "--show", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) is None

    stored.write_text(whole)
    script.write_text(script.read_text() + "# another build\n")
    assert flag(planned(capfd), "--flash-attn") == {}


def another(hardware: Hardware) -> Hardware:
    from dataclasses import replace

    return replace(hardware, cpu="Another CPU")


async def test_a_server_that_cannot_start_is_a_row_with_the_reason(
    own_place: Path, server_that: Callable[[str, str], Path]
) -> None:
    script = server_that("echo error: invalid argument: off >&2; exit 1", RUN)
    found = await tuned(Settings(**ONLY_FLASH, llamacpp_binary_path=script), 8, own_place)
    assert "llama-server" in found.refused[NO_FLASH]
    assert found.finished
    assert not found.improved
    assert {x.configuration for x in found.samples} == {DEFAULT}


async def test_a_budget_that_does_not_suffice_ends_all_the_same(
    own_place: Path,
    server_that: Callable[[str, str], Path],
    more_processes: Callable[[], int],
) -> None:
    script = server_that(RUN, "exec sleep 60")
    began = time.monotonic()
    found = await tuned(Settings(**ONLY_FLASH, llamacpp_binary_path=script), 1, own_place)
    assert time.monotonic() - began < 10
    assert not found.finished
    assert "time was not enough" in found.why
    assert more_processes() == 0


async def test_a_default_that_cannot_start_is_an_error(
    own_place: Path, server_that: Callable[[str, str], Path]
) -> None:
    script = server_that(RUN, "exit 1")
    with pytest.raises(ServerError):
        await tuned(Settings(**ONLY_FLASH, llamacpp_binary_path=script), 8, own_place)


async def test_servers_make_room_for_one_another(
    own_place: Path, monkeypatch: pytest.MonkeyPatch, more_processes: Callable[[], int]
) -> None:
    def small() -> Hardware:
        from dataclasses import replace

        taken = more_processes() * (150 << 20)
        return replace(read_hardware(), memory_available=(200 << 20) - taken)

    monkeypatch.setattr(server_launching, "read_hardware", small)
    async with ServerPool(Settings(), log_dir=own_place) as pool:
        first = await pool.get(DEFAULT)
        assert (await pool.get(DEFAULT)) is first
        assert not pool.crowded
        await pool.get(NO_FLASH)
        assert pool.crowded
        assert not pool.is_open(DEFAULT)
        with pytest.raises(ServerError, match="Memory does not suffice for it"):
            await pool.get(Configuration.of(parallel=16))
        await pool.get(DEFAULT)
        assert more_processes() == 1
    assert more_processes() == 0


def test_the_plot_is_drawn_without_a_word_where_no_cache_can_be_written(own_place: Path) -> None:
    temporary = own_place / "tmp"
    temporary.mkdir()
    nowhere = {"XDG_CACHE_HOME": "/proc/no", "XDG_CONFIG_HOME": "/proc/no", "HOME": "/proc/no"}
    environment = os.environ | nowhere | {"TMPDIR": str(temporary)}
    environment.pop("MPLCONFIGDIR", None)
    drawing = (
        "from pathlib import Path\n"
        "from agent.measure.configuration import DEFAULT\n"
        "from agent.measure.lengths import Rates\n"
        "from agent.measure.tune_plot import draw\n"
        "from agent.measure.tuning import Sample, Tuning\n"
        "rates = Rates(prefill=1.0, single=1.0, together=1.0, slots=1)\n"
        "sample = Sample(round='first', configuration=DEFAULT, rates=rates, seconds=1.0)\n"
        "draw(Tuning(samples=[sample]), 'title', Path('plot.png'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", drawing], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert (own_place / "plot.png").exists()
    assert not list(temporary.glob("matplotlib-*"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("BACKEND", "ollama", "Ollama"), ("LLAMACPP_URL", "http://127.0.0.1:1", "LLAMACPP_URL")],
)
def test_servers_of_others_are_not_tuned(
    capfd: Capture, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    assert main(["tune"]) == 2
    assert said in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--show", "--forget"], 2),
        (["--budget", "1"], 2),
        (["--output", "file/inside"], 2),
        (["--model", "none.gguf"], 3),
    ],
)
def test_wrong_usage(capfd: Capture, own_place: Path, options: list[str], code: int) -> None:
    (own_place / "file").write_text("no folder")
    assert main(["tune", *options]) == code
    assert not (cache_dir() / "tuning-logs").exists()


def test_a_dry_run_starts_nothing(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMACPP_PARALLEL", "3")
    assert main(["tune", "--dry-run", "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert {"llamacpp_flash_attention": "off"} in [x["settings"] for x in shown["variants"]]
    assert shown["left_out"]["slots"] == "LLAMACPP_PARALLEL stays as set"
    assert shown["budget_s"] == 90
    assert main(["tune", "--dry-run", "--budget", "30"]) == 0
    told = capfd.readouterr().out
    assert "model: " in told
    assert "tiny-coder-q8_0.gguf" in told
    assert "llama-server: " in told
    assert "as far as 30 s go" in told
    assert not (cache_dir() / "tuning-logs").exists()


def test_strict_determinism_takes_no_stored_speculation(
    capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.core.tuned_store import Tuned, store_tuned, subject_of

    hardware = read_hardware()
    binary = find_binary(Settings(), cache=cache_dir() / "binaries")
    subject = subject_of(Settings(), embedded_model(), binary, hardware)
    values = {"llamacpp_speculation": "ngram", "llamacpp_parallel": 2}
    store_tuned(cache_dir() / "tuning", subject, Tuned(values=values, gain=2.0, found_on="now"))
    assert flag(planned(capfd), "--spec-type")["origin"] == "tuned"
    monkeypatch.setenv("TURBO_DETERMINISM", "strict")
    assert flag(planned(capfd), "--spec-type") == {}


def test_ctrl_c_leaves_nothing(own_place: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "agent", "tune", "--budget", "60", "--output", "new/report"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while "workflow" not in process.stderr.readline():
            assert process.poll() is None
        servers = psutil.Process(process.pid).children()
        assert servers
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
        assert process.wait(20) == 130
    assert "Interrupted; nothing is stored." in told
    assert not (own_place / "new").exists()
    psutil.wait_procs(servers, timeout=5)
    assert not [server for server in servers if server.is_running()]
    assert not list((cache_dir() / "tuning").glob("*.json"))
    assert not list((cache_dir() / "prefixes").glob("*"))
