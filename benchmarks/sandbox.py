"""What the sandbox costs per command: the same commands with it and without, in turn.

Usage: python benchmarks/sandbox.py [REPEATS]

`true` shows the cost alone; a Python that imports pytest what it is beside a short test run.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from pathlib import Path

from agent.core.command import run_command
from agent.core.config import Settings
from agent.core.sandbox_choice import choose_sandbox

BAR_MS = 30.0
COMMANDS = {"true": ("true",), "import pytest": (sys.executable, "-c", "import pytest")}


async def measure(repeats: int) -> None:
    sandboxes = {
        "no sandbox": None,
        "limits": (await choose_sandbox(Settings(sandbox="off")))[0],
        "bubblewrap": (await choose_sandbox(Settings(sandbox="require")))[0],
    }
    print(f"{'command':<15}{'':<12}{'median ms':>10}{'added ms':>10}   (bar {BAR_MS:g})")
    with tempfile.TemporaryDirectory() as folder:
        for name, argv in COMMANDS.items():
            times: dict[str, list[float]] = {side: [] for side in sandboxes}
            for _ in range(repeats):
                for side, sandbox in sandboxes.items():
                    done = await run_command(argv, cwd=Path(folder), timeout_s=60, sandbox=sandbox)
                    times[side].append(done.duration_s * 1000)
            base = statistics.median(times["no sandbox"])
            for side, values in times.items():
                median = statistics.median(values)
                print(f"{name:<15}{side:<12}{median:>10.1f}{median - base:>10.1f}")


if __name__ == "__main__":
    asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 30))
