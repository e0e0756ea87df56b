"""Secrets of the environment and of the repository: in no prompt, and in nothing that is kept."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes.llama_server import KEY
from fakes.team_server import ACCEPT, FakeTeamServer, code, plan
from team.conftest import Outcome, git, run_turbo

from agent.core.config import Settings
from agent.core.journal import Journal
from agent.team.report import describe_outcome
from agent.team.result import Ledger
from agent.team.secret_files import FileReader, secret_name, secret_of
from agent.team.task_file import read_task
from agent.team.workflow import RunOptions, run_tasks

# Put together here, so that no scanner finds them in this file.
GITHUB = "ghp" + "_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
AWS = "AKIA" + "Q3EGRIXA7PLM2ZKT"
JWT = "eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiJ0ZXN0ZXIifQ.c2lnbmF0dXJlLW9mLWl0"
PEM = "-----BEGIN " + "PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" * 3
MODEL_SAID = "xoxb" + "-1234567890-abcdefghijkl"
OF_ENVIRONMENT = "r4nd0m-c1-Value/of+mine"
URL_PASSWORD = "hunter2-in-url"
PLANTED = (GITHUB, AWS, JWT, PEM[60:100], OF_ENVIRONMENT, URL_PASSWORD)

ENVIRONMENT = {
    "CI_DEPLOY_TOKEN": OF_ENVIRONMENT,
    "DATABASE_URL": f"postgres://me:{URL_PASSWORD}@db/main",
}
TASK = f"""---
title: Add a double helper
files: [kit/double.py]
test: python check.py
---
Add `double(number)` beside settings and other. The deployment uses {OF_ENVIRONMENT}.
"""
CHECK = f"""
import sys
from kit.settings import TOKEN
from kit.double import double
if double(2) != 4:
    print("E   AssertionError: wrong, with", TOKEN, {JWT!r}, {OF_ENVIRONMENT!r})
    sys.exit(1)
