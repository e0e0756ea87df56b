"""What a command may not do, tried in each sandbox: which attempts are stopped, and which are not.

A script is run as a test command would be. It tries to do harm and the test looks at the harm, not
at what the script says. Where there is no bubblewrap its half is skipped.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from agent.core.command import CommandResult, run_command
from agent.core.config import Settings, command_environment
from agent.core.errors import CommandError, SandboxError
from agent.core.sandbox import Sandbox
from agent.core.sandbox_choice import choose_sandbox, find_bubblewrap
from agent.team.verification import run_tests

MIB = 1 << 20
ISOLATED = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
BOTH = pytest.mark.parametrize(
    "mode", [pytest.param("require", marks=ISOLATED, id="bubblewrap"), pytest.param("off")]
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the attempts are made."""

    home: Path
    outside: Path
    worktree: Path

    async def run(
        self, script: str, sandbox: Sandbox, *, timeout_s: float = 20, shell: bool = False
    ) -> CommandResult:
        argv = ("sh", "-c", script) if shell else (sys.executable, "-c", script)
        return await run_command(argv, cwd=self.worktree, timeout_s=timeout_s, sandbox=sandbox)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    home, outside = tmp_path / "home", tmp_path / "outside"
    worktree = home / "cache" / "c0"
    for folder in (home / ".ssh", outside, worktree):
        folder.mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_text("the key")
    (worktree / ".git").write_text("gitdir: /somewhere\n")
    monkeypatch.setenv("HOME", str(home))
    return Place(home=home, outside=outside, worktree=worktree)


async def sandbox_of(mode: str, **limits: int) -> Sandbox:
    sandbox, _ = await choose_sandbox(Settings(sandbox=mode))  # type: ignore[arg-type]
    return replace(sandbox, limits=replace(sandbox.limits, **limits))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        yield server


@BOTH
async def test_an_honest_command_works(mode: str, place: Place) -> None:
    script = (
        "import os, pathlib, socket, tempfile, multiprocessing as m, subprocess\n"
        "pathlib.Path('made').write_text('x')\n"
        "tempfile.TemporaryFile().write(b'x')\n"
        "(pathlib.Path.home() / 'x').write_text('x')\n"
        "m.Lock()\n"
        "s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())\n"
        "print(subprocess.run(['git', '--version'], capture_output=True, text=True).stdout)\n"
        "print(os.getcwd())\n"
    )
    result = await place.run(script, await sandbox_of(mode))
    assert result.ok, result.output
    assert "git version" in result.output
    assert str(place.worktree) in result.output
    assert (place.worktree / "made").read_text() == "x"
    assert (place.home / "x").exists() == (mode == "off")


@ISOLATED
async def test_it_writes_nowhere_else(place: Place) -> None:
    targets = (place.outside / "x", place.home / "x", Path("/usr/turbo-x"), Path("/tmp/turbo-x"))
    script = f"for f in {' '.join(map(str, targets))}; do echo x > $f; done; echo x > .git"
    result = await place.run(script, await sandbox_of("require"), shell=True)
    assert [path for path in targets if path.exists()] == []
    assert (place.worktree / ".git").read_text() == "gitdir: /somewhere\n"
    assert "Read-only" in result.output


@ISOLATED
async def test_it_reads_no_keys(place: Place) -> None:
    names = [place.home / ".ssh/id_ed25519", "/etc/shadow", "/proc/1/environ", place.outside]
    shown = "; ".join(f"cat {name} 2>&1; ls {name} 2>&1" for name in names)
    (place.outside / "secret").write_text("the secret")
    os.environ["TURBO_TEST_TOKEN"] = "the token"
    try:
        result = await place.run(f"{shown}; env", await sandbox_of("require"), shell=True)
    finally:
        del os.environ["TURBO_TEST_TOKEN"]
    for secret in ("the key", "the secret", "the token", "root:"):
        assert secret not in result.output


@ISOLATED
async def test_it_reaches_nobody(place: Place, listener: socket.socket) -> None:
    unix = place.worktree.parent / "docker.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(unix))
        server.listen()
        script = (
            "import socket\n"
            f"tcp = (socket.AF_INET, {listener.getsockname()!r})\n"
            f"for family, address in (tcp, (socket.AF_UNIX, {str(unix)!r})):\n"
            "    try:\n"
            "        socket.socket(family).connect(address); print('reached')\n"
            "    except OSError as error: print(error)\n"
        )
        result = await place.run(script, await sandbox_of("require"))
    assert "reached" not in result.output
    with pytest.raises(TimeoutError):
        listener.accept()


