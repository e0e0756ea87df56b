"""What our control group lets us have: CPU time and memory, in versions 1 and 2 of cgroups.

A group is bound by its own limits and by those of every group above it. In a container the path
that ``/proc/self/cgroup`` names may not exist below the mount; the mount is the own group then.
psutil knows nothing of control groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def cpu_quota(mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> int | None:
    """CPUs that we may use, rounded up; None without a limit."""
    quotas = []
    for group in _groups(mount, membership, "cpu"):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            quotas.append(math.ceil(int(quota) / int(period)))
    return min(quotas, default=None)


def memory_room(mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> int | None:
    """Bytes that we may still take; None without a limit."""
    rooms = []
    for group in _groups(mount, membership, "memory"):
        limit = _read(group / "memory.max") or _read(group / "memory.limit_in_bytes")
        used = _read(group / "memory.current") or _read(group / "memory.usage_in_bytes")
        # Version 1 writes "no limit" as the largest number of pages.
        if limit.isdigit() and used.isdigit() and int(limit) < 1 << 60:
            # Pages of files that were read count as used, but give way when memory is asked for.
            # Without that the model that ran before, still in the cache, would count twice.
            rooms.append(max(0, int(limit) - int(used) + _cached(group)))
    return min(rooms, default=None)


def _cached(group: Path) -> int:
    amounts = dict(line.split(" ", 1) for line in _read(group / "memory.stat").splitlines())
    size = 0
    for name in ("inactive_file", "active_file"):
        # Version 1 counts the groups below only in the totals.
        value = amounts.get(f"total_{name}", amounts.get(name, ""))
        size += int(value) if value.isdigit() else 0
    return size


def _groups(mount: Path, membership: Path, controller: str) -> Iterator[Path]:
    """Our group and those above it, of version 1 (a mount per controller) and of version 2."""
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            yield from _upwards(mount, path)
        elif controller in controllers.split(","):
            yield from _upwards(mount / controller, path)
    yield mount
    yield mount / controller


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    group = mount / path.lstrip("/")
    while mount in group.parents and ".." not in group.parts:
        yield group
        group = group.parent


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
