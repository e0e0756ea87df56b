"""A run again: the same answers, or the first place where they are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from team.conftest import Outcome, git, run_turbo

from agent.team.replay import Recording, Replay


def events(
    *answers: tuple[str, int | None, str, str], cancelled: int | None = None, status: str = ""
) -> Recording:
    recording = Recording()
    for role, candidate, prompt, answer in answers:
        data: dict[str, Any] = {"role": role, "candidate": candidate, "seed": 1}
        recording.on_event("answered", {**data, "prompt": prompt, "answer": answer})
    if cancelled is not None:
        recording.on_event("candidate_verified", {"candidate": cancelled, "status": "cancelled"})
    if status:
        recording.on_event("run_finished", {"status": status})
    return recording


PLAN, CODE, OTHER = ("planner", None, "p", "a"), ("coder", 0, "p", "a"), ("coder", 1, "p", "a")
STEP = ("coder", 0, "another step", "b")


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (events(PLAN, CODE, OTHER), events(PLAN, OTHER, CODE), None),
        (events(PLAN, CODE), events(PLAN, ("coder", 0, "p", "b")), "answered differently"),
        (events(PLAN, CODE), events(PLAN, ("coder", 0, "q", "a")), "another prompt"),
        (events(PLAN, CODE, OTHER), events(PLAN, CODE), "not sent this time"),
        (events(PLAN, CODE, OTHER), events(PLAN, CODE, cancelled=1), None),
        (events(PLAN, CODE, cancelled=1), events(PLAN, CODE, OTHER), None),
        (events(PLAN, CODE), events(PLAN, CODE, CODE), "sent only this time"),
        (events(PLAN, CODE, STEP), events(PLAN, STEP, CODE), None),
        (events(PLAN, status="interrupted"), events(PLAN, CODE), None),
        (events(PLAN, CODE, STEP), events(PLAN, STEP, ("coder", 0, "q", "b")), "another prompt"),
    ],
)
def test_the_first_divergence_is_named(before: Recording, now: Recording, said: str | None) -> None:
    replay = Replay.of(before, now)
    if said is None:
        assert replay.divergence is None
    else:
        assert said in str(replay)
        assert "request" in str(replay)


TWO_FILES = """---
title: Add two helpers
files: [kit/lines.py, kit/shout.py]
test: "true"
candidates: 2
---
Add a function `join_lines(items)` to `kit/lines.py` that joins the items with newlines.
Add a function `shout(text)` to `kit/shout.py` that converts text to uppercase.
"""


async def run_once(repository: Path, *options: str) -> tuple[Outcome, Path]:
    ended = await run_turbo("run", "--json", *options, "tasks/add-double.md", cwd=repository)
    assert ended.exit_code == 0, ended.err
    name = ended.named("run_started")[0]["run"]
    return ended, repository / ".git" / ".turbo" / "runs" / name


async def test_a_strict_run_answers_the_same_again_and_makes_no_branch(repository: Path) -> None:
    first, _ = await run_once(repository, "--determinism", "strict")
    identity = ("-c", "user.name=user", "-c", "user.email=user@localhost")
    git(repository, *identity, "commit", "--quiet", "--allow-empty", "-m", "the user went on")
    branches = git(repository, "branch")
    again = await run_turbo("replay", "--json", "last", cwd=repository)
    assert again.exit_code == 0, again.err
    compared = again.named("replay_compared")[0]
    assert compared["divergence"] is None
    assert compared["same"] == compared["answers"] == len(first.named("answered"))
    assert (again.last["event"], again.last["status"]) == ("run_finished", "accepted")
    assert again.named("run_started")[0]["base"] == first.named("run_started")[0]["base"]
    assert git(repository, "branch") == branches
    once_more = await run_turbo("replay", "last", cwd=repository)  # of the first run, not of this
    assert (once_more.exit_code, "first divergence: none" in once_more.out) == (0, True)


async def test_steps_that_are_written_at_the_same_time_may_change_places(repository: Path) -> None:
    (repository / "tasks" / "two.md").write_text(TWO_FILES)
    first = await run_turbo(
        "run", "--json", "--determinism", "strict", "tasks/two.md", cwd=repository
    )
    again = await run_turbo("replay", "last", cwd=repository)
    assert again.exit_code == 0, again.out
    count = len(first.named("answered"))
    assert f"{count} of {count} answers are the same" in again.out


async def test_a_run_that_went_another_way_is_told_apart(repository: Path) -> None:
    _, folder = await run_once(repository)
    journal = folder / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        if line["event"] == "answered" and line["role"] == "planner":
            line["answer"] = "something else"
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["engine"]["build"] = "an older one"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    again = await run_turbo("replay", folder.name, cwd=repository)
    assert again.exit_code == 1
    assert "first divergence: request 1 of the planner (seed 1)" in again.out
    assert "Not the same as then: build: an older one, now " in again.err


async def test_what_cannot_be_replayed_says_why(repository: Path) -> None:
    none = await run_turbo("replay", "last", cwd=repository)
    assert (none.exit_code, none.err.splitlines()[0]) == (2, "turbo: There is no run 'last' here")
    _, folder = await run_once(repository, "--dry-run")
    unknown = await run_turbo("replay", "1999", cwd=repository)
    assert unknown.exit_code == 2
    assert folder.name in unknown.err
    (folder / "manifest.json").unlink()
    without = await run_turbo("replay", folder.name[:-2], cwd=repository)
    assert without.exit_code == 2
    assert str(folder / "manifest.json") in without.err
    several = await run_turbo("replay", "", cwd=repository)
    assert several.err.startswith("turbo: There is no run ''")
