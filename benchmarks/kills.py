"""Is a run accepted whenever its server is killed? On the daemon's server, and on one of its own.

Usage: python benchmarks/kills.py [MOMENTS] [SEED]

Runs the demo in fresh processes and sends SIGKILL to its llama-server at MOMENTS (10) random
moments between the start of the run and the end of an undisturbed one, which is measured first. The
cache is one of its own and is removed at the end. Exit code 1 when a run was not accepted.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_POLL_S = 0.005
SIDES = ("own server", "daemon")


@dataclass(frozen=True)
class Killed:
    """How a run went whose server was killed."""

    side: str
    at_s: float
    """Seconds after the start of the run."""
    after: str
    """The last event before."""
    restarts: int
    accepted: bool
    reason: str
    """Why it was not; empty when it was."""
    wall_s: float


class Run:
    """One demo, watched while it goes on."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.events: list[dict[str, object]] = []
        self.started = threading.Event()
        self.begin = 0.0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent", "run", "--json", "--quiet"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            self.events.append(event)
            if event["event"] == "run_started":
                self.begin = time.monotonic()
                self.started.set()
        self.started.set()

    def last(self) -> str:
        """The name of the newest event."""
        return str(self.events[-1]["event"]) if self.events else "nothing"

    def end(self) -> float:
        """Wait for its end; seconds since its start."""
        self._reading.join()
        self.process.wait()
        return time.monotonic() - self.begin


def servers(cache: str) -> list[psutil.Process]:
    """The llama-servers that live with a cache."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.environ().get("XDG_CACHE_HOME") == cache
            if ours and "llama-server" in process.name() and process.status() != "zombie":
                found.append(process)
    return found


def killed_run(side: str, at_s: float, environment: dict[str, str]) -> Killed:
    """A demo whose server is killed `at_s` after its start, or as soon as there is one."""
    run = Run(environment)
    run.started.wait()
    time.sleep(max(0.0, run.begin + at_s - time.monotonic()))
    found: list[psutil.Process] = []
    while not found and run.process.poll() is None:
        found = servers(environment["XDG_CACHE_HOME"])
        time.sleep(0 if found else _POLL_S)
    when, after = time.monotonic() - run.begin, run.last()
    for server in found:
        with contextlib.suppress(psutil.Error):
            server.kill()
    wall_s = run.end()
    end = run.events[-1]
    ready = [event for event in run.events if event["event"] == "server_ready"]
    strayed = side == "daemon" and not all("of the daemon" in str(x["description"]) for x in ready)
    return Killed(
        side=side,
        at_s=when,
        after=after if found else f"{after} (it had ended)",
        restarts=sum(event["event"] == "server_restarted" for event in run.events),
        accepted=end.get("status") == "accepted" and run.process.returncode == 0 and not strayed,
        reason="the daemon was not used" if strayed else str(end.get("reason", "")),
        wall_s=wall_s,
    )


def turbo_server(word: str, environment: dict[str, str]) -> None:
    """`turbo server start` or `stop`."""
    command = [sys.executable, "-m", "agent", "server", word]
    subprocess.run(command, check=True, env=environment, capture_output=True)


def measure(moments: int, chance: random.Random) -> list[Killed]:
    """All runs, side after side."""
    killed = []
    for side in SIDES:
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "XDG_CACHE_HOME": str(Path(cache).resolve())}
            if side == "daemon":
                turbo_server("start", environment)
            try:
                walls = []
                for _ in range(3):
                    run = Run(environment)
                    walls.append(run.end())
                wall_s = statistics.median(walls[1:])  # the first one fills the cache
                for at_s in sorted(chance.uniform(0.0, wall_s) for _ in range(moments)):
                    killed.append(killed_run(side, at_s, environment))
            finally:
                if side == "daemon":
                    turbo_server("stop", environment)
    return killed


def main() -> None:
    """Print a table and one line of JSON."""
    moments = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    killed = measure(moments, random.Random(seed))
    print(f"demo, killed at {moments} random moments on either side (seed {seed})")
    titles = f"{'':12}{'killed at s':>12}  {'after event':26}{'restarts':>9}"
    print(f"{titles}{'accepted':>10}{'wall s':>8}")
    for each in killed:
        accepted = "yes" if each.accepted else "NO"
        print(
            f"{each.side:12}{each.at_s:>12.2f}  {each.after:26}{each.restarts:>9}"
            f"{accepted:>10}{each.wall_s:>8.1f}"
        )
        if not each.accepted:
            print(each.reason)
    good = {side: sum(x.accepted for x in killed if x.side == side) for side in SIDES}
    print(json.dumps({"moments": moments, "accepted": good}))
    sys.exit(any(number < moments for number in good.values()))


if __name__ == "__main__":
    main()
