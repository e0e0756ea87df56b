"""Bad input and signals: what the command says, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from fakes.llama_server import KEY
from fakes.team_server import ACCEPT, FakeTeamServer, code, plan
from team.conftest import TASK, git, run_turbo, until

from agent.cli import main
from agent.core.config import embedded_model
from agent.core.folders import cache_folder
from agent.core.prefix_bank import PrefixBank
from agent.core.workspace import create_repository
from agent.team import session
from agent.team.conclusion import task_trailer
from agent.team.task_file import parse_task

ROOT = Path(__file__).parent.parent


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "repo"
    (folder / "tasks").mkdir(parents=True)
    (folder / "tasks" / "a.md").write_text(TASK)
    create_repository(folder, message="first")
    monkeypatch.chdir(folder)
    return folder


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and everything printed, without line breaks of boxes."""
    code = main(arguments)
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return code, " ".join((printed.out + printed.err).split())


def test_outside_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = said(capsys, "run", "--task", "x")
    assert code == 2
    assert "not a git repository" in text
    assert "git init" in text


def test_a_repository_without_a_commit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(tmp_path, "init", "--quiet")
    code, text = said(capsys, "run", "--repo", str(tmp_path), "--task", "x")
    assert code == 2
    assert "no commit yet" in text


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("files:", "fils:", r"bad\.md:3: fils: .*files"),
        ("[kit/double.py]", "7", r"bad\.md:3: files: "),
        ("[kit/double.py]", "[/etc/passwd]", r"bad\.md:3: files: '/etc/passwd' is not relative"),
        ("[kit/double.py]", "[../x.py]", r"bad\.md:3: files: '\.\./x\.py' leaves"),
        ("title: Add a double helper", "title: [a]", r"bad\.md:2: title: "),
    ],
)
def test_a_wrong_task_file_names_file_line_and_key(
    repository: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, expected: str
) -> None:
    (repository / "bad.md").write_text(TASK.replace(old, new))
    code, text = said(capsys, "run", "bad.md")
    assert code == 2
    assert re.search(expected, text), text


def test_a_task_file_that_is_not_utf_8(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "bad.md").write_bytes(TASK.encode() + b"\xff\xfe")
    code, text = said(capsys, "run", "bad.md")
    assert code == 2
    assert "bad.md:7: is not UTF-8" in text


def test_no_task_found(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "tasks" / "a.md").unlink()
    code, text = said(capsys, "run", "--all")
    assert code == 2
    assert "no task found" in text
    code, text = said(capsys, "run", "tasks/absent.md")
    assert code == 2
    assert "tasks/absent.md: no such file" in text


def test_several_ways_to_name_a_task(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(capsys, "run", "--all", "--task", "x")
    assert code == 2
    assert "not several" in text
    code, text = said(capsys, "run", "--apply")
    assert code == 2
    assert "need a task" in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--model", "no/such.gguf"), r"no/such\.gguf: .*tiny-coder-q8_0\.gguf"),
        (("--model", "tasks/a.md"), r"tasks/a\.md: .*GGUF"),
    ],
)
def test_a_model_that_is_none(
    repository: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    expected: str,
) -> None:
    code, text = said(capsys, "run", *arguments, "tasks/a.md")
    assert code == 3
    assert re.search(expected, text), text


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("LLAMACPP_BINARY_PATH", "/no/such/binary", "/no/such/binary"),
        ("LLAMACPP_URL", "http://127.0.0.1:9", "LLAMACPP_URL"),
        ("OLLAMA_LOCAL", "http://127.0.0.1:9", "ollama serve"),
    ],
)
def test_an_engine_that_is_not_there(
    repository: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    expected: str,
) -> None:
    monkeypatch.setenv(name, value)
    if name.startswith("OLLAMA"):
        monkeypatch.setenv("BACKEND", "ollama")
    code, text = said(capsys, "run", "tasks/a.md")
    assert code == 3
    assert expected in text


