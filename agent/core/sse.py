"""Read a streamed HTTP body: lines, and server-sent events made of ``data:`` lines.

Bytes go in as the network cuts them, whole lines come out; a character is decoded only once its
line is complete, so that a cut inside one does no harm. Comments (``: ping``) and fields other
than ``data`` and ``error`` carry nothing for us. ``error:`` is how older llama-server builds
report a failure in the middle of a stream; newer ones send ``data: {"error": ...}``.
"""

from __future__ import annotations

from agent.core.errors import BackendError

_MAX_LINE = 16 * 1024 * 1024
"""Bytes. The last event of llama-server repeats the whole prompt; nothing honest is longer."""


class LineReader:
    """Lines that end in LF or CRLF, without their end."""

    def __init__(self, *, max_line: int = _MAX_LINE) -> None:
        self._rest = b""
        self._max_line = max_line

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes. Raises BackendError for an endless one."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > self._max_line or any(len(line) > self._max_line for line in lines):
            raise BackendError(
                f"The server sent a line of more than {self._max_line} bytes.",
                fix="Check that the address is that of the model server.",
            )
        return [line.removesuffix(b"\r") for line in lines]


class EventReader:
    """Payloads of server-sent events."""

    def __init__(self, *, max_line: int = _MAX_LINE) -> None:
        self._lines = LineReader(max_line=max_line)
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The payloads that `chunk` completes; several data lines of one event are joined."""
        events = []
        for line in self._lines.feed(chunk):
            if not line:
                if self._data:
                    events.append(b"\n".join(self._data))
                    self._data = []
                continue
            field, colon, value = line.partition(b":")
            if colon and field in (b"data", b"error"):
                self._data.append(value.removeprefix(b" "))
        return events
