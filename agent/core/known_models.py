"""Facts of model files that were read before: a header with a large vocabulary takes 60 ms."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from agent.core.answer_cache import remember, remembered
from agent.core.gguf_info import GgufInfo, is_split, read_gguf

_FORMAT = 2
"""To be raised when `read_gguf` finds something else in the same file."""


def facts_of(path: Path, cache: Path) -> GgufInfo:
    """What `read_gguf` says of the file; from `cache` while the file is the same.

    Raises ModelError as `read_gguf` does.
    """
    try:
        about = path.stat()
    except OSError:
        return read_gguf(path)  # it says what is wrong
    if is_split(path):
        return read_gguf(path)  # one of its other parts may have changed or gone
    identity = f"gguf {_FORMAT}|{path}|{about.st_size}|{about.st_mtime_ns}|{about.st_ino}"
    known = _info(remembered(cache, identity) or {})
    if known is not None:
        return known
    info = read_gguf(path)
    remember(cache, identity, asdict(info))
    return info


def _info(kept: dict[str, Any]) -> GgufInfo | None:
    """The kept facts; None when they are not all there, or not what they should be."""
    if set(kept) != {field.name for field in fields(GgufInfo)}:
        return None
    pair = kept["key_values"]
    if not isinstance(pair, list) or len(pair) != 2:
        return None
    info = GgufInfo(**{**kept, "key_values": (pair[0], pair[1])})
    texts = ("architecture", "name")
    numbers = (getattr(info, x.name) for x in fields(info) if x.name not in (*texts, "key_values"))
    whole = all(isinstance(number, int) for number in (*numbers, *info.key_values))
    return info if whole and all(isinstance(getattr(info, x), str) for x in texts) else None
