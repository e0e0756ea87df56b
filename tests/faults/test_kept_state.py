"""What a run keeps of itself is cut off, damaged, locked or gone when it is to go on."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults.conftest import TASK, TEST, Event, Place, attached, work_in_progress
from servers import RealServer
from typer.testing import CliRunner

from agent.cli import app
from agent.core.backend_manager import Reply, Request, Timing, Usage
from agent.core.errors import UsageError
from agent.core.journal import Journal
from agent.core.json_answer import UnfitAnswer
from agent.core.prompts import Prompt
from agent.core.sampling import CODING
from agent.team.memory import Memory
from agent.team.result import Ledger, RunResult
from agent.team.run_list import RunSummary
from agent.team.runs import CHECKPOINTS
from agent.team.session import run_resume


@pytest.fixture(scope="module")
def killed(
    tmp_path_factory: pytest.TempPathFactory, faults_cache: Path, real_server: RealServer
) -> Path:
    """A repository whose run was killed when the tests of its candidate had passed."""
    folder = work_in_progress(tmp_path_factory.mktemp("killed") / "repo")
    words = ("run", "--json", "--candidates", "1", "--test", TEST, TASK)
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", *words],
        cwd=folder,
        env={**os.environ, **attached(real_server), "XDG_CACHE_HOME": str(faults_cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "candidate_verified":
                process.kill()
                break
    return folder


@pytest.fixture
def kept(
    killed: Path,
    tmp_path: Path,
    faults_cache: Path,
    real_server: RealServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Place:
    """A copy of it."""
    for name, value in {**attached(real_server), "XDG_CACHE_HOME": str(faults_cache)}.items():
        monkeypatch.setenv(name, value)
    shutil.copytree(killed, tmp_path / "repo", symlinks=True)
    return Place(tmp_path / "repo", faults_cache)


def resume(place: Place) -> tuple[RunResult, list[Event]]:
    ledger, events = Ledger(), []
    journal = Journal((lambda event, data: events.append({"event": event, **data}),))
    run_resume(None, place.repository, journal, ledger)
    return ledger.results[-1], events


def turbo(place: Place, *words: str) -> str:
    """A command that must work."""
    said = CliRunner().invoke(app, [*words, "--repo", str(place.repository)])
    assert said.exception is None, said.exception
    return said.stdout


def database(place: Place) -> Path:
    return place.folder() / CHECKPOINTS


def without_its_log(path: Path) -> None:
    """All in one file, as after a quiet end."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")


def other_bytes(path: Path, seed: int, share: float = 0.02) -> None:
    """Some bytes of a file become others."""
    chance = random.Random(seed)
    data = bytearray(path.read_bytes())
    for _ in range(max(1, int(len(data) * share))):
        data[chance.randrange(len(data))] = chance.randrange(256)
    path.write_bytes(data)


