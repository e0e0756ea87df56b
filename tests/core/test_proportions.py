"""Bounds of what we keep and wait for: large files, deep folders, servers without end."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fakes.http_server import Call, FakeHttpServer, Responder
from fakes.llama_server import KEY, FakeLlamaServer
from fakes.ollama_server import MODEL, FakeOllama, piece
from team.conftest import git

from agent.core import http_errors, sse
from agent.core.backend_manager import Request, get_backend
from agent.core.config import Settings
from agent.core.errors import BackendError, NotText
from agent.core.folders import private_folder, remove_tree
from agent.core.llamacpp_backend import LlamaCppBackend
from agent.core.prompts import Prompt
from agent.core.sampling import CODING
from agent.core.sse import EventReader, LineReader
from agent.core.workspace import MOST_TEXT, Workspace, create_repository

MIB = 1 << 20
ASKED = Request(prompt=Prompt("system", "shared", "role", "x"), sampling=CODING, max_tokens=16)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    (folder / "kit").mkdir(parents=True)
    (folder / "kit" / "a.py").write_text("a = 1\n")
    (folder / "kit" / "b.py").write_text("b = 1\n")
    create_repository(folder, message="first")
    return folder


@pytest.fixture
async def workspace(repository: Path, tmp_path: Path) -> AsyncIterator[Workspace]:
    workspace = await Workspace.open(repository, run="r1", worktrees_root=tmp_path / "worktrees")
    yield workspace
    await workspace.close()


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A folder that may become too deep for pytest to remove it."""
    yield tmp_path
    subprocess.run(["rm", "-rf", tmp_path], check=True)


