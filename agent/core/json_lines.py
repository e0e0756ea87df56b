"""Files with one JSON object per line, whose writers may be killed in the middle of a line.

Only the last line of such a file can be half: whoever appends again cuts it off first.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from agent.core.json_value import read_json

_CHUNK = 65_536


def read_objects(path: Path) -> list[dict[str, Any]]:
    """The objects of a file in their order, without lines that are none. Raises OSError."""
    found = []
    for line in path.read_bytes().splitlines():
        try:
            value = read_json(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def cut_half_line(path: Path) -> None:
    """Cut off a last line without an end, if there is a file at all. Raises OSError."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return  # a device may be read without end
        with path.open("r+b") as file:
            end = position = file.seek(0, os.SEEK_END)
            while position:
                begin = max(0, position - _CHUNK)
                file.seek(begin)
                newline = file.read(position - begin).rfind(b"\n")
                if newline >= 0:
                    position = begin + newline + 1
                    break
                position = begin
            if position < end:
                file.truncate(position)
    except FileNotFoundError:
        return
