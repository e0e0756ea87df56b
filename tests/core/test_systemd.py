"""The service of systemd: what is written, where it cannot be, and a systemctl that records."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import Daemons, daemons

from agent.core.systemd_unit import NAME, unit_text

COMMAND = ["/opt/my env/bin/python", "-P", "-m", "agent", "server", "run", "--model"]


@pytest.fixture
def own(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemons]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "no-bus"))
    with daemons(own_cache, tmp_path) as found:
        yield found


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that says yes to all but is-active; the file of what it was asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    asked = tmp_path / "asked"
    program = folder / "systemctl"
    program.write_text(
        f'#!/bin/sh\nshift 2\necho "$@" >> {asked}\ncase "$1" in is-active) exit 3;; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return asked


def unit_of(tmp_path: Path) -> Path:
    return tmp_path / "config" / "systemd" / "user" / NAME


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    cache = tmp_path / "my cache 100%"
    cache.mkdir()
    command = ["/bin/true", *COMMAND[1:], '/m/100% "quoted" $HOME\\x.gguf']
    unit = tmp_path / NAME
    unit.write_text(unit_text(command, {"LLAMACPP_MODEL_PATH": 'a "b" $c %d'}, cache))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_words_reach_the_program_as_they_are() -> None:
    text = unit_text([*COMMAND, '/m/5% "x" $y.gguf'], {"A": "$b %c"}, Path("/c d/5%"))
    assert (
        'ExecStart="/opt/my env/bin/python" "-P" "-m" "agent" "server" "run" "--model" '
        '"/m/5%% \\"x\\" $$y.gguf"\n'
    ) in text
    assert 'Environment="A=$b %%c"\n' in text
    assert "WorkingDirectory=/c d/5%%\n" in text
    assert 'ReadWritePaths="/c d/5%%"\n' in text
    with pytest.raises(ValueError, match="cannot be written"):
        unit_text([*COMMAND, "two\nlines"], {}, Path("/c"))


@pytest.mark.parametrize("systemd", ["absent", "without a session"])
def test_where_systemd_runs_no_services_of_users(
    own: Daemons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemd: str
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    if systemd != "absent":
        program = folder / "systemctl"
        program.write_text("#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    said = own.server("install-service", "--sleep-idle", "30", LLAMACPP_CONTEXT_SIZE="8192")
    assert said.code == 2
    assert "nothing was installed" in said.err
    last = said.err.splitlines()[-1]
    assert "agent server start --sleep-idle 30" in last
    assert "LLAMACPP_CONTEXT_SIZE=8192" in last
    assert not (tmp_path / "config").exists()
    assert own.server("uninstall-service").out == "No service is installed.\n"


def test_it_is_installed_with_the_settings_of_now_and_removed(
    own: Daemons, tmp_path: Path, systemctl: Path
) -> None:
    said = own.server(
        "install-service", "--model", "m.gguf", LLAMACPP_PARALLEL="2", LLAMACPP_PORT="8080"
    )
    assert said.code == 0, said.err
    unit = unit_of(tmp_path)
    assert str(unit) in said.out
    text = unit.read_text()
    assert f'"--model" "{tmp_path / "m.gguf"}"' in text
    for line in (
        'Environment="LLAMACPP_PARALLEL=2"',
        'Environment="LLAMACPP_PORT=8080"',
        f'Environment="XDG_CACHE_HOME={own.cache}"',
        "Restart=on-failure",
        "NoNewPrivileges=yes",
    ):
        assert line in text
    assert "LLAMACPP_API_KEY" not in text
    wanted = ["show-environment", "daemon-reload", f"enable {NAME}", f"restart {NAME}"]
    assert systemctl.read_text().splitlines() == wanted
    systemctl.unlink()
    assert own.server("uninstall-service").code == 0
    assert not unit.exists()
    assert systemctl.read_text().splitlines() == [f"disable --now {NAME}", "daemon-reload"]


def test_a_daemon_that_was_started_by_hand_goes_first(
    own: Daemons, tmp_path: Path, systemctl: Path
) -> None:
    own.started()
    said = own.server("install-service")
    assert said.code == 2
    assert "turbo server stop" in said.err
    assert not unit_of(tmp_path).exists()


def test_the_command_of_the_unit_is_a_daemon(own: Daemons, systemctl: Path, tmp_path: Path) -> None:
    """What ExecStart names, run as systemd would: with nothing of the shell's environment."""
    assert own.server("install-service").code == 0
    lines = unit_of(tmp_path).read_text().splitlines()
    words = next(x for x in lines if x.startswith("ExecStart=")).removeprefix("ExecStart=")
    named = [x.removeprefix("Environment=").strip('"') for x in lines if "Environment=" in x]
    process = subprocess.Popen(
        [word.strip('"') for word in words.split()],
        env=dict(x.split("=", 1) for x in named),
        cwd=own.cache,
        stderr=subprocess.PIPE,
    )
    try:
        while own.server("status", "--json").code or not own.status()["server_pid"]:
            assert process.poll() is None
        assert own.server("start").code == 0
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0
