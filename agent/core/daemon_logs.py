"""The logs of the daemon and of its llama-server, also after both have ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from agent.core.daemon_control import daemon_log, log_folder
from agent.core.server_log import CONTROL

_PAUSE_S = 0.2


class Logs:
    """What is in them, and what is added."""

    def __init__(self) -> None:
        self._seen: dict[Path, int] = {}
        self._last: Path | None = None

    def ends(self, lines: int) -> Iterator[str]:
        """The last lines of each, under its name."""
        for path in _newest():
            text = self._rest(path)
            yield self._under_name(path, "\n".join(text.splitlines()[-lines:] if lines else []))

    def added(self) -> Iterator[str]:
        """What was added since, also by another server; comes after a moment."""
        time.sleep(_PAUSE_S)
        for path in _newest():
            text = self._rest(path)
            if text:
                yield self._under_name(path, text.rstrip("\n"))

    def _under_name(self, path: Path, text: str) -> str:
        name = "" if path == self._last else f"==> {path} <==\n"
        self._last = path
        return name + text

    def _rest(self, path: Path) -> str:
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                start = self._seen.get(path, 0)
                file.seek(start if start <= size else 0)  # a log may begin anew (server_log.py)
                data = file.read()
                self._seen[path] = file.tell()
        except OSError:
            return ""
        return CONTROL.sub("", data.decode(errors="replace"))


def _newest() -> list[Path]:
    """The log of the daemon itself and that of its last server."""
    servers = sorted(log_folder().glob("server-*.log"), key=lambda path: path.stat().st_mtime)
    return [path for path in (daemon_log(), *servers[-1:]) if path.exists()]
