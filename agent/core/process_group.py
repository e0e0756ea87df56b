"""What the owners of processes share: a child leads a group of its own and dies with us.

Linux tells a child when its parent dies (``prctl(PR_SET_PDEATHSIG)``, prctl(2)), so that not even
SIGKILL of this program leaves an orphan. Elsewhere the group is still ended on every other way out.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> Callable[[], None] | None:
    """A function for ``preexec_fn`` that asks the kernel to kill the child when we die.

    None where the system has no such call. The library is loaded here, before the fork, because
    little is allowed between fork and exec.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the call took effect
            os._exit(1)

    return ask


def signal_group(pid: int, signum: signal.Signals) -> None:
    """Send `signum` to the group that `pid` leads; a group that is gone already is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


async def end_group(
    process: asyncio.subprocess.Process, *, patience_s: float, terms: int = 1
) -> None:
    """TERM the group `terms` times, each with `patience_s` seconds to go, then KILL it.

    Returns when the leader is reaped. The KILL is sent in any case, also when this is cancelled: a
    leader may leave children behind in its group.
    """
    try:
        for _ in range(terms):
            if process.returncode is not None:
                break
            signal_group(process.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), patience_s)
    finally:
        signal_group(process.pid, signal.SIGKILL)
        await process.wait()
