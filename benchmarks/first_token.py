"""How soon a run's first token comes: with a server of its own, and on the daemon.

Usage: python benchmarks/first_token.py [RUNS]

Runs the demo in fresh processes, in turn on either, in a cache of its own that is removed at the
end. `first token` counts from the start of the process to the first token that the planner writes,
`of the run` from the run's first event, once the demo's repository has been made. Each side has one
run before that is not counted.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

BAR_S = 0.5
"""For the first token on the daemon."""
RUN = """
import json, sys, time
from agent.core.journal import Journal
seen = {}
show = Journal.show
def watch(journal, event, **data):
    name = data.get("phase") if event == "progress" else event
    if name != "decode" or data["done"]:
        seen.setdefault(name, time.time())
    show(journal, event, **data)
Journal.show = watch
from agent.cli import main
code = main(["run", "--json", "--quiet"])
sys.stderr.write("\\n" + json.dumps(seen))
sys.exit(code)
"""
SIDES = ("own server", "daemon")


def one_run(environment: dict[str, str]) -> dict[str, float]:
    """Seconds of one demo."""
    begin = time.time()
    done = subprocess.run(
        [sys.executable, "-c", RUN], capture_output=True, text=True, check=False, env=environment
    )
    wall_s = time.time() - begin
    if done.returncode != 0:
        raise SystemExit(f"the demo ended with {done.returncode}:\n{done.stderr[-2000:]}")
    seen = json.loads(done.stderr.splitlines()[-1])
    return {
        "first token": seen["decode"] - begin,
        "of the run": seen["decode"] - seen["run_started"],
        "wall": wall_s,
    }


def turbo_server(word: str, environment: dict[str, str]) -> None:
    """`turbo server start` or `stop`."""
    subprocess.run(
        [sys.executable, "-m", "agent", "server", word],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def measure(runs: int) -> dict[str, list[dict[str, float]]]:
    """All runs, by side."""
    measured: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as cache:
        alone = {**os.environ, "XDG_CACHE_HOME": f"{cache}/alone"}
        shared = {**os.environ, "XDG_CACHE_HOME": f"{cache}/shared"}
        turbo_server("start", shared)
        try:
            for number in range(runs + 1):
                for side, environment in zip(SIDES, (alone, shared), strict=True):
                    found = one_run(environment)
                    if number:
                        measured[side].append(found)
        finally:
            turbo_server("stop", shared)
    return measured


def main() -> None:
    """Print a table and one line of JSON; exit code 1 above the bar."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    measured = measure(runs)
    print(f"demo, {runs} runs per side")
    print(f"{'':12}{'':14}{'median s':>10}{'min s':>10}{'max s':>10}")
    medians: dict[str, dict[str, float]] = {side: {} for side in SIDES}
    for side, found in measured.items():
        for part in found[0]:
            values = [run[part] for run in found]
            medians[side][part] = round(statistics.median(values), 3)
            row = (medians[side][part], min(values), max(values))
            print(f"{side:12}{part:14}" + "".join(f"{value:>10.3f}" for value in row))
    print(json.dumps(medians))
    sys.exit(medians["daemon"]["first token"] > BAR_S)


if __name__ == "__main__":
    main()