def half(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def other_tables(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE checkpoints (something TEXT)")
        connection.execute("CREATE TABLE writes (else_ TEXT)")
        connection.commit()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_it_is(path: Path) -> None:
    pass


DATABASE: dict[str, Callable[[Path], None]] = {
    "as it is": as_it_is,
    "no database": lambda path: path.write_bytes(b"no database at all" * 1000) and None,
    "empty": lambda path: path.write_bytes(b"") and None,
    "half": half,
    "other bytes": lambda path: other_bytes(path, 1),
    "other tables": other_tables,
    "a folder": a_folder,
}


@pytest.mark.parametrize("harm", DATABASE)
def test_a_damaged_database_of_checkpoints_only_costs_time(kept: Place, harm: str) -> None:
    without_its_log(database(kept))
    DATABASE[harm](database(kept))
    result, events = resume(kept)
    assert result.status == "accepted", result.reason
    asked = [each["role"] for each in events if each["event"] == "answered"]
    assert asked == ["reviewer"]  # what was paid for is not asked again
    kept.check_accepted()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        yield


def test_a_database_that_others_have_locked_is_done_without(kept: Place) -> None:
    with locked(database(kept)):
        result, events = resume(kept)
        texts = [each["text"] for each in events if each["event"] == "notice"]
        assert any("nothing is checkpointed" in text for text in texts)
    assert result.status == "accepted", result.reason
    kept.check_accepted()


def cut(path: Path) -> None:
    """In the middle of the last line but two."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]) + lines[-2][: len(lines[-2]) // 2])


def spliced(path: Path) -> None:
    """Two writers, one line, and what a file system leaves after a crash."""
    lines = path.read_bytes().splitlines(keepends=True)
    middle = len(lines) // 2
    lines[middle] = lines[middle][:20] + lines[middle]
    lines.insert(1, bytes(4096) + b"\n[1, 2]\n" + b"[" * 100_000 + b'\n"\xff\xfe"\n')
    path.write_bytes(b"".join(lines))


def other_values(path: Path) -> None:
    """The right names, and values of other types."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    for number, line in enumerate(lines):
        for name in list(line)[1:]:
            line[name] = [None, [], "x", 1e300, {"a": 1}][(number + len(name)) % 5]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


LINES: dict[str, Callable[[Path], None]] = {
    "cut": cut,
    "spliced": spliced,
    "other values": other_values,
    "other bytes": lambda path: other_bytes(path, 2),
    "a folder": a_folder,
    "gone": Path.unlink,
}


@pytest.mark.parametrize("harm", [each for each in LINES if each != "a folder"])
def test_a_run_with_a_damaged_journal_is_shown_and_goes_on(kept: Place, harm: str) -> None:
    run = kept.folder().name
    LINES[harm](kept.folder() / "journal.jsonl")
    assert run in turbo(kept, "runs", "list")
    assert json.loads(turbo(kept, "runs", "list", "--json"))[0]["resumable"] is True
    assert run in turbo(kept, "runs", "show", run)
    assert json.loads(turbo(kept, "runs", "show", run, "--json"))["run"] == run
    result, _ = resume(kept)
    assert result.status == "accepted", result.reason
    kept.check_accepted()
    assert "accepted" in turbo(kept, "runs", "show", run)


@pytest.mark.parametrize("harm", LINES)
def test_answers_that_cannot_be_read_are_asked_for_again(kept: Place, harm: str) -> None:
    database(kept).unlink()
    LINES[harm](kept.folder() / "answers.jsonl")
    result, _ = resume(kept)
    assert result.status == "accepted", result.reason
    kept.check_accepted()


@pytest.mark.parametrize("harm", [half, a_folder, lambda path: path.write_bytes(b"{}")])
def test_a_damaged_manifest_is_a_refusal_with_a_way_out(
    kept: Place, harm: Callable[..., None]
) -> None:
    run = kept.folder().name
    harm(kept.folder() / "manifest.json")
    with pytest.raises(UsageError) as refused:
        run_resume(run, kept.repository, Journal(()), Ledger())
    assert f"turbo runs discard {run}" in refused.value.fix
    assert run in turbo(kept, "runs", "list")
    assert "removed" in turbo(kept, "runs", "discard", run)
    kept.check(branches=0)


def test_no_damage_to_a_journal_or_to_answers_is_a_bug(tmp_path: Path, killed: Path) -> None:
    """Cut anywhere, or with any bytes changed: read without an exception that is not ours."""
    (folder,) = (killed / ".git" / ".turbo" / "runs").iterdir()
    journal = (folder / "journal.jsonl").read_bytes()
    prompt = Prompt("You write code.", "", "", "Write f.")
    request = Request(prompt=prompt, sampling=CODING, max_tokens=8)
    answers = tmp_path / "answers.jsonl"
    Memory(answers).keep_reply(
        request,
        Reply(text="é" * 9, finish="stop", usage=Usage(), timing=Timing(), seed=1),
    )
    answer = answers.read_bytes()
    chance = random.Random(3)
    damaged = tmp_path / "run"
    damaged.mkdir()
    for seed in range(200):
        path = damaged / "journal.jsonl"
        path.write_bytes(journal[: chance.randrange(len(journal))])
        if seed % 2:
            path.write_bytes(journal)
            other_bytes(path, seed, 0.001)
        RunSummary.of(damaged).details()
        answers.write_bytes(answer)
        other_bytes(answers, seed, 0.01)
        with contextlib.suppress(UnfitAnswer):
            Memory.at(answers).reply(request)
