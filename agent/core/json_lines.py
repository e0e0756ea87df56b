"""Files with one JSON object per line, whose writers may be killed in the middle of a line.

Only the last line of such a file can be half: whoever appends again cuts it off first.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def read_objects(path: Path) -> list[dict[str, Any]]:
    """The objects of a file in their order, without lines that are none. Raises OSError."""
    found = []
    for line in path.read_bytes().splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def cut_half_line(path: Path) -> None:
    """Cut off a last line without an end, if there is a file at all. Raises OSError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)
