"""Signals that end a run: they become an exception or a cancellation, so that all is cleaned up.

The exit code is then the shell's, 128 + the number of the signal: 129 SIGHUP, 130 SIGINT (Ctrl-C),
143 SIGTERM. A signal that whoever started us has ignored (nohup, a background job) stays ignored.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from agent.core.errors import TurboError

Result = TypeVar("Result")

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_THREADS = "turbo-work"
"""Begin of the names of the threads in which `run_until_signal` lets blocking calls run."""
_THREADS_PATIENCE_S = 2.0
"""Seconds that a call may take to return after the signal: a read of a dead disk never does."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the run."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


@contextmanager
def raise_interrupted() -> Iterator[None]:
    """While it lasts, the first ending signal raises Interrupted; a second has its usual effect."""
    before = _handlers()

    def stop(signum: int, _frame: FrameType | None) -> None:
        _restore(before)
        raise Interrupted(signum)

    for each in before:
        signal.signal(each, stop)
    try:
        yield
    finally:
        _restore(before)


def ignore_ending_signals() -> None:
    """For a process that has told its outcome and only has to leave: a signal that comes now would
    give it another exit code than what it told."""
    for each in _handlers():
        signal.signal(each, signal.SIG_IGN)


def run_until_signal(work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work`; the first ending signal cancels it, so that it can clean up.

    A second signal has its usual effect. Raises Interrupted once `work` has ended.
    """
    before = _handlers()
    caught: list[int] = []
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        loop.set_default_executor(_Threads(lambda: bool(caught)))
        task = loop.create_task(work)

        def stop(signum: int) -> None:
            caught.append(signum)
            for each in before:
                loop.remove_signal_handler(each)
            task.cancel()

        for each in before:
            loop.add_signal_handler(each, stop, each)
        try:
            result = loop.run_until_complete(task)
        except (asyncio.CancelledError, TurboError):
            if not caught:
                raise
        else:
            if not caught:
                return result
        finally:
            if not caught:
                _restore(before)
    raise Interrupted(caught[0])


def leave_blocked_threads(exit_code: int) -> None:
    """End the process at once when a thread outlived `run_until_signal`; else return. All has been
    cleaned up by then, and the interpreter would wait for such a thread without end."""
    if _working():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(exit_code)


class _Threads(ThreadPoolExecutor):
    """The threads of one loop; after a signal it waits for them only a moment."""

    def __init__(self, signalled: Callable[[], bool]) -> None:
        super().__init__(thread_name_prefix=_THREADS)
        self._signalled = signalled

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See Executor."""
        if not self._signalled():
            super().shutdown(wait, cancel_futures=cancel_futures)
            return
        super().shutdown(wait=False, cancel_futures=True)
        give_up_at = time.monotonic() + _THREADS_PATIENCE_S
        for thread in _working():
            thread.join(max(0.0, give_up_at - time.monotonic()))


def _working() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(_THREADS)]


@contextmanager
def signals_held() -> Iterator[None]:
    """While it lasts, ending signals wait; what they raise is raised at its end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _handlers() -> dict[signal.Signals, Any]:
    """The handlers of the ending signals that nobody has ignored."""
    found = {each: signal.getsignal(each) for each in _ENDING}
    return {each: handler for each, handler in found.items() if handler is not signal.SIG_IGN}


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for each, handler in handlers.items():
        signal.signal(each, handler)