@ISOLATED
async def test_it_sees_and_touches_no_other_process(place: Place) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        script = (
            f"kill -9 {other.pid} {os.getpid()} $PPID; kill -9 -1; cat /proc/{other.pid}/cmdline"
        )
        await place.run(f"({script}) 2>&1", await sandbox_of("require"), shell=True)
        trace = (
            "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n"
            f"print('traced' if libc.ptrace(16, {other.pid}, 0, 0) == 0 else ctypes.get_errno())\n"
        )
        result = await place.run(trace, await sandbox_of("require"))
        assert "traced" not in result.output
        assert other.poll() is None
        other.kill()


@BOTH
async def test_it_leaves_no_daemon_behind(mode: str, place: Place) -> None:
    mark = f"6{os.getpid()}"
    result = await place.run(
        f"setsid sleep {mark} & (sleep {mark} &) ; echo started", await sandbox_of(mode), shell=True
    )
    assert "started" in result.output
    await ended(mark)


@BOTH
async def test_what_is_late_ends_with_all_its_children(mode: str, place: Place) -> None:
    mark = f"7{os.getpid()}"
    script = f"trap '' TERM; setsid sleep {mark} & sleep {mark}; sleep {mark}"
    result = await place.run(script, await sandbox_of(mode), timeout_s=0.3, shell=True)
    assert result.timed_out
    await ended(mark)


@BOTH
async def test_a_late_python_says_where_it_was(mode: str, place: Place) -> None:
    script = "import time\ndef the_loop():\n    time.sleep(60)\nthe_loop()"
    result = await place.run(script, await sandbox_of(mode), timeout_s=0.5)
    assert result.timed_out
    assert "the_loop" in result.output


@BOTH
async def test_a_fork_bomb_is_ended(mode: str, place: Place) -> None:
    result = await place.run(
        "import os, time\nfor _ in range(12): os.fork()\ntime.sleep(60)",
        await sandbox_of(mode, processes=60),
    )
    assert result.over == "more than 60 processes"
    assert not result.ok
    await all_ended(place.worktree)


@BOTH
async def test_one_file_cannot_fill_the_disk(mode: str, place: Place) -> None:
    script = "f = open('big', 'wb')\nwhile True: f.write(bytes(1 << 20))"
    result = await place.run(script, await sandbox_of(mode, file_size=8 * MIB))
    assert not result.ok
    assert (place.worktree / "big").stat().st_size <= 8 * MIB


@BOTH
async def test_many_files_cannot_either(mode: str, place: Place) -> None:
    script = (
        "import itertools, time\n"
        "for n in itertools.count():\n"
        "    open(f'f{n}', 'wb').write(bytes(1 << 20)); time.sleep(0.005)\n"
    )
    result = await place.run(script, await sandbox_of(mode, disk=30 * MIB))
    assert result.over == "more than 30 MiB of files"
    assert sum(1 for _ in place.worktree.iterdir()) < 400


@BOTH
async def test_it_gets_no_more_memory(mode: str, place: Place) -> None:
    result = await place.run("bytearray(900 << 20)", await sandbox_of(mode, memory=300 * MIB))
    assert "MemoryError" in result.output


@BOTH
async def test_it_gets_no_more_cpu(mode: str, place: Place) -> None:
    result = await place.run("while True: pass", await sandbox_of(mode, cpu_s=1))
    assert not result.ok
    assert not result.timed_out


@ISOLATED
async def test_private_places_are_bounded_too(place: Place) -> None:
    script = "for d in /tmp /dev/shm ~; do dd if=/dev/zero of=$d/x bs=1M count=20 2>&1; done"
    sandbox = await sandbox_of("require", file_size=8 * MIB)
    result = await place.run(f"trap '' XFSZ; {script}", sandbox, shell=True)
    assert result.output.count("records out") == 3
    assert "20+0 records out" not in result.output


