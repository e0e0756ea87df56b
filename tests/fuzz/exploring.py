"""Run one check on inputs that hypothesis makes and, when one fails, shrinks."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import hypothesis
from hypothesis import strategies as st

from fuzz.source import Source

_BYTES = 300
"""Of one input. Choices beyond them are the plainest ones."""
_ROUND = 10_000
"""Inputs after which hypothesis begins anew: it remembers every one."""

Check = Callable[[Source, Path], None]
"""Makes and examines one input; the folder is the check's own, for all its inputs."""


class TooSlow(AssertionError):
    """One input took more processor time than any should."""


@dataclass
class Exploration:
    """A check and the inputs that it was given."""

    check: Check
    folder: Path
    made: int = 0
    """Inputs so far, counted as they are made."""

    def run(self, inputs: int, *, seed: int, most_seconds: float | None = None) -> None:
        """Make `inputs` of them; the same `seed` makes the same ones.

        `most_seconds` of processor time may go into one input; None where the speed of the machine
        must not decide. Raises what the check raises, with the shortest input that does it.
        """
        while self.made < inputs:

            @hypothesis.given(st.binary(min_size=_BYTES, max_size=_BYTES).map(Source))
            def one(source: Source) -> None:
                self._try(source, most_seconds)

            settings = hypothesis.settings(
                max_examples=min(_ROUND, inputs - self.made),
                database=None,
                deadline=None,
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            hypothesis.seed(seed + self.made)(settings(one))()

    def _try(self, source: Source, most_seconds: float | None) -> None:
        self.made += 1
        with _limited(most_seconds):
            self.check(source, self.folder)


@contextlib.contextmanager
def _limited(seconds: float | None) -> Iterator[None]:
    if seconds is None:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"more than {seconds:g} s of processor time for one input")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