def make_deep(folder: Path, levels: int, name: str = "d") -> None:
    """As a test does it that goes down with ``chdir``."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def test_folders_are_removed_however_deep_they_are(deep: Path) -> None:
    folder = deep / "top"
    folder.mkdir()
    make_deep(folder, 1_500)
    make_deep(folder, 40, name="x" * 200)
    remove_tree(folder)
    assert not folder.exists()


def test_only_what_is_inside_is_removed(tmp_path: Path) -> None:
    folder, outside = tmp_path / "top", tmp_path / "outside"
    for path in (folder / "locked", folder / "locked" / "below", outside):
        path.mkdir(parents=True, exist_ok=True)
    (outside / "kept.txt").write_text("kept")
    (folder / "link").symlink_to(outside)
    (folder / "locked" / "link").symlink_to(outside / "kept.txt")
    (folder / "locked" / "below" / "x").write_text("x")
    for path in (folder / "locked" / "below", folder / "locked"):
        path.chmod(0o500)
    remove_tree(folder)
    assert not folder.exists()
    assert (outside / "kept.txt").read_text() == "kept"
    alias = tmp_path / "alias"
    alias.symlink_to(outside)
    remove_tree(alias)
    assert (outside / "kept.txt").read_text() == "kept"


def test_what_a_killed_run_left_deep_down_does_not_stop_the_next(deep: Path) -> None:
    left = deep / "turbo-private-left"
    left.mkdir()
    make_deep(left, 1_200)
    with private_folder(deep):
        assert not left.exists()


async def test_a_worktree_is_usable_again_though_git_cannot_remove_what_tests_left_in_it(
    workspace: Workspace, repository: Path, tmp_path: Path
) -> None:
    tree = await workspace.worktree("c0")
    make_deep(tree, 40, name="x" * 200)
    assert await workspace.worktree("c0") == tree
    assert sorted(path.name for path in tree.iterdir()) == [".git", "kit"]
    make_deep(tree, 40, name="x" * 200)
    await workspace.close()
    assert git(repository, "worktree", "list").count("\n") == 0
    assert not list((tmp_path / "worktrees").iterdir())


async def test_files_that_did_not_change_are_not_written_again(workspace: Workspace) -> None:
    tree = await workspace.worktree("c0")
    before = (tree / "kit" / "a.py").stat()
    (tree / "kit" / "b.py").write_text("b = 2\n")
    await workspace.snapshot(tree, ["kit/b.py"], "draft")
    await workspace.worktree("c0")
    after = (tree / "kit" / "a.py").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (tree / "kit" / "b.py").read_text() == "b = 1\n"


async def test_a_candidate_need_not_wait_for_the_checkout_of_another(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = await workspace.worktree("c0")
    (tree / "kit" / "b.py").write_text("b = 2\n")
    program, go = tmp_path / "bin" / "git", tmp_path / "go"
    program.parent.mkdir()
    wait = f'case "$*" in *worktree\\ add*) until [ -e {go} ]; do sleep 0.02; done;; esac'
    program.write_text(f'#!/bin/sh\n{wait}\nexec {shutil.which("git")} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    other = asyncio.create_task(workspace.worktree("c1"))
    await asyncio.sleep(0.1)
    commit = await workspace.snapshot(tree, ["kit/b.py"], "draft")
    assert "+b = 2" in await workspace.diff(commit)
    assert not other.done()
    go.touch()
    assert (await other / "kit" / "a.py").exists()


async def test_a_file_that_is_too_large_is_not_read(repository: Path, tmp_path: Path) -> None:
    for name, size in {"fits.txt": MOST_TEXT, "large.txt": MOST_TEXT + 1}.items():
        (repository / name).write_bytes(b"x" * size)
    git(repository, "add", "--all")
    git(repository, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-qm", "more")
    workspace = await Workspace.open(repository, run="r1", worktrees_root=tmp_path / "w")
    assert await workspace.read("fits.txt") == "x" * MOST_TEXT
    with pytest.raises(NotText, match=r"large\.txt is larger than 1000000 bytes"):
        await workspace.read("large.txt")
    await workspace.close()


async def test_what_commits_mention_is_found_at_once(
    workspace: Workspace, repository: Path
) -> None:
    git(repository, "checkout", "-q", "-b", "side")
    for body in ("Turbo-Task: one", "text\n\n    Turbo-Task: two\nmore", "Turbo-task: three"):
        identity = ("-c", "user.name=u", "-c", "user.email=u@h")
        git(repository, *identity, "commit", "-q", "--allow-empty", "-m", f"x\n\n{body}")
    git(repository, "checkout", "-q", "main")
    assert await workspace.mentioned("Turbo-Task: ") == {"one", "two"}
    assert await workspace.mentioned("Nothing: ") == frozenset()


def test_a_long_line_is_read_in_time_that_grows_with_its_length() -> None:
    reader = LineReader()
    for _ in range(10 * MIB // 64):
        assert reader.feed(b"x" * 64) == []
    (line,) = reader.feed(b"\r\n")
    assert len(line) == 10 * MIB


def test_an_event_without_end_is_refused() -> None:
    reader = EventReader(max_line=1_000)
    for _ in range(10):
        reader.feed(b"data: " + b"x" * 90 + b"\n")
    with pytest.raises(BackendError, match="an event of more than 1000 bytes"):
        reader.feed(b"data: " + b"x" * 90 + b"\n")


class Endless(FakeLlamaServer):
    """Sends the same bytes for ever where it should reply to `path`."""

    def __init__(self, path: str, sent: bytes) -> None:
        super().__init__()
        self._path = path
        self._sent = sent

    async def _dispatch(self, call: Call, reply: Responder) -> None:
        if call.path != self._path:
            await super()._dispatch(call, reply)
            return
        await reply.begin()
        while True:
            await reply.chunk(self._sent)


@asynccontextmanager
async def backend_on(server: FakeHttpServer) -> AsyncIterator[LlamaCppBackend]:
    async with server, LlamaCppBackend(server.url, api_key=KEY, stall_timeout_s=30) as backend:
        yield backend


WORDS = " ".join(f"word{n}" for n in range(500))  # what repeats sooner is cut as a loop
PIECE = f'data: {{"content": "{WORDS}", "stop": false, "tokens_predicted": 1}}\n\n'.encode()
PROGRESS = (
    b'data: {"content": "", "stop": false,'
    b' "prompt_progress": {"total": 9, "cache": 0, "processed": 1}}\n\n'
)


@pytest.mark.parametrize(
    "sent", [PIECE, PROGRESS, b": ping\n\n" * 200], ids=["text", "progress", "ping"]
)
async def test_an_answer_without_end_is_not_waited_for(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "_MAX_LINE", 100_000)
    async with backend_on(Endless("/completion", sent)) as backend:
        with pytest.raises(BackendError, match="an answer of more than 116384 bytes"):
            await backend.complete(ASKED)


async def test_an_answer_of_ollama_without_end_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def talk(call: Call, reply: Responder) -> None:
        await reply.begin()
        for number in range(1_000_000):
            await reply.chunk(piece(f"word {number} "))

    monkeypatch.setattr(sse, "_MAX_LINE", 100_000)
    async with FakeOllama(talk) as server:
        settings = Settings(backend="ollama", ollama_local=server.url, ollama_model=MODEL)
        async with get_backend(settings) as opened:
            with pytest.raises(BackendError, match="an answer of more than 116384 bytes"):
                await opened.backend.complete(ASKED)


async def test_a_line_without_end_is_not_kept() -> None:
    async with backend_on(Endless("/completion", b"data: " + b"a" * 65_536)) as backend:
        with pytest.raises(BackendError, match="more than 16"):
            await backend.complete(ASKED)


async def test_a_reply_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_errors, "_MOST_BODY", 100_000)
    for path in ("/props", "/tokenize", "/apply-template"):
        with pytest.raises(BackendError, match="a reply of more than 100000 bytes"):
            async with backend_on(Endless(path, b" " * 10_000)) as backend:
                await backend.complete(ASKED)


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"total_slots": 1e999}', b"9" * 9_000])
async def test_a_reply_that_no_server_would_send_is_its_failure_not_ours(body: bytes) -> None:
    async def handle(call: Call, reply: Responder) -> None:
        await reply.send(200, body)

    with pytest.raises(BackendError, match="in a form that we do not know"):
        async with backend_on(FakeHttpServer(handle)):
            pass