def test_a_model_that_is_cut_off(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(embedded_model().read_bytes()[:2_000_000])
    code, text = said(capsys, "run", "--model", str(cut), "tasks/a.md")
    assert code == 3
    assert f"model {cut}: " in text
    assert "cut off" in text


def test_a_binary_that_is_no_program(
    repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    binary = tmp_path / "llama-server"
    binary.write_text("hello\n")
    monkeypatch.setenv("LLAMACPP_BINARY_PATH", str(binary))
    code, text = said(capsys, "run", "tasks/a.md")
    assert code == 3
    assert f"{binary}" in text
    assert "not executable" in text


def test_a_port_that_is_taken(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("LLAMACPP_PORT", str(port))
        code, text = said(capsys, "run", "tasks/a.md")
    assert code == 3
    assert str(port) in text
    assert "LLAMACPP_PORT" in text


def test_a_wrong_setting(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMACPP_PARALEL", "4")
    code, text = said(capsys, "run", "tasks/a.md")
    assert code == 2
    assert "LLAMACPP_PARALLEL" in text


def last_event(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert event["event"] == "run_finished"
    return event


@pytest.mark.parametrize(
    "arguments",
    [
        ["absent.md"],
        ["--all", "--task", "x"],
        ["--apply"],
        ["--test", "", "tasks/a.md"],
        ["--candidates", "0", "tasks/a.md"],
        ["--no-such-option"],
    ],
)
def test_with_json_even_an_early_error_ends_with_run_finished(
    repository: Path, capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(["run", "--json", *arguments]) == 2
    assert last_event(capfd)["status"] == "failed"


def test_with_json_nothing_to_do_is_said_too(
    repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trailer = task_trailer(parse_task(TASK, source="a.md"))
    author = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    git(repository, *author, "commit", "--quiet", "--allow-empty", "-m", f"Done\n\n{trailer}")
    assert main(["run", "--json", "--all"]) == 0
    last = last_event(capfd)
    assert (last["status"], last["reason"]) == ("accepted", "nothing to do")
    assert last["candidates"] == {"started": 0, "green": 0}


def test_a_bug_keeps_its_traceback_and_ends_the_events(
    repository: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(session, "run_tasks", broken)
    with pytest.raises(RuntimeError, match="a bug of ours"):
        main(["run", "--json", "tasks/a.md"])
    last = last_event(capfd)
    assert (last["status"], last["reason"]) == ("failed", "RuntimeError: a bug of ours")


SIGNALS = [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize(("signum", "expected"), SIGNALS)
@pytest.mark.parametrize("arguments", [["-"], []])
def test_a_signal_before_anything_has_started(
    repository: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    signum: signal.Signals,
    expected: int,
) -> None:
    """While the task is read from standard input, and while the demo is copied."""

    def interrupt(*_: object, **__: object) -> bytes:
        os.kill(os.getpid(), signum)
        time.sleep(5)
        return b""

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=SimpleNamespace(read=interrupt)))
    monkeypatch.setattr(session, "create_repository", interrupt)
    around = set(Path(tempfile.gettempdir()).glob("turbo-demo-*"))
    handlers = [signal.getsignal(each) for each, _ in SIGNALS]
    assert main(["run", "--json", *arguments]) == expected
    assert last_event(capfd)["status"] == "interrupted"
    assert set(Path(tempfile.gettempdir()).glob("turbo-demo-*")) <= around
    assert [signal.getsignal(each) for each, _ in SIGNALS] == handlers


@pytest.mark.parametrize(
    ("front", "expected"),
    [
        ("test: pytest 'open", r"b\.md:3: test: no closing quotation"),
        ("context: [new.py]", r"b\.md:3: context: new\.py is not committed"),
        ("test: pytest -q ./new.py::test_it", r"b\.md:3: test: new\.py is not committed"),
        ("test: cd . && pytest fresh", r"b\.md:3: test: fresh is not committed"),
        ("test: ./tool.sh new", r"b\.md:3: test: tool\.sh is not committed"),
    ],
)
def test_a_bad_task_is_refused_before_the_one_ahead_of_it_runs(
    repository: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    front: str,
    expected: str,
) -> None:
    monkeypatch.setenv("LLAMACPP_URL", "http://127.0.0.1:9")
    (repository / ".git" / "info" / "exclude").write_text("tool.sh\nbuild/\n")
    for name in ("new.py", "fresh/test_it.py", "tool.sh", "build/x"):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text("pass\n")
    (repository / "b.md").write_text(f"---\ntitle: B\n{front}\n---\nDo it.\n")
    exit_code, text = said(capsys, "run", "tasks/a.md", "b.md")
    assert exit_code == 2, text
    assert re.search(expected, text), text
    assert "commit it first" in text or "Close the quote" in text


def test_a_bad_test_option_is_refused_in_its_name(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for test, expected in (("  ", "--test: is empty"), ("a 'b", "--test: no closing quotation")):
        exit_code, text = said(capsys, "run", "--test", test, "tasks/a.md")
        assert exit_code == 2
        assert expected in text


def test_an_ignored_folder_that_a_command_mentions_is_no_path(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMACPP_URL", "http://127.0.0.1:9")
    (repository / ".git" / "info" / "exclude").write_text("build/\n")
    (repository / "build").mkdir()
    (repository / "build" / "x").touch()
    exit_code, text = said(capsys, "run", "--test", "make build", "tasks/a.md")
    assert exit_code == 3, text


def test_untracked_files_are_said_to_be_no_part_of_the_work(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMACPP_URL", "http://127.0.0.1:9")
    (repository / "b.md").write_text(TASK)
    _, text = said(capsys, "run", "b.md")
    assert "untracked" not in text
    (repository / "one.py").touch()
    _, text = said(capsys, "run", "b.md")
    base = git(repository, "rev-parse", "HEAD")[:12]
    assert f"1 untracked file is not part of the work (it starts from commit {base})" in text
    (repository / "two.py").touch()
    _, text = said(capsys, "run", "b.md")
    assert "2 untracked files are not part of the work" in text


@pytest.mark.parametrize("arguments", [["run", "--candidates", "0"], ["run", "--no-such"], ["x"]])
def test_a_wrong_option_is_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys; from agent.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'langgraph', 'httpx', 'git'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_readme_names_every_option_of_run(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text()
    main(["run", "--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    missing = {option for option in options if option not in readme}
    assert missing <= {"--verbose", "--quiet"}


def children_with(text: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(text in part for part in process.info["cmdline"] or ()):
            found.append(process)
    return found


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
@pytest.mark.parametrize("wait_for", ["server_ready", "candidate_started"])
def test_a_signal_ends_the_run_and_everything_that_it_started(
    repository: Path, tmp_path: Path, signum: int, code: int, wait_for: str
) -> None:
    mark = f"turbo-test-{os.getpid()}-{time.monotonic_ns()}"
    command = ["run", "--json", "--test", f"sh -c 'sleep 60 # {mark}'", "tasks/a.md"]
    children: list[psutil.Process] = []
    with subprocess.Popen(
        [sys.executable, "-m", "agent", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=repository,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if f'"{wait_for}"' in line:
                    break
            children = psutil.Process(process.pid).children(recursive=True)
            assert "llama-server" in names_below(process.pid)
            process.send_signal(signum)
            out, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == code
    psutil.wait_procs(children, timeout=5)
    assert [child for child in children if child.is_running()] == []
    assert children_with(mark) == []
    if signum != signal.SIGKILL:
        assert '"status": "interrupted"' in out.splitlines()[-1]
        assert git(repository, "worktree", "list").count("\n") == 0
    assert git(repository, "branch", "--format=%(refname:short)") == "main"
    assert git(repository, "status", "--porcelain") == ""


RIGHT = code("def double(number):\n    return number * 2\n")
PLAN = plan("kit/double.py", "Add def double(number): return twice the number")


def said_by(server: FakeTeamServer, role: str) -> bool:
    return any(name == role for name, _ in server.prompts)


@pytest.mark.parametrize(
    ("moment", "signum", "expected"),
    [
        ("planner", signal.SIGINT, 130),
        ("planner", signal.SIGHUP, 129),
        ("test", signal.SIGINT, 130),
        ("test", signal.SIGTERM, 143),
        ("reviewer", signal.SIGTERM, 143),
    ],
)
async def test_a_signal_at_any_moment_leaves_nothing(
    repository: Path, moment: str, signum: signal.Signals, expected: int
) -> None:
    command = "sleep 60; :" if moment == "test" else ":"
    children: list[psutil.Process] = []

    async def interrupt(process: asyncio.subprocess.Process) -> None:
        if moment == "test":
            await until(lambda: "sleep" in names_below(process.pid))
        else:
            await until(lambda: said_by(server, moment))
        children.extend(psutil.Process(process.pid).children(recursive=True))
        process.send_signal(signum)

    async with FakeTeamServer(delay_s=0.3, planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server:
        ended = await run_turbo(
            "run", "--json", "--test", f"sh -c '{command}'", "tasks/a.md",
            cwd=repository, after=interrupt, LLAMACPP_URL=server.url, LLAMACPP_API_KEY=KEY,
        )  # fmt: skip
    assert ended.exit_code == expected, ended.err
    assert ended.last["status"] == "interrupted"
    assert "no branch was made" in ended.err
    psutil.wait_procs(children, timeout=5)
    assert [child for child in children if child.is_running()] == []
    assert git(repository, "worktree", "list").count("\n") == 0
    assert git(repository, "branch", "--format=%(refname:short)") == "main"
    assert git(repository, "status", "--porcelain") == ""


def names_below(pid: int) -> set[str]:
    """Names of the processes that `pid` has started; those that just ended are left out."""
    names = set()
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            names.add(child.name())
    return names


async def test_an_ignored_signal_stays_ignored(repository: Path) -> None:
    """As under nohup."""

    async def hang_up(process: asyncio.subprocess.Process) -> None:
        await until(lambda: said_by(server, "planner"))
        process.send_signal(signal.SIGHUP)

    program = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "from agent.cli import main; sys.exit(main())"
    )
    async with FakeTeamServer(delay_s=0.1, planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server:
        ended = await run_turbo(
            "run", "--json", "--test", "true", "tasks/a.md",
            cwd=repository, after=hang_up, program=("-c", program),
            LLAMACPP_URL=server.url, LLAMACPP_API_KEY=KEY,
        )  # fmt: skip
    assert ended.exit_code == 0, ended.err
    assert ended.last["status"] == "accepted"


def test_saved_prefixes_are_listed_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cache_folder("prefixes", private=True)
    assert folder.stat().st_mode & 0o077 == 0
    bank = PrefixBank(folder, layout="", model="some.gguf", max_bytes=1 << 30)
    for number in range(2):
        file = bank.new_file()
        (folder / file).write_bytes(bytes(3 << 20))
        bank.keep(bank.name_of([number]), file, tokens=77, size=3 << 20, passing=False)
    code, text = said(capsys, "prefixes", "list")
    assert code == 0
    assert text.count("77 tokens 3.0 MiB") == 2
    assert "some.gguf" in text
    assert "2 prefixes, 6.0 MiB" in text
    assert said(capsys, "prefixes", "prune", "--max-mb", "4") == (
        0,
        "1 prefix removed, 3.0 MiB freed",
    )
    assert said(capsys, "prefixes", "prune") == (0, "1 prefix removed, 3.0 MiB freed")
    assert "0 prefixes" in said(capsys, "prefixes", "list")[1]


SHOW = f"exec {sys.executable} -m agent server plan"


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        (f"{SHOW} >/dev/full", 2, "cannot write standard output"),
        (f"set -o pipefail; ({SHOW} --json) | true", 141, ""),
        (
            "LC_ALL=POSIX PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 "
            f"exec {sys.executable} -m agent run --task x --repo /\u65e5\u672c",
            2,
            "not a git repository",
        ),
    ],
)
def test_output_that_cannot_be_written_as_it_is(
    repository: Path, script: str, code: int, said: str
) -> None:
    ended = subprocess.run(
        ["bash", "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=repository
    )
    assert ended.returncode == code
    assert said in ended.stderr.decode(errors="replace")
    assert b"Traceback" not in ended.stderr
