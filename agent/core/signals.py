"""Signals that end a run: they become an exception or a cancellation, so that all is cleaned up.

The exit code is then the shell's, 128 + the number of the signal: 129 SIGHUP, 130 SIGINT (Ctrl-C),
143 SIGTERM. A signal that whoever started us has ignored (nohup, a background job) stays ignored.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from agent.core.errors import TurboError

Result = TypeVar("Result")

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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


def run_until_signal(work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work`; the first ending signal cancels it, so that it can clean up.

    A second signal has its usual effect. Raises Interrupted once `work` has ended.
    """
    before = _handlers()
    caught: list[int] = []
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
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
