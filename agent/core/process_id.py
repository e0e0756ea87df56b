"""A process that can be told from a later one with the same pid."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass

import psutil

from agent.core.process_group import signal_group

_CLOCK_S = 2.0
"""Two programs that ask when a third one started may differ by a second, since they count from the
start of the machine. A pid does not come round again within that time."""


@dataclass(frozen=True)
class ProcessId:
    """A pid and when its process started."""

    pid: int
    started: float
    """Seconds since the epoch."""

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The process that has `pid` now; None when there is none."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.Error:
            return None

    @classmethod
    def ours(cls) -> ProcessId:
        """This process."""
        return cls(os.getpid(), psutil.Process().create_time())

    def lives(self) -> bool:
        """Whether it still runs; one that only waits to be reaped does not."""
        return self._process() is not None

    def memory(self) -> int:
        """Bytes of memory that it has; 0 when it is gone."""
        process = self._process()
        with contextlib.suppress(psutil.Error):
            return process.memory_info().rss if process else 0
        return 0

    def send(self, signum: signal.Signals) -> None:
        """Send a signal to it. Nothing happens when it is gone, whoever has its pid now."""
        process = self._process()
        with contextlib.suppress(psutil.Error):
            if process is not None:
                process.send_signal(signum)

    def send_group(self, signum: signal.Signals) -> None:
        """The same to the group that it leads."""
        if self.lives():
            signal_group(self.pid, signum)

    def _process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < _CLOCK_S
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None
