"""The life of the daemon: real commands, a real llama-server, and kills."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from daemons import Daemons, daemons, wait_until

from agent.core.daemon_record import being_the_daemon, daemon_folder, find_daemon
from agent.core.errors import ServerError


@pytest.fixture
def own(own_cache: Path, tmp_path: Path) -> Iterator[Daemons]:
    with daemons(own_cache, tmp_path) as found:
        yield found


@contextmanager
def stranger() -> Iterator[psutil.Process]:
    """A process that has nothing to do with us and must not be harmed."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    try:
        yield psutil.Process(process.pid)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_from_start_to_stop(own: Daemons) -> None:
    assert own.server("status").code == 1
    first = own.server("start")
    assert first.code == 0, first.err
    assert "4 slots x 4096 tokens" in first.out
    found = own.status()
    assert (found["running"], found["state"], found["busy_slots"]) == (True, "ready", 0)
    assert found["users"] == []
    assert (own.cache / "turbo-local-coder" / "daemon" / "daemon.json").stat().st_mode & 0o077 == 0
    shown = own.server("status")
    assert shown.code == 0
    assert found["url"] in shown.out
    assert own.serving.api_key not in shown.out + first.out

    again = own.server("start")
    assert again.code == 0
    assert "runs already" in again.out
    assert own.status()["pid"] == found["pid"]

    stopped = own.server("stop")
    assert (stopped.code, stopped.out) == (0, "The daemon is stopped.\n")
    assert own.processes() == []
    assert own.server("status", "--json").out == '{\n "running": false\n}\n'
    assert own.server("stop").code == 0


def test_another_daemon_than_the_one_that_runs_needs_a_restart(own: Daemons) -> None:
    first = own.started()
    other = own.server("start", LLAMACPP_PARALLEL="2")
    assert other.code == 2
    assert "LLAMACPP_PARALLEL is 4 there and 2 here" in other.err
    assert "turbo server restart" in other.err
    assert own.record == first
    assert own.server("restart", LLAMACPP_PARALLEL="2").code == 0
    assert own.serving.slots == 2
    assert not first.supervisor.lives()


def test_of_two_starters_one_starts(own: Daemons) -> None:
    both = [own.begin("server", "start") for _ in range(2)]
    said = [own.ended(process) for process in both]
    assert [each.code for each in said] == [0, 0], said
    assert sorted("already" in each.out for each in said) == [False, True]
    assert [x.pid for x in own.servers()] == [own.serving.process.pid]


def test_a_killed_server_is_started_again(own: Daemons) -> None:
    before = own.started().serving
    assert before is not None
    os.kill(before.process.pid, signal.SIGKILL)
    wait_until(lambda: own.serving.starts == 2)
    after = own.serving
    assert (after.url, after.api_key) == (before.url, before.api_key)
    assert "SIGKILL" in after.reason
    found = own.status()
    assert (found["state"], found["restarts"]) == ("ready", 1)
    assert found["server_pid"] == after.process.pid


def test_a_server_that_keeps_dying_ends_the_daemon_with_a_reason(own: Daemons) -> None:
    process = own.begin("server", "run")
    wait_until(lambda: find_daemon() is not None and find_daemon().serving is not None)  # type: ignore[union-attr]
    while process.poll() is None:
        own.kill_servers()
    said = own.ended(process)
    assert said.code == 3
    assert "4 times in a row" in said.err
    assert own.server("status").code == 1


def test_a_killed_daemon_takes_its_server_along_and_is_followed_by_another(own: Daemons) -> None:
    record = own.started()
    os.kill(record.supervisor.pid, signal.SIGKILL)
    wait_until(lambda: not own.processes())
    said = own.server("status")
    assert said.code == 1
    assert "was killed" in said.err
    assert own.server("status").err == ""
    assert own.started().supervisor != record.supervisor


@pytest.mark.parametrize("same_start", [True, False])
def test_a_stale_record_never_leads_to_who_has_its_pid_now(
    own: Daemons, *, same_start: bool
) -> None:
    record = own.started()
    assert own.server("stop").code == 0
    with stranger() as other:
        started = other.create_time() if same_start else other.create_time() - 100
        data = json.loads(record.model_dump_json())
        data["supervisor"] = {"pid": other.pid, "started": started}
        data["serving"]["process"] = data["supervisor"]
        (daemon_folder() / "daemon.json").write_text(json.dumps(data))
        said = own.server("stop", "--force")
        assert (said.code, said.out) == (0, "No daemon runs.\n")
        assert "was killed" in said.err
        assert own.started().supervisor.pid != other.pid


