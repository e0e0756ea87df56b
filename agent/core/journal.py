"""The run journal: one JSON line per event, and whoever else listens."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from agent.core.errors import WorkspaceError
from agent.core.json_lines import cut_half_line
from agent.core.redaction import Redactor
from agent.core.shortage import FULL_FIX, shortage

Listener = Callable[[str, Mapping[str, Any]], None]
"""Called with the name of an event and its data; must not raise."""


class Journal:
    """Hands every event to the listeners and, once `open` was called, to a file; both get it as
    `redactor` leaves it."""

    def __init__(
        self, listeners: tuple[Listener, ...] = (), redactor: Redactor | None = None
    ) -> None:
        self.redactor = redactor or Redactor()
        self._listeners = list(listeners)
        self._file: IO[str] | None = None
        self._path = Path()

    def open(self, path: Path) -> None:
        """Append to `path` from now on; folders are made. Raises WorkspaceError.

        A last line that was cut when its writer was killed goes away.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            cut_half_line(path)
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            self._file = os.fdopen(handle, "a", encoding="utf-8")
            self._path = path
        except OSError as error:
            if lacking := shortage(error, path):
                raise lacking from None
            raise WorkspaceError(
                f"cannot write {path}: {error.strerror}",
                fix="The repository's .git folder must be writable.",
            ) from None

    def listen(self, listener: Listener) -> None:
        """Tell `listener` too, from now on."""
        self._listeners.append(listener)

    def close(self) -> None:
        """Close the file; later events still reach the listeners."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # what it could not write was an error before
                file.close()

    def emit(self, event: str, **data: Any) -> None:
        """Record one event. `data` must be JSON values.

        Raises WorkspaceError when the file cannot be written; later events reach the listeners."""
        data = self.redactor.data(data)
        if self._file is not None:
            line = json.dumps({"time": round(time.time(), 3), "event": event, **data})
            try:
                self._file.write(line + "\n")
                self._file.flush()
            except OSError as error:
                self.close()
                raise WorkspaceError(
                    f"cannot write {self._path}: {error.strerror}", fix=FULL_FIX
                ) from None
        self._tell(event, data)

    def show(self, event: str, **data: Any) -> None:
        """Tell the listeners only: progress that is not worth keeping."""
        self._tell(event, self.redactor.data(data))

    def _tell(self, event: str, data: Mapping[str, Any]) -> None:
        for listener in self._listeners:
            listener(event, data)
