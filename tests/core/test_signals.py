"""A signal ends a program of ours even while something in it is blocked for good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

BLOCKED = """
import asyncio, sys
from pathlib import Path
from agent.core.signals import Interrupted, leave_blocked_threads, run_until_signal

async def read():
    print("reading", flush=True)
    await asyncio.to_thread(Path(sys.argv[1]).read_bytes)

try:
    run_until_signal(read())
except Interrupted as stopped:
    print("interrupted")
    leave_blocked_threads(stopped.exit_code)
"""


def test_a_read_that_never_returns_does_not_outlive_the_signal(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    child = subprocess.Popen(
        [sys.executable, "-c", BLOCKED, str(pipe)], stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "reading\n"
        child.send_signal(signal.SIGTERM)
        assert child.stdout.read() == "interrupted\n"
    assert child.returncode == 143