"""
WRONG = code("def double(number):\n    return number * 3\n")
RIGHT = code(f"def double(number):\n    return number * 2  # {MODEL_SAID}\n")
PLAN = plan("kit/double.py", f"Add def double, and mind {AWS}")


@pytest.fixture
def planted(repository: Path) -> Path:
    """A repository with secrets in what a prompt would show."""
    for name, text in {
        "kit/settings.py": f"TOKEN = {GITHUB!r}\n",
        ".env": f"KEY={AWS}\n",
        "deploy.pem": PEM,
        "check.py": CHECK,
        "tasks/add-double.md": TASK,
        "notes/private.md": "remembered nowhere else: cucumber\n",
        ".gitignore": "notes/\n",
    }.items():
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text(text)
    who = ("-c", "user.name=u", "-c", "user.email=u@localhost")
    git(repository, "add", "--force", "--all")
    git(repository, *who, "commit", "-qm", "second")
    return repository


def holding(folders: Iterable[Path], secrets: Iterable[str]) -> list[tuple[str, str]]:
    """Files below `folders` and the secrets that they hold."""
    return [
        (str(path), secret)
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
        for secret in secrets
        if secret.encode() in path.read_bytes()
    ]


async def turbo(repository: Path, cache: Path, *arguments: str, **more: str) -> Outcome:
    environment = {**ENVIRONMENT, "XDG_CACHE_HOME": str(cache), **more}
    return await run_turbo("run", *arguments, cwd=repository, **environment)


@pytest.mark.parametrize("how", [("--json",), ("-v",)], ids=" ".join)
async def test_no_prompt_and_nothing_that_is_kept_holds_one(
    planted: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    task = ("--candidates", "1", "tasks/add-double.md")
    async with FakeTeamServer(planner=PLAN, coder=WRONG, repair=RIGHT, reviewer=ACCEPT) as server:
        there = {"LLAMACPP_URL": server.url, "LLAMACPP_API_KEY": KEY}
        ended = await turbo(planted, tmp_path / "cache", *how, *task, **there)
    assert ended.exit_code == 0, ended.err
    prompts = [prompt for _, prompt in server.prompts]
    assert any("AssertionError: wrong, with [redacted] [redacted]" in each for each in prompts)
    for each in prompts:
        # its own prose and its own plan are what the model is asked; both stay on this machine
        asked = each.replace(f"uses {OF_ENVIRONMENT}.", "").replace(f"mind {AWS}", "")
        assert not [secret for secret in PLANTED if secret in asked]
        assert "cucumber" not in each
        assert "deploy.pem" not in each
    everything = (*PLANTED, MODEL_SAID, KEY)
    state = planted / ".git" / ".turbo"
    assert holding([state, tmp_path / "cache"], everything) == []
    assert not [secret for secret in everything if secret in ended.out + ended.err]
    assert (
        "kit/settings.py (holds what looks like a secret (GitHub token))" in ended.out + ended.err
    )
    assert "notes/private.md (is ignored by git)" in ended.out + ended.err
    assert MODEL_SAID in git(planted, "show", "--format=", *branch_of(planted))
    modes = {stat.S_IMODE(path.stat().st_mode) for path in state.rglob("*") if path.is_file()}
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert modes == {0o600}


def branch_of(repository: Path) -> list[str]:
    return git(repository, "branch", "--list", "turbo/*", "--format=%(refname:short)").split()


async def test_a_run_that_is_cut_off_goes_on_with_the_very_same_task(
    planted: Path, tmp_path: Path
) -> None:
    """Its prose holds a secret, which the manifest leaves out."""
    cache = tmp_path / "cache"
    task = ("--candidates", "1", "tasks/add-double.md")

    def dies(prompt: str, earlier: int) -> str:
        os.kill(pids[0], 9)
        return WRONG

    pids: list[int] = []
    async with FakeTeamServer(planner=PLAN, coder=dies, repair=RIGHT, reviewer=ACCEPT) as server:
        there = {"LLAMACPP_URL": server.url, "LLAMACPP_API_KEY": KEY}
        environment = {**ENVIRONMENT, "XDG_CACHE_HOME": str(cache), **there}

        async def note(process: object) -> None:
            pids.append(process.pid)  # type: ignore[attr-defined]

        killed = await run_turbo("run", *task, cwd=planted, after=note, **environment)
        assert killed.exit_code == -9
        (manifest,) = (planted / ".git" / ".turbo" / "runs").glob("*/manifest.json")
        assert "[redacted]" in manifest.read_text()
        held = {Path(name).name for name, _ in holding([manifest.parent], PLANTED)}
        assert held - {"checkpoints.sqlite", "checkpoints.sqlite-wal"} == {"task.json"}
        server._roles["coder"] = RIGHT
        ended = await run_turbo("runs", "resume", cwd=planted, **environment)
    assert ended.exit_code == 0, ended.err
    first, *_, last = [prompt for role, prompt in server.prompts if role == "coder"]
    assert first == last
    assert holding([planted / ".git" / ".turbo", cache], [*PLANTED, MODEL_SAID]) == []


async def test_a_real_server_leaves_no_trace_of_one(planted: Path, tmp_path: Path) -> None:
    """With the embedded model, which cannot do this task; its log and its saved slots are looked at
    too."""
    cache = tmp_path / "cache"
    ended = await turbo(
        planted, cache, "--json", "-v", "--candidates", "2", "tasks/add-double.md", TURBO_ROUNDS="2"
    )
    assert ended.exit_code in (0, 1), ended.err
    assert ended.named("candidate_verified")
    assert list(cache.rglob("server-*.log"))
    assert holding([planted / ".git" / ".turbo", cache], PLANTED) == []
    assert not [secret for secret in PLANTED if secret in ended.out + ended.err]


@pytest.mark.parametrize(
    ("front", "line", "reason"),
    [
        ("files: [kit/settings.py]", 3, "looks like a secret (GitHub token)"),
        ("files: [kit/a.py]\ncontext: [deploy.pem]", 4, "the name of a file with secrets"),
        ("files: [.env.local]", 3, "the name of a file with secrets"),
        ("context: [notes/private.md]", 3, "is ignored by git"),
    ],
)
async def test_a_task_that_names_such_a_file_is_refused(
    planted: Path, tmp_path: Path, front: str, line: int, reason: str
) -> None:
    task = planted / "tasks" / "named.md"
    task.write_text(f"---\ntitle: T\n{front}\n---\nDo it.\n")
    ended = await turbo(planted, tmp_path / "cache", str(task))
    assert ended.exit_code == 2
    assert f"named.md:{line}" in ended.err
    assert reason in ended.err
    assert "allowlist secret" in ended.err


async def test_another_machine_gets_nothing_unless_it_is_named(
    repository: Path, tmp_path: Path
) -> None:
    elsewhere = {"LLAMACPP_URL": "http://gpu-box:8080"}
    refused = await turbo(repository, tmp_path, "tasks/add-double.md", **elsewhere)
    assert refused.exit_code == 2
    assert "LLAMACPP_URL leads to gpu-box" in refused.err
    assert "TURBO_REMOTE_HOSTS=gpu-box" in refused.err
    (repository / "turbo.toml").write_text('turbo_remote_hosts = ["gpu-box"]\n')
    refused = await turbo(repository, tmp_path, "tasks/add-double.md", **elsewhere)
    assert refused.exit_code == 2
    assert "turbo_remote_hosts may not be set by a repository" in refused.err


async def test_what_went_to_another_machine_is_told(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of this machine stands for another one: only its name is taken for one of them."""
    monkeypatch.setattr("agent.core.remote_hosts.remote_host", lambda url: "gpu-box")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    seen: list[tuple[str, Mapping[str, Any]]] = []
    journal = Journal((lambda event, data: seen.append((event, data)),))
    tasks = [read_task(repository / "tasks" / "add-double.md")] * 2
    ledger = Ledger()
    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server:
        settings = Settings(
            llamacpp_url=server.url,
            llamacpp_api_key=KEY,
            turbo_remote_hosts=("gpu-box",),
            turbo_candidates=1,
        )
        await run_tasks(tasks, repository, settings, journal, RunOptions(), ledger)
    told = [data["text"] for event, data in seen if event == "notice"]
    assert told.count("Prompts leave this machine: they go to gpu-box.") == 1
    first, second = [data["left_machine"] for event, data in seen if event == "run_finished"]
    prompts = sum(len(prompt) for _, prompt in server.prompts) // 2
    for left in (first, second):
        assert left["host"] == "gpu-box"
        assert left["requests"] >= 3
        assert left["bytes"] > prompts
    assert second["requests"] < first["requests"]  # the second counts from its own beginning
    line = f"left this machine: {first['bytes']} bytes of prompts in {first['requests']} requests"
    assert any(each.startswith(line) for each in describe_outcome(ledger.results[0]))


