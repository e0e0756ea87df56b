"""Commands, with real children that behave badly."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import tracemalloc
from pathlib import Path

import psutil
import pytest

from agent.core.command import LEFT_OUT, CommandResult, run_command
from agent.core.config import command_environment
from agent.core.errors import CommandError


async def python(code: str, cwd: Path, timeout_s: float = 20, **options: int) -> CommandResult:
    argv = [sys.executable, "-S", "-E", "-c", code]
    return await run_command(argv, cwd=cwd, timeout_s=timeout_s, **options)


async def wait_for_pid(path: Path) -> int:
    while not path.exists() or not path.read_text():
        await asyncio.sleep(0.01)
    return int(path.read_text())


async def assert_gone(pid: int) -> None:
    for _ in range(300):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"process {pid} is still there")


async def test_a_command_that_fails_is_a_result_with_both_outputs_in_order(tmp_path: Path) -> None:
    argv = ["sh", "-c", "echo one; echo two >&2; echo three; exit 3"]
    result = await run_command(argv, cwd=tmp_path, timeout_s=20)
    assert (result.exit_code, result.output) == (3, "one\ntwo\nthree\n")
    assert not result.ok
    assert not result.timed_out
    assert result.argv == tuple(argv)


async def test_it_runs_in_its_folder_with_no_standard_input(tmp_path: Path) -> None:
    code = "import os, sys; print(os.path.realpath('.'), repr(sys.stdin.read()))"
    result = await python(code, tmp_path)
    assert result.ok
    assert result.output == f"{tmp_path.resolve()} ''\n"


async def test_endless_output_is_cut_to_head_and_tail_in_bounded_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    code = (
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "n = 0\nwhile True:\n    print('line', n)\n    n += 1"
    )
    try:
        result = await python(code, tmp_path, timeout_s=1.5, output_limit=10_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.timed_out
    assert len(result.output) <= 10_000 + len(LEFT_OUT) + 2
    assert peak < 3_000_000
    head, tail = result.output.split(f"{LEFT_OUT}\n")
    assert head.startswith("line 0\nline 1\n")
    numbers = [int(line.removeprefix("line ")) for line in tail.splitlines()[:-1]]
    assert len(numbers) > 300
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


async def test_output_within_the_limit_is_whole(tmp_path: Path) -> None:
    result = await python("print('\u00e4' * 4000)", tmp_path, output_limit=8001)
    assert result.output == "\u00e4" * 4000 + "\n"


async def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    result = await python("import os; os.write(1, b'a\\xff\\xfeb')", tmp_path)
    assert result.output == "a\ufffd\ufffdb"


async def test_a_command_that_hangs_ends_at_its_deadline(tmp_path: Path) -> None:
    result = await run_command(["sleep", "600"], cwd=tmp_path, timeout_s=0.2)
    assert result.timed_out
    assert result.exit_code is None
    assert not result.ok
    assert result.duration_s < 3


async def test_at_the_deadline_a_runner_can_still_say_where_it_hangs(tmp_path: Path) -> None:
    code = "import time\ntry:\n    time.sleep(600)\nexcept KeyboardInterrupt:\n    print('here')"
    result = await python(code, tmp_path, timeout_s=0.5)
    assert result.timed_out
    assert result.output == "here\n"


async def test_one_that_ignores_signals_is_killed_with_its_children(tmp_path: Path) -> None:
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "if pid := os.fork():\n"
        "    open('child', 'w').write(str(pid))\n"
        "time.sleep(600)\n"
    )
    result = await python(code, tmp_path, timeout_s=0.5)
    assert result.timed_out
    assert result.duration_s < 10
    await assert_gone(int((tmp_path / "child").read_text()))


async def test_a_child_left_behind_neither_holds_us_up_nor_survives(tmp_path: Path) -> None:
    argv = ["sh", "-c", "sleep 600 & echo $! > child; echo done"]
    begin = time.monotonic()
    result = await run_command(argv, cwd=tmp_path, timeout_s=60)
    assert (result.exit_code, result.output) == (0, "done\n")
    assert time.monotonic() - begin < 5
    await assert_gone(int((tmp_path / "child").read_text()))


async def test_a_daemon_that_left_the_group_does_not_hold_us_up(tmp_path: Path) -> None:
    argv = ["sh", "-c", "setsid sh -c 'echo $$ > daemon; exec sleep 600' & echo done"]
    begin = time.monotonic()
    result = await run_command(argv, cwd=tmp_path, timeout_s=60)
    assert result.ok
    assert time.monotonic() - begin < 5
    if (tmp_path / "daemon").exists():
        os.kill(await wait_for_pid(tmp_path / "daemon"), 9)


async def test_cancelling_kills_the_whole_group_at_once(tmp_path: Path) -> None:
    argv = ["sh", "-c", "trap '' TERM INT; sleep 600 & echo $! > child; wait"]
    running = asyncio.create_task(run_command(argv, cwd=tmp_path, timeout_s=60))
    child = await wait_for_pid(tmp_path / "child")
    begin = time.monotonic()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert time.monotonic() - begin < 2
    await assert_gone(child)


async def test_no_file_descriptor_is_left_open(tmp_path: Path) -> None:
    me = psutil.Process()
    await run_command(["true"], cwd=tmp_path, timeout_s=20)
    before = me.num_fds()
    for _ in range(5):
        await run_command(["true"], cwd=tmp_path, timeout_s=20)
        with pytest.raises(CommandError):
            await run_command(["no-such-program-here"], cwd=tmp_path, timeout_s=20)
    assert me.num_fds() <= before


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["no-such-program-here"], "not found"),
        (["./plain"], "not executable"),
        (["./headless"], "no program"),
        (["true", "a\0b"], "null byte"),
        (["true", "x" * 5_000_000], "arguments are too long"),
        ([], "empty"),
        ([""], "empty"),
    ],
)
async def test_what_cannot_be_started_says_why_and_what_to_do(
    argv: list[str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "plain").write_text("echo")
    (tmp_path / "headless").write_text("echo")
    (tmp_path / "headless").chmod(0o755)
    with pytest.raises(CommandError, match=said) as caught:
        await run_command(argv, cwd=tmp_path, timeout_s=20)
    assert caught.value.fix


async def test_a_missing_folder_is_not_blamed_on_the_program(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no such folder"):
        await run_command(["true"], cwd=tmp_path / "gone", timeout_s=20)


async def test_commands_see_no_secrets_and_none_of_our_python_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GITHUB_TOKEN", "SSH_AUTH_SOCK", "PYTHONPATH", "LLAMACPP_API_KEY"):
        monkeypatch.setenv(name, "secret")
    result = await run_command(["env"], cwd=tmp_path, timeout_s=20)
    assert "secret" not in result.output
    assert "PYTHONDONTWRITEBYTECODE=1" in result.output.splitlines()
    assert f"HOME={os.environ['HOME']}" in result.output.splitlines()


def test_the_users_tools_come_first_and_ours_last() -> None:
    environ = {"PATH": os.pathsep.join(["/a", "/b"]), "VIRTUAL_ENV": "/venv", "LC_ALL": "C"}
    made = command_environment(tools=[Path("/repo/.venv/bin")], environ=environ)
    folders = made["PATH"].split(os.pathsep)
    assert folders == ["/repo/.venv/bin", "/venv/bin", "/a", "/b", str(Path(sys.executable).parent)]
    assert made["LC_ALL"] == "C"


async def test_our_own_pytest_loads_no_plugin_that_came_with_our_dependencies(
    tmp_path: Path,
) -> None:
    (tmp_path / "test_a.py").write_text("def test_a(): pass\n")
    result = await run_command(["pytest", "--trace-config"], cwd=tmp_path, timeout_s=60)
    assert "1 passed" in result.output
    assert "langsmith" not in result.output.replace("no:langsmith_plugin", "")
    assert "anyio" not in result.output.replace("no:anyio", "")
    chosen = command_environment(environ={"PATH": str(Path(sys.executable).parent)})
    assert "anyio" not in chosen["PYTEST_ADDOPTS"]  # whoever has this environment on PATH wants it
    made = command_environment(environ={"PATH": str(tmp_path)}, tools=[tool_folder(tmp_path)])
    assert "PYTEST_ADDOPTS" not in made  # the repository's own pytest has what it wants


def tool_folder(folder: Path) -> Path:
    tool = folder / "bin" / "pytest"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    return tool.parent
