"""``make fuzz``: hundreds of thousands of new inputs for each target, several targets at a time.

Prints a line per target: inputs that were really made, seconds, outcome. What fails is shown in its
shortest form, and the exit code is 1. `--seed` makes the inputs of an earlier run again.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from fuzz.long_run import run


def targets() -> list[str]:
    """Names of the test files beside this one, without ``test_``."""
    files = Path(__file__).parent.glob("test_*.py")
    return sorted(path.stem.removeprefix("test_") for path in files)


def main() -> int:
    """The exit code: 0 when everything held."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"default: all, {' '.join(targets())}")
    parser.add_argument("--inputs", type=int, default=200_000, help="for each target, at least")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    wanted = parser.parse_args()
    if unknown := set(wanted.targets) - set(targets()):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    print(f"--seed {wanted.seed}", flush=True)
    failed = False
    with ProcessPoolExecutor(wanted.processes, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(run, target, wanted.inputs, wanted.seed)
            for target in wanted.targets or targets()
        ]
        for job in as_completed(jobs):
            outcome = job.result()
            print(outcome, flush=True)
            failed = failed or bool(outcome.failure)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
