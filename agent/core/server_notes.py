"""Notes about the servers that we own, so that none outlives its owner for good.

On Linux the kernel ends a server with its owner (process_group.py). Elsewhere a server is left over
when its owner is killed; the note that lies in the cache leads the next start to it. A process that
only has the pid of such a server is never touched.
"""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict

from agent.core.folders import cache_folder
from agent.core.held_file import held_note, take_abandoned
from agent.core.process_id import ProcessId

_KIND = "server"


@contextmanager
def noted(pid: int) -> Iterator[None]:
    """Keep a note about the server `pid` as long as the block lasts; none where that fails."""
    server = ProcessId.of(pid)
    with ExitStack() as stack:
        if server is not None:
            with contextlib.suppress(OSError):
                folder = cache_folder("servers", private=True)
                stack.enter_context(held_note(folder, _KIND, json.dumps(asdict(server))))
        yield


def end_left_over(notice: Callable[[str], None]) -> None:
    """End the servers of owners that were killed; `notice` gets a line for each."""
    for text in take_abandoned(cache_folder("servers", private=True), _KIND):
        with contextlib.suppress(ValueError, TypeError):
            server = ProcessId(**json.loads(text))
            if server.lives():
                server.send_group(signal.SIGKILL)
                notice(f"Ended llama-server {server.pid}, which a killed run had left behind.")