def test_a_record_with_a_reused_pid_beside_a_daemon_is_not_followed(own: Daemons) -> None:
    """The lock says that a daemon lives, but the record names somebody else."""
    with stranger() as other, being_the_daemon() as ours:
        assert ours
        data = {"version": "0", "supervisor": {"pid": other.pid, "started": 1.0}}
        (daemon_folder() / "daemon.json").write_text(json.dumps(data))
        said = own.server("stop", "--force")
        assert said.code == 3
        assert "does not tell which" in said.err
        with pytest.raises(ServerError):
            find_daemon()


def test_a_port_that_is_taken(own: Daemons) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        said = own.server("start", LLAMACPP_PORT=str(listener.getsockname()[1]))
    assert said.code == 3
    assert "its port is taken" in said.err
    assert "LLAMACPP_PORT" in said.err
    assert own.processes() == []
    assert own.server("status").code == 1


@pytest.mark.parametrize(
    ("words", "environment", "code", "expected"),
    [
        (("--model", "absent.gguf"), {}, 3, "no such file"),
        ((), {"LLAMACPP_URL": "http://127.0.0.1:1"}, 2, "With LLAMACPP_URL"),
        ((), {"TURBO_DETERMINISM": "strict"}, 2, "With TURBO_DETERMINISM=strict"),
        ((), {"BACKEND": "ollama"}, 2, "With BACKEND=ollama"),
        ((), {"LLAMACPP_PARALEL": "2"}, 2, "LLAMACPP_PARALLEL"),
        (("--sleep-idle", "0"), {}, 2, "sleep-idle"),
    ],
)
def test_what_cannot_be_served_is_refused(
    own: Daemons, words: tuple[str, ...], environment: dict[str, str], code: int, expected: str
) -> None:
    said = own.server("start", *words, **environment)
    assert said.code == code
    assert expected in said.err
    assert own.processes() == []
    assert own.server("status").code == 1


def test_without_a_cache_it_lives_in_the_temporary_folder(
    own: Daemons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    own.cache = tmp_path / "file" / "cache"
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    own.started()
    assert str(daemon_folder()).startswith(str(temporary))
    assert own.server("stop").code == 0
    assert own.processes() == []


def test_it_sleeps_and_looking_does_not_wake_it(own: Daemons) -> None:
    own.started("--sleep-idle", "0.01")
    wait_until(lambda: own.status()["state"] == "asleep")
    assert own.status()["state"] == "asleep"
    assert own.server("start").code == 0
    other = own.server("start", "--sleep-idle", "5")
    assert other.code == 2
    assert "--sleep-idle" in other.err


def test_an_interrupted_start_leaves_nothing(own: Daemons) -> None:
    process = own.begin("server", "start")
    wait_until(lambda: len(own.processes()) > 1)
    process.send_signal(signal.SIGINT)
    own.ended(process)
    assert process.returncode == 130
    assert own.processes() == []
    assert own.server("status").code == 1


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_in_the_foreground_it_ends_well_when_it_is_asked_to(
    own: Daemons, signum: signal.Signals
) -> None:
    """systemd would start it again after any other exit code than 0."""
    process = own.begin("server", "run")
    wait_until(lambda: own.server("status", "--json").code == 0 and own.record.serving is not None)
    second = own.server("run")
    assert second.code == 2
    assert "runs already" in second.err
    process.send_signal(signum)
    said = own.ended(process)
    assert said.code == 0
    assert own.processes() == []


def test_the_logs_go_on_with_the_next_server(own: Daemons) -> None:
    own.started()
    ended = own.server("logs", "-n", "3")
    assert ended.code == 0
    assert ended.out.count("==> ") == 2
    assert "serves tiny-coder-q8_0.gguf" in ended.out
    following = own.begin("server", "logs", "-f", "-n", "0")
    assert following.stdout is not None
    lines = [following.stdout.readline() for _ in range(2)]  # from now on it follows
    os.kill(own.serving.process.pid, signal.SIGKILL)
    wait_until(lambda: own.serving.starts == 2)
    second = own.serving.log
    wait_until(lambda: "listening" in second.read_text())
    while not all(word in "".join(lines) for word in (second.name, "Started it again")):
        lines.append(following.stdout.readline())
    following.send_signal(signal.SIGINT)
    assert own.ended(following).code == 130
    assert own.server("stop").code == 0
    ended = own.server("logs").out
    assert re.search(r"\d\d:\d\d:\d\d The daemon ends, as it was asked to", ended)
