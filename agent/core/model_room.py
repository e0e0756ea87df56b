"""Room in the model cache: what was used least recently goes first, what is in use never.

Two pulls at the same time may both find room for themselves; each looks again when it is done, so
that the cache is within its limit at the end.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.core.config import models_dir
from agent.core.errors import ModelError
from agent.core.model_remains import remains
from agent.core.model_store import StoredModel, remove, stored_models

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Occupant:
    """Something that takes room."""

    what: str
    size: int
    used_at: float
    remove: Callable[[], bool]
    """False when it is in use."""
    free: bool
    """Nobody used it when we looked."""


def occupants(keep: str = "") -> list[Occupant]:
    """All that takes room, the least recently used first; the model that `keep` names (as
    repository:quantisation) counts as used."""
    found = [
        Occupant(
            what=f"{each.asked_as} ({_kind(each)})" if each.fault else each.asked_as,
            size=each.size,
            used_at=each.used_at,
            remove=_remover(each),
            free=not each.in_use and (each.asked_as != keep or bool(each.fault)),
        )
        for each in (*stored_models(), *remains())
    ]
    return sorted(found, key=lambda each: each.used_at)


def make_room(limit: int, needed: int = 0, *, keep: str = "") -> list[Occupant]:
    """Remove models until `needed` bytes more stay within `limit`; what was removed. When that
    cannot be, because the rest is in use, as much is removed as there is need for all the same."""
    there = occupants(keep)
    excess = sum(entry.size for entry in there) + needed - limit
    removed = []
    for entry in there:
        if excess <= 0:
            break
        if entry.free and entry.remove():
            excess -= entry.size
            removed.append(entry)
    return removed


def refuse_too_large(name: Path, size: int, limit: int, missing: int) -> None:
    """Raise ModelError when a model of `size` bytes, of which `missing` are to be fetched, cannot
    come within the limit of the cache or on the disk, whatever is removed."""
    if size > limit:
        enough = math.ceil(size / GIB * 10) / 10
        raise ModelError(
            name,
            f"it has {gib(size)}, more than the model cache may have ({gib(limit)})",
            fix=f"Set MODEL_CACHE_MAX_GB to at least {enough}, or pull a smaller quantisation.",
        )
    there = occupants()
    kept = sum(entry.size for entry in there if not entry.free)
    if kept + missing > limit:
        raise ModelError(
            name,
            f"{gib(missing)} are missing, and {gib(kept)} of the model cache are in use, of "
            f"{gib(limit)} that it may have",
            fix="Raise MODEL_CACHE_MAX_GB, or stop the servers that use models (turbo server "
            "stop).",
        )
    removable = sum(entry.size for entry in there if entry.free)
    excess = max(0, kept + removable + missing - limit)
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(models_dir()).free
        if missing > free + excess:
            raise ModelError(
                name,
                f"{gib(missing)} are missing, and the disk of {models_dir()} has {gib(free)} free",
                fix="Make room on that disk (turbo models prune --max-gb N removes the least used "
                "models), or set XDG_CACHE_HOME to a folder on another one.",
            )


def gib(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / (1 << 20):.1f} MiB"


def _kind(model: StoredModel) -> str:
    return "not whole" if model.unfinished else "damaged"


def _remover(model: StoredModel) -> Callable[[], bool]:
    def removed() -> bool:
        try:
            return remove(model)
        except OSError:
            return False

    return removed
