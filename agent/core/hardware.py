"""What this machine gives us: cores and memory, as far as affinity and cgroup let us use them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The part of the machine that we may use."""

    physical_cores: int
    """Cores, not hardware threads; at least 1."""
    memory_available: int
    """Bytes that can be taken without swapping."""


def read_hardware(cgroup: Path = _CGROUP) -> Hardware:
    """Look at the machine. `cgroup` is the folder of our control group (version 2), as a container
    sees its own; elsewhere its limits are not there and count as none."""
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    memory = psutil.virtual_memory().available
    return Hardware(
        physical_cores=max(1, min(cores, _quota(cgroup) or cores)),
        memory_available=min(memory, _room(cgroup, memory)),
    )


def _quota(cgroup: Path) -> int | None:
    """CPUs that the control group may use, rounded up; None without a limit."""
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None
    return math.ceil(int(quota) / int(period))


def _room(cgroup: Path, otherwise: int) -> int:
    limit, used = _read(cgroup / "memory.max"), _read(cgroup / "memory.current")
    if not (limit.isdigit() and used.isdigit()):
        return otherwise
    # Pages of files that were read count as used, but give way when memory is asked for.
    cached = 0
    for line in _read(cgroup / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file" and value.isdigit():
            cached = int(value)
    return max(0, int(limit) - int(used) + cached)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
