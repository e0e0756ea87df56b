"""The rung of the ladder on which a model started last, for this machine, model and wish.

Only a rung below the first counts, for an hour, under the same limits of the process, and only
while there is not more memory free than when it was needed: a machine that has room again gets what
was asked for.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from agent.core.answer_cache import entry_of, remember, remembered
from agent.core.hardware import Hardware
from agent.core.launch_ladder import Ladder, mark_of
from agent.core.launch_shape import Basis

_MORE = 1.1
"""Times the memory that was free then: what is free moves a little all the time."""
_KEPT_S = 3600.0
"""Seconds. What is free does not tell why memory was short; trying again costs one start."""


def recall(folder: Path, basis: Basis, ladder: Ladder) -> Path | None:
    """Take `ladder` down to the remembered rung, if there is one below; the file that holds it when
    it did."""
    question = _question(basis, ladder)
    kept = remembered(folder, question) or {}
    mark, then = kept.get("rung"), kept.get("free")
    if not isinstance(mark, dict) or not isinstance(then, list) or mark == ladder_mark(ladder):
        return None
    since = kept.get("time")
    if not isinstance(since, int | float) or not 0 <= time.time() - since < _KEPT_S:
        return None
    now = _free(basis.hardware)
    if len(then) != len(now) or any(
        not isinstance(before, int) or free > before * _MORE
        for free, before in zip(now, then, strict=True)
    ):
        return None
    return entry_of(folder, question) if ladder.descend_to(mark) else None


def keep(folder: Path, basis: Basis, ladder: Ladder) -> None:
    """Remember the rung on which the server started."""
    mark = mark_of(ladder.rung.shape)
    answer = {"rung": mark, "free": _free(basis.hardware), "time": time.time()}
    remember(folder, _question(basis, ladder), answer)


def ladder_mark(ladder: Ladder) -> Mapping[str, Any]:
    """The mark of the rung on which `ladder` stands."""
    return mark_of(ladder.rung.shape)


def _free(hardware: Hardware) -> list[int]:
    return [hardware.memory_available, *(device.free for device in hardware.devices)]


def _question(basis: Basis, ladder: Ladder) -> str:
    """Another one for another machine, model, binary or wish."""
    try:
        about = basis.model.stat()
        model = [str(basis.model.resolve()), about.st_size, about.st_mtime_ns]
    except OSError:
        model = [str(basis.model)]
    hardware = basis.hardware
    machine: list[object] = [psutil.virtual_memory().total, hardware.physical_cores]
    machine += [device.name for device in hardware.devices]
    machine += [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    binary = [str(basis.binary.path), basis.binary.stamp]
    return json.dumps(["rung", machine, binary, model, mark_of(ladder.asked)])
