"""One target of ``make fuzz``, in a process of its own."""

from __future__ import annotations

import importlib
import resource
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from fuzz.exploring import Exploration

_MEMORY = 4 << 30
"""Bytes of address space for a process; no input is worth a fraction of it."""
_MOST_SECONDS = 5.0
"""Processor time for one input. The slowest honest one, 64 KB of YAML, takes about a second."""


@dataclass(frozen=True)
class Outcome:
    """What became of one target."""

    target: str
    inputs: int
    seconds: float
    failure: str
    """The input that fails, and how; empty when none does."""

    def __str__(self) -> str:
        outcome = "FAILED" if self.failure else "held"
        line = f"{self.target:<14}{self.inputs:>9,} inputs{self.seconds:>9.1f} s  {outcome}"
        return f"{line}\n{self.failure}" if self.failure else line


def run(target: str, inputs: int, seed: int) -> Outcome:
    """Explore one target in this process."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    begin = time.monotonic()
    failure = ""
    with tempfile.TemporaryDirectory() as folder:
        check = importlib.import_module(f"fuzz.test_{target}").check
        exploration = Exploration(check, Path(folder))
        try:
            exploration.run(inputs, seed=seed, most_seconds=_MOST_SECONDS)
        except Exception:
            failure = traceback.format_exc()
    return Outcome(target, exploration.made, time.monotonic() - begin, failure)
