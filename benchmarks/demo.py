"""Where the time of `make demo` goes.

Usage: python benchmarks/demo.py [RUNS]

Runs the demo in fresh processes and prints the medians: wall seconds, and the CPU seconds of our
own process (everything outside llama-server, tests and git, which are processes of their own).
Bars: wall at most 8 s on 2 cores, own at most 1.5 s.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

RUN = """
import json, resource, sys
from agent.cli import main
code = main(["run", "--json", "--quiet"])
used = resource.getrusage(resource.RUSAGE_SELF)
sys.stderr.write("\\n" + json.dumps({"own_s": used.ru_utime + used.ru_stime}))
sys.exit(code)
"""


def one_run() -> dict[str, float]:
    """Seconds of one demo, by part."""
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=False)
    wall_s = time.perf_counter() - begin
    if done.returncode != 0:
        raise SystemExit(f"the demo ended with {done.returncode}:\n{done.stderr[-2000:]}")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    by_name = {event["event"]: event for event in events}
    return {
        "wall": wall_s,
        "own CPU": json.loads(done.stderr.splitlines()[-1])["own_s"],
        "server start": by_name["server_ready"]["seconds"],
        "run": by_name["run_finished"]["wall_s"],
    }


def main() -> None:
    """Print a table and one line of JSON."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    one_run()
    measured = [one_run() for _ in range(runs)]
    table = {
        part: {
            "median_s": round(statistics.median(run[part] for run in measured), 3),
            "min_s": round(min(run[part] for run in measured), 3),
            "max_s": round(max(run[part] for run in measured), 3),
        }
        for part in measured[0]
    }
    print(f"demo, {runs} runs after one that is not counted")
    print(f"{'part':14}{'median s':>10}{'min s':>10}{'max s':>10}")
    for part, row in table.items():
        print(f"{part:14}{row['median_s']:>10.3f}{row['min_s']:>10.3f}{row['max_s']:>10.3f}")
    print(json.dumps(table))


if __name__ == "__main__":
    main()
