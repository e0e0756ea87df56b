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
        self._rest = bytearray()
        self._max_line = max_line

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes. Raises BackendError for an endless one."""
        *lines, rest = chunk.split(b"\n")
        if lines:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        self._rest += rest
        if len(self._rest) > self._max_line or any(len(line) > self._max_line for line in lines):
            raise _endless(self._max_line)
        return [line.removesuffix(b"\r") for line in lines]


class EventReader:
    """Payloads of server-sent events."""

    def __init__(self, *, max_line: int = _MAX_LINE) -> None:
        self._lines = LineReader(max_line=max_line)
        self._data: list[bytes] = []
        self._size = 0
        self._max_size = max_line

    def feed(self, chunk: bytes) -> list[bytes]:
        """The payloads that `chunk` completes; several data lines of one event are joined.

        Raises BackendError for an endless one."""
        events = []
        for line in self._lines.feed(chunk):
            if not line:
                if self._data:
                    events.append(b"\n".join(self._data))
                    self._data = []
                    self._size = 0
                continue
            field, colon, value = line.partition(b":")
            if colon and field in (b"data", b"error"):
                self._data.append(value.removeprefix(b" "))
                self._size += len(line)
                if self._size > self._max_size:
                    raise _endless(self._max_size)
        return events


def _endless(most: int) -> BackendError:
    return BackendError(
        f"The server sent a line or an event of more than {most} bytes.",
        fix="Check that the address is that of the model server.",
    )
