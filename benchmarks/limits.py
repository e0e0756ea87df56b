"""What a run takes where everything is out of proportion: wall seconds and memory, with bars.

    PYTHONPATH=. python benchmarks/limits.py [PART OF A NAME ...]

Each case is a repository made for it, in which `python -m agent.team.workflow` runs as its users
run it: a process of its own, git, the real llama-server, the embedded model, the sandbox. The demo
as it is comes first, twice, to fill the cache. All cases take about ten minutes. Columns:

* `wall`: seconds from the start of that process to its end.
* `plan`: seconds until the first answer of the model was there; - where there was none.
* `MiB`: the most that was ever resident of our process (VmHWM, looked at every 20 ms). Neither the
  server nor git nor the tests are part of it: each has limits of its own.
* `checkout`: seconds that `git worktree add` and its removal take in this repository, once.
* `ratio`: wall seconds to those of one such checkout, where the run makes several.

Bars, and why they lie where they do:

* Memory: 200 MiB. A run of the demo takes 96, nearly all of it the interpreter and its libraries;
  what is out of proportion may cost as much once more, whatever its size.
* Time: 10 s more than the demo as it is, and more only where the case has a reason of its own: a
  checkout per candidate is git's work and counts 1.5 times what git takes alone, for the disk is
  busy with several; 1,000 tasks are 1,000 runs.

Exit code 1 when a case missed a bar or came to another end than it should.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import agent
from benchmarks.limits_cases import CASES, Case
from benchmarks.limits_server import endless_answers

BAR_MIB = 200.0
BAR_MORE_S = 10.0
CHECKOUT_FACTOR = 1.5
MOST_S = 1800.0
"""Seconds after which a case is given up."""
_DEMO = Path(agent.__file__).parent / "demo" / "repository"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What came of one case."""

    case: Case
    wall_s: float
    plan_s: float | None
    peak_mib: float
    checkout_s: float
    outcome: str

    def bar_s(self, demo_s: float) -> float:
        """The most seconds that it may take."""
        checkouts = self.case.checkouts * self.checkout_s * CHECKOUT_FACTOR
        return demo_s + BAR_MORE_S + checkouts + self.case.extra_s

    def good(self, demo_s: float) -> bool:
        """Whether it ended as it should, within its bars."""
        within = self.wall_s <= self.bar_s(demo_s) and self.peak_mib <= BAR_MIB
        return within and self.case.outcome in self.outcome

    def line(self, demo_s: float) -> str:
        """Of the table."""
        plan = "-" if self.plan_s is None else f"{self.plan_s:.1f}"
        ratio = f"{self.wall_s / self.checkout_s:.1f}" if self.case.checkouts else "-"
        figures = f"{self.wall_s:>8.1f}{self.bar_s(demo_s):>8.1f}{plan:>8}{self.peak_mib:>7.0f}"
        end = self.outcome if self.good(demo_s) else f"MISSED {self.outcome}"
        return f"{self.case.name:40}{figures}{self.checkout_s:>12.1f}{ratio:>7}  {end[:120]}"


def make_repository(case: Case, folder: Path) -> float:
    """The repository of a case; the seconds of one checkout."""
    shutil.copytree(_DEMO, folder, ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "init", "--quiet", "--initial-branch=main")
    case.build(folder)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "first")
    case.after(folder)
    os.sync()  # else the disk is busy with this for the first minute
    begin = time.monotonic()
    git(folder, "worktree", "add", "--detach", "--quiet", "../elsewhere")
    git(folder, "worktree", "remove", "--force", "../elsewhere")
    taken_s = time.monotonic() - begin
    os.sync()
    return taken_s


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=user", "-c", "user.email=user@localhost", "-c", "gc.auto=0")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True)


def measure(case: Case, top: Path) -> Row:
    folder = top / "repository"
    checkout_s = make_repository(case, folder)
    environment = {**os.environ, **case.settings, "XDG_CACHE_HOME": str(top.parent / "cache")}
    with contextlib.ExitStack() as stack:
        if case.answers is not None:
            url, key = stack.enter_context(endless_answers(case.answers))
            environment |= {"LLAMACPP_URL": url, "LLAMACPP_API_KEY": key}
        events = stack.enter_context((top / "events").open("w+b"))
        zeros = stack.enter_context(Path("/dev/zero").open("rb")) if case.endless_stdin else None
        begin = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "agent.team.workflow", *case.arguments, "--json", "--quiet"],
            cwd=folder,
            env=environment,
            stdin=zeros or subprocess.DEVNULL,
            stdout=events,
            stderr=subprocess.DEVNULL,
        )
        plan_s, peak = None, 0.0
        while process.poll() is None:
            peak = max(peak, high_water(process.pid))
            if plan_s is None and has_plan(top / "events"):
                plan_s = time.monotonic() - begin
            if time.monotonic() - begin > MOST_S:
                process.kill()
            time.sleep(0.02)
        wall_s = time.monotonic() - begin
        events.seek(0)
        lines = [line for line in events.read().splitlines() if line.startswith(b"{")]
    last: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    outcome = f"{last.get('status')}: {last.get('reason')}" if last else "said nothing"
    if process.returncode < 0:
        outcome = f"died of signal {-process.returncode}"
    left = [*(top.parent / "cache" / "turbo-local-coder" / "worktrees").glob("*")]
    if left:
        outcome = f"LEFT BEHIND {len(left)} folders; {outcome}"
    return Row(
        case=case,
        wall_s=wall_s,
        plan_s=plan_s,
        peak_mib=peak,
        checkout_s=checkout_s,
        outcome=" ".join(outcome.split()),
    )


def high_water(pid: int) -> float:
    """MiB; 0 when the process is gone."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def has_plan(events: Path) -> bool:
    with events.open("rb") as file:
        return b'"event": "plan_ready"' in file.read(65_536)


def main() -> None:
    """Print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="only cases whose name has one of these in it")
    wanted = parser.parse_args().parts
    chosen = [x for x in CASES[1:] if not wanted or any(part in x.name for part in wanted)]
    titles = f"{'wall s':>8}{'bar s':>8}{'plan s':>8}{'MiB':>7}{'checkout s':>12}{'ratio':>7}"
    print(f"{'case':40}{titles}  outcome")
    demo_s, missed = 0.0, []
    with tempfile.TemporaryDirectory(prefix="limits-") as name:
        for case in (CASES[0], CASES[0], *chosen):
            top = Path(name) / "case"
            top.mkdir()
            row = measure(case, top)
            subprocess.run(["rm", "-rf", str(top)], check=True)
            demo_s = demo_s if case in chosen else row.wall_s  # the second one: the cache is filled
            print(row.line(demo_s), flush=True)
            if not row.good(demo_s):
                missed.append(case.name)
    print(json.dumps({"cases": len(chosen) + 1, "bar_mib": BAR_MIB, "missed": missed}))
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
