"""Read a streamed HTTP body: lines, and server-sent events made of ``data:`` lines.

Bytes go in as the network cuts them, whole lines come out; a character is decoded only once its
line is complete, so that a cut inside one does no harm. Comments (``: ping``) and fields other
than ``data`` and ``error`` carry nothing for us. ``error:`` is how older llama-server builds
report a failure in the middle of a stream; newer ones send ``data: {"error": ...}``.
"""

from __future__ import annotations

from agent.core.http_errors import too_long

_MAX_LINE = 16 * 1024 * 1024
"""Bytes. The last event of llama-server repeats the whole prompt; nothing honest is longer."""
_PER_TOKEN = 1024
"""Bytes of a stream per token of the answer; an event with one token has about 300."""


class LineReader:
    """Lines that end in LF or CRLF, without their end."""

    def __init__(self, *, max_line: int = _MAX_LINE, max_total: int | None = None) -> None:
        """Limits are in bytes: of one line, and of all that is fed."""
        self._rest = bytearray()
        self._max_line = max_line
        self._max_total = max_total
        self._total = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes. Raises BackendError for an endless one, and for a
        stream without end."""
        self._total += len(chunk)
        if self._max_total is not None and self._total > self._max_total:
            raise too_long("an answer", self._max_total)
        first, newline, others = chunk.partition(b"\n")
        self._rest += first  # and nothing before is looked at again, however long the line is
        lines = []
        if newline:
            *whole, last = others.split(b"\n")
            lines = [bytes(self._rest), *whole]
            self._rest = bytearray(last)
        longest = max(map(len, lines), default=0)
        if max(longest, len(self._rest)) > self._max_line:
            raise too_long("a line", self._max_line)
        return [line.removesuffix(b"\r") for line in lines]


class EventReader:
    """Payloads of server-sent events."""

    def __init__(self, *, max_line: int = _MAX_LINE, max_total: int | None = None) -> None:
        self._lines = LineReader(max_line=max_line, max_total=max_total)
        self._data: list[bytes] = []
        self._size = 0
        self._max_event = max_line

    def feed(self, chunk: bytes) -> list[bytes]:
        """The payloads that `chunk` completes; several data lines of one event are joined.

        Raises BackendError for an endless one, and for a stream without end."""
        events = []
        for line in self._lines.feed(chunk):
            if not line:
                if self._data:
                    events.append(b"\n".join(self._data))
                    self._data, self._size = [], 0
                continue
            field, colon, value = line.partition(b":")
            if colon and field in (b"data", b"error"):
                self._size += len(line)
                if self._size > self._max_event:
                    raise too_long("an event", self._max_event)
                self._data.append(value.removeprefix(b" "))
        return events


def longest_stream(tokens: int) -> int:
    """Bytes that no honest stream with an answer of at most `tokens` has. A server that does not
    end its answer is not read, and nothing of it kept, for ever."""
    return _MAX_LINE + tokens * _PER_TOKEN