@pytest.mark.parametrize(
    "path",
    [
        ".env", "app/.env.production", "prod.env", "server.pem", "tls/site.key", "id_rsa",
        ".ssh/id_ed25519", "credentials", "credentials.json", "config/secrets.yml", ".netrc",
        "kubeconfig", ".kube/config", ".docker/config.json", "my-service-account.json", ".pypirc",
        "terraform.tfstate", "SECRETS.YAML",
    ],
)  # fmt: skip
def test_what_secret_files_are_called(path: str) -> None:
    assert secret_name(path)


@pytest.mark.parametrize(
    "path",
    [
        ".env.example", ".env.sample", "secrets.py", "src/credentials.ts", "id_rsa.pub", "key.py",
        "environment.yml", "docs/secrets.md", "config.json", "package.json", "keys/__init__.py",
        "test_env.py", "tokens.rs",
    ],
)  # fmt: skip
def test_what_others_are_called(path: str) -> None:
    assert secret_name(path) is None


def test_a_line_that_says_so_holds_no_secret() -> None:
    assert secret_of(f"KEY = {AWS!r}\n")
    assert secret_of(f"KEY = {AWS!r}  # pragma: allowlist secret\n") is None
    assert secret_of(f"KEY = {AWS!r}  # gitleaks:allow\nother = {GITHUB!r}\n")


async def test_a_reader_tells_what_it_left_out() -> None:
    async def read(path: str) -> str:
        return "text"

    reader = FileReader(read, ignored=["build/x.py"])
    assert reader.shown(["a.py", ".env", "build/x.py"]) == ["a.py"]
    assert await reader.read("a.py") == "text"
    assert reader.left_out() == (
        "Not shown to the model: .env (has the name of a file with secrets), "
        "build/x.py (is ignored by git)"
    )
