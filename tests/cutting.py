"""Requests that are cut off in the midst of their answer, for sure."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from agent.core.backend_manager import Backend, Progress, Reply, Request

_WHOLE_WITHIN_S = 0.3


async def cut(
    backend: Backend, request: Request, send: Callable[[signal.Signals], None]
) -> asyncio.Task[Reply]:
    """The task of a request of which some tokens have come, on a server that is stopped (SIGSTOP).

    On a busy machine the whole answer may lie in the socket before its first token is read: then
    it is asked for again. `send` sends a signal to the server.
    """
    while True:
        stopped = asyncio.Event()

        def watch(progress: Progress, stopped: asyncio.Event = stopped) -> None:
            if progress.phase == "decode" and not stopped.is_set():
                send(signal.SIGSTOP)
                stopped.set()

        asking = asyncio.create_task(backend.complete(request, watch))
        await stopped.wait()
        done, _ = await asyncio.wait({asking}, timeout=_WHOLE_WITHIN_S)
        if not done:
            return asking
        send(signal.SIGCONT)