@BOTH
async def test_what_cannot_be_started_is_told_as_ever(mode: str, place: Place) -> None:
    sandbox = await sandbox_of(mode)
    (place.worktree / "data").write_text("x")
    for name, reason in (("no-such-program", "not found"), ("./data", "not executable")):
        with pytest.raises(CommandError, match=reason):
            await run_command((name,), cwd=place.worktree, timeout_s=5, sandbox=sandbox)


@ISOLATED
async def test_tools_are_found_where_people_have_them(place: Place) -> None:
    venv = place.home / "project" / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (venv.parent / ".git").mkdir()
    (venv.parent / "secret").write_text("x")
    tool = place.home / ".local" / "share" / "pipx" / "venvs" / "tool" / "bin" / "tool"
    own = place.home / ".local" / "bin" / "tool"
    for path in (tool, own):
        path.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\necho the tool\n")
    tool.chmod(0o755)
    own.symlink_to(tool)
    environment = command_environment(tools=(venv / "bin", own.parent))
    sandbox = await sandbox_of("require")
    found = await run_command(
        ("sh", "-c", f"tool; python -c 'import sys; print(sys.prefix)'; cat {venv.parent}/secret"),
        cwd=place.worktree,
        timeout_s=10,
        env=environment,
        sandbox=sandbox,
    )
    assert "the tool\n" in found.output
    assert f"{venv}\n" in found.output
    assert "No such file" in found.output
    elsewhere = shlex.quote(str(place.outside))
    asked = (await place.run(f"ls -d {elsewhere}", sandbox, shell=True)).ok
    named = replace(sandbox, readable=(place.outside,))
    assert (asked, (await place.run(f"ls -d {elsewhere}", named, shell=True)).ok) == (False, True)


async def test_without_bubblewrap_it_is_said_or_refused(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (await find_bubblewrap()).program is None
    sandbox, said = await choose_sandbox(Settings())
    assert sandbox.bubblewrap is None
    assert "NO SANDBOX" in said
    assert "Install bubblewrap" in said
    for mode in ("bwrap", "require"):
        with pytest.raises(SandboxError, match="not installed") as refused:
            await choose_sandbox(Settings(sandbox=mode))
        assert refused.value.exit_code == 2


async def ended(mark: str) -> None:
    """No process with this argument lives on; one that was killed takes a moment to go."""
    async with asyncio.timeout(10):
        while any(mark in (x.info["cmdline"] or ()) for x in psutil.process_iter(["cmdline"])):
            await asyncio.sleep(0.05)


async def all_ended(folder: Path) -> None:
    """Nobody works in `folder` any more, or soon."""
    give_up_at = time.monotonic() + 5
    while time.monotonic() < give_up_at:
        folders = {x.info["cwd"] for x in psutil.process_iter(["cwd"])}
        if str(folder) not in folders:
            return
    raise AssertionError("processes are left")


@ISOLATED
async def test_the_settings_of_the_kernel_cannot_be_written(place: Place) -> None:
    """Also not where root runs us: those files belong to root."""
    setting = Path("/proc/sys/vm/swappiness")
    script = f"cat {setting} && cat {setting} > x && cat x > {setting}; echo $?"
    result = await place.run(script, await sandbox_of("require"), shell=True)
    assert setting.read_text() in result.output
    assert not result.output.rstrip().endswith("\n0")


@ISOLATED
@pytest.mark.parametrize("trick", ["home", "modules", "bin", "venv"])
async def test_a_clone_does_not_choose_what_of_the_home_is_seen(place: Place, trick: str) -> None:
    keys, checkout = place.home / ".ssh", place.home / "project"
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to(sys.executable)
    if trick == "home":
        (checkout / ".venv" / "pyvenv.cfg").write_text(f"home = {keys}\n")
    elif trick == "modules":
        (checkout / "node_modules").symlink_to(keys)
    elif trick == "bin":
        (checkout / "node_modules").mkdir()
        (checkout / "node_modules" / ".bin").symlink_to(keys)
    else:
        (checkout / "venv").symlink_to(keys)
        (keys / "bin").mkdir()
    report = await run_tests(
        ("cat", str(keys / "id_ed25519")),
        place.worktree,
        checkout=checkout,
        timeout_s=10,
        sandbox=await sandbox_of("require"),
    )
    assert "the key" not in report.result.output
    assert "No such file" in report.result.output
