"""The daemon as a user has it: real commands, real processes, in a cache of the test's own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from agent.core.daemon_record import DaemonRecord, Serving, read_record


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str


class Daemons:
    """`turbo server` with the cache `cache`, started in `folder`."""

    def __init__(self, cache: Path, folder: Path) -> None:
        self.cache = cache
        self.folder = folder
        self._begun: list[subprocess.Popen[str]] = []

    def begin(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """A `turbo` command that is not waited for."""
        process = subprocess.Popen(
            [sys.executable, "-m", "agent", *words],
            cwd=self.folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._begun.append(process)
        return process

    def end(self) -> None:
        """End whatever was begun and still runs, and the daemon."""
        for process in self._begun:
            if process.poll() is None:
                process.kill()
            process.communicate()
        record = read_record()
        if record is not None:
            record.supervisor.send(signal.SIGTERM)
        wait_until(lambda: not self.processes())

    def turbo(self, *words: str, **environment: str) -> Said:
        """A `turbo` command, to its end."""
        return self.ended(self.begin(*words, **environment))

    def server(self, *words: str, **environment: str) -> Said:
        """`turbo server ...`, to its end."""
        return self.turbo("server", *words, **environment)

    def started(self, *words: str, **environment: str) -> DaemonRecord:
        """Start it; it must work."""
        said = self.server("start", *words, **environment)
        assert said.code == 0, said.err
        return self.record

    @staticmethod
    def ended(process: subprocess.Popen[str]) -> Said:
        out, err = process.communicate(timeout=50)
        assert "Traceback" not in err
        return Said(process.returncode, out, err)

    @property
    def record(self) -> DaemonRecord:
        record = read_record()
        assert record is not None
        return record

    @property
    def serving(self) -> Serving:
        serving = self.record.serving
        assert serving is not None
        return serving

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.server("status", "--json").out)
        return found

    def servers(self) -> list[psutil.Process]:
        """All llama-servers that live with this cache."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if "llama-server" in process.name():
                    found.append(process)
        return found

    def kill_servers(self) -> None:
        for server in self.servers():
            with contextlib.suppress(psutil.Error):
                server.kill()

    def processes(self) -> list[psutil.Process]:
        """All that lives with this cache, but for this process."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.environ().get("XDG_CACHE_HOME") == str(self.cache)
                if ours and process.pid != os.getpid() and process.status() != "zombie":
                    found.append(process)
        return found


@contextmanager
def daemons(cache: Path, folder: Path) -> Iterator[Daemons]:
    """Ends what a test left running. A test that is about the end has looked before."""
    own = Daemons(cache, folder)
    try:
        yield own
    finally:
        own.end()


def wait_until(happened: Callable[[], bool], limit_s: float = 20.0) -> None:
    """Wait for something that another process does."""
    give_up_at = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < give_up_at, "it did not happen"
        time.sleep(0.02)
