"""Small answers that cost time to find out, kept in a folder of the cache, one file per question.

Whatever is wrong with such a folder or file only costs finding the answer out again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from agent.core.json_value import read_json


def remembered(folder: Path, question: str) -> dict[str, Any] | None:
    """The kept answer; None when there is none that can be read."""
    try:
        answer = read_json(entry_of(folder, question).read_bytes())
    except (OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


def remember(folder: Path, question: str, answer: dict[str, Any]) -> None:
    """Keep an answer, in one step, so that no reader sees half of it."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".new-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(answer, file)
            Path(name).replace(entry_of(folder, question))
        except OSError:
            Path(name).unlink(missing_ok=True)


def entry_of(folder: Path, question: str) -> Path:
    """The file of a question; it may not exist."""
    return folder / f"{hashlib.sha256(question.encode()).hexdigest()[:24]}.json"
