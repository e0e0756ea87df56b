"""Does a run end in an accepted commit when it is killed at any moment and goes on?

Usage: python benchmarks/killed_runs.py [MOMENTS] [SEED]

Kills `turbo run` with SIGKILL at MOMENTS (48) random moments between its start and the end of an
undisturbed one, which is measured first, and lets `turbo runs resume` go on; every third time that
one is killed too, and a second one goes on. Each run is the demo's task in a fresh repository with
staged, changed and stashed files, on the real server with the embedded model. Exit code 1 unless
each was accepted, or was killed before it had begun and that was said; the model answered nothing
twice; there is one branch; no worktree, process or lock is left; and no byte of the user's changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

import agent

_DEMO = Path(agent.__file__).parent / "demo" / "repository"
_TESTS = Path(__file__).resolve().parent.parent / "tests"
_GONE_S = 5.0
"""Seconds in which the children of a killed run must be gone."""


@dataclass(frozen=True)
class Ended:
    """What became of one run."""

    at_s: float
    """Seconds after its process was started."""
    after: str
    """The last event before."""
    kills: int
    outcome: str
    """`accepted`, `had ended`, `not begun`, or what is wrong."""
    remembered: int
    """Answers that were not asked for again."""
    resume_s: float

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return self.outcome in ("accepted", "had ended", "not begun")


class Place:
    """A repository in the middle of a user's work."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        shutil.copytree(_DEMO, folder, ignore=shutil.ignore_patterns("__pycache__"))
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "user")
        self.git("config", "user.email", "user@localhost")
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", "first")
        readme = folder / "README.md"
        for text in ("stashed", "staged", "changed"):
            readme.write_text(text)
            self.git(*{"stashed": ("stash",), "staged": ("add", "README.md")}.get(text, ("diff",)))
        (self.task,) = sorted(x for x in (folder / "tasks").glob("*.md") if x.name != "README.md")
        sys.path.append(str(_TESTS))
        from user_state import UserState

        self.before = UserState.of(folder)

    def git(self, *arguments: str) -> str:
        """What git says. Raises CalledProcessError."""
        command = ["git", "-C", str(self.folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def turbo(self, *arguments: str, kill_after_s: float | None = None) -> list[dict[str, object]]:
        """The events of a command, whose process is killed after a time."""
        process = subprocess.Popen(
            [sys.executable, "-m", "agent", *arguments, "--json", "--quiet"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if kill_after_s is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(kill_after_s)
            process.kill()
        out, _ = process.communicate()
        return [json.loads(line) for line in out.splitlines() if line.endswith("}")]

    def journal(self) -> list[dict[str, object]]:
        """All events that are kept of the run."""
        return [
            json.loads(line)
            for path in (self.folder / ".git" / ".turbo").glob("runs/*/journal.jsonl")
            for line in path.read_text().splitlines()
        ]

    def flaws(self) -> list[str]:
        """What should not be so after the end."""
        found = [f"the user's: {each}" for each in self.before.changes()]
        branches = self.git("branch", "--list", "turbo/*", "--format=%(refname)").split()
        if len(branches) != 1:
            found.append(f"{len(branches)} branches")
        if len(self.git("worktree", "list").splitlines()) != 1:
            found.append("a worktree is left")
        cache = Path(self.environment["XDG_CACHE_HOME"])
        if any((cache / "turbo-local-coder" / "worktrees").iterdir()):
            found.append("a folder is left")
        if [*(self.folder / ".git").rglob("*.lock")]:
            found.append("a lock is left")
        if living(self.environment):
            found.append("a process is left")
        answered = [
            (x["role"], x["candidate"], x["seed"], x["prompt"])
            for x in self.journal()
            if x["event"] == "answered"
        ]
        if len(set(answered)) != len(answered):
            found.append("an answer was paid twice")
        return found


def living(environment: dict[str, str]) -> list[str]:
    """Processes with the cache of these runs, once they had the time to go."""
    give_up_at = time.monotonic() + _GONE_S
    while True:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                theirs = process.environ().get("XDG_CACHE_HOME")
                if theirs == environment["XDG_CACHE_HOME"] and process.status() != "zombie":
                    found.append(process.name())
        if not found or time.monotonic() > give_up_at:
            return found
        time.sleep(0.02)


def killed_run(place: Place, at_s: float, again_s: float | None) -> Ended:
    """A run that is killed after `at_s` seconds, and its resume after `again_s`, if that is given;
    then one more resume."""
    seen = place.turbo("run", str(place.task), kill_after_s=at_s)
    after = str(seen[-1]["event"]) if seen else "nothing"
    left = living(place.environment)
    kills = 1
    if again_s is not None:
        place.turbo("runs", "resume", kill_after_s=again_s)
        kills = 2
    begin = time.monotonic()
    last = place.turbo("runs", "resume")[-1]
    resume_s = time.monotonic() - begin
    finished = [x for x in place.journal() if x["event"] == "run_finished"]
    if left:
        outcome = f"left behind: {left}"
    elif last.get("reason") == "nothing to do" and not finished:
        outcome = "not begun" if not place.git("branch", "--list", "turbo/*") else "lost"
    elif not finished or finished[-1]["status"] != "accepted":
        outcome = f"{last.get('status')}: {last.get('reason')}"
    else:
        outcome = "had ended" if after == "run_finished" else "accepted"
        outcome = ", ".join(place.flaws()) or outcome
    remembered = sum(x["event"] == "remembered" for x in place.journal())
    return Ended(at_s, after, kills, outcome, remembered, resume_s)


def measure(moments: int, chance: random.Random) -> list[Ended]:
    """All runs, in the order of their moments."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name).resolve()
        environment = {**os.environ, "XDG_CACHE_HOME": str(top / "cache")}
        walls = []
        for number in range(3):
            place = Place(top / f"whole-{number}", environment)
            begin = time.monotonic()
            place.turbo("run", str(place.task))
            walls.append(time.monotonic() - begin)
        wall_s = statistics.median(walls[1:])  # the first one fills the cache
        ended = []
        for number, at_s in enumerate(sorted(chance.uniform(0.0, wall_s) for _ in range(moments))):
            place = Place(top / f"run-{number}", environment)
            again_s = None if number % 3 else chance.uniform(0.0, wall_s)
            ended.append(killed_run(place, at_s, again_s))
        return ended


def main() -> None:
    """Print a table and one line of JSON."""
    moments = int(sys.argv[1]) if len(sys.argv) > 1 else 48
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    ended = measure(moments, random.Random(seed))
    print(f"killed at {moments} random moments (seed {seed})")
    titles = f"{'killed at s':>11}  {'after event':20}{'kills':>6}{'remembered':>11}{'resume s':>9}"
    print(f"{titles}  outcome")
    for each in ended:
        facts = f"{each.at_s:>11.2f}  {each.after:20}{each.kills:>6}{each.remembered:>11}"
        print(f"{facts}{each.resume_s:>9.1f}  {each.outcome}")
    counts = {
        outcome: sum(x.outcome == outcome for x in ended)
        for outcome in ("accepted", "had ended", "not begun")
    }
    wrong = sum(not x.good for x in ended)
    print(json.dumps({"moments": moments, **counts, "wrong": wrong}))
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
