"""Logs of llama-server: one file per start, few files, none of them endless."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
import time
from pathlib import Path

_KEPT = 20
"""Files; the oldest go first."""
_LIMIT = 64 << 20
"""Bytes; a longer log starts again from nothing."""
_CHECK_S = 30.0
_END = 16 << 10
"""Bytes at the end of a log that are looked at."""
_START = 1 << 20
"""Bytes at its beginning that are looked at; loading a model writes 20 KB (b10434, verbosity 4)."""
CONTROL = re.compile(r"\x1b\[[0-9;]*m|[^\x20-\x7e\n\t\x80-\uffff]")


def new_log(folder: Path) -> Path:
    """An empty log in `folder`, readable by us alone, since it may show prompts."""
    with contextlib.suppress(OSError):
        logs = sorted(folder.glob("server-*.log"), key=lambda path: path.stat().st_mtime)
        for path in logs[: max(0, len(logs) - _KEPT + 1)]:
            path.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=time.strftime("server-%Y%m%d-%H%M%S-"), suffix=".log", dir=folder
    )
    os.close(handle)
    return Path(name)


def start_of(log: Path) -> str:
    """The beginning of a log, which tells how the server was loaded; empty when it cannot be
    read."""
    try:
        with log.open("rb") as file:
            return CONTROL.sub("", file.read(_START).decode(errors="replace"))
    except OSError:
        return ""


def end_of(log: Path) -> str:
    """The end of a log without colours and control characters; empty when it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END))
            return CONTROL.sub("", file.read().decode(errors="replace"))
    except OSError:
        return ""


async def keep_bounded(log: Path, *, limit: int = _LIMIT, check_s: float = _CHECK_S) -> None:
    """Empty the log when it has more than `limit` bytes, looking every `check_s` seconds, until
    cancelled. Its writer must append, so that it goes on from the start."""
    while True:
        await asyncio.sleep(check_s)
        with contextlib.suppress(OSError):
            if log.stat().st_size > limit:  # noqa: ASYNC240 - as quick as a lookup
                os.truncate(log, 0)
