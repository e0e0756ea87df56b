"""Bad input: what the command says, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from team.conftest import TASK, git

from agent.cli import main
from agent.core.workspace import create_repository

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


def test_a_wrong_setting(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMACPP_PARALEL", "4")
    code, text = said(capsys, "run", "tasks/a.md")
    assert code == 2
    assert "LLAMACPP_PARALLEL" in text


def test_with_json_even_an_early_error_ends_with_run_finished(
    repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--json", "absent.md"]) == 2
    printed = capfd.readouterr()
    assert '"event": "run_finished"' in printed.out.splitlines()[-1]
    assert '"status": "failed"' in printed.out.splitlines()[-1]


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
            assert any("llama-server" in child.name() for child in children)
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
