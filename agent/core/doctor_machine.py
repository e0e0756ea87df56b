"""What the machine offers besides a server: CPU, memory, sandbox, git and disk."""

from __future__ import annotations

import platform
import re
import shutil
from pathlib import Path

from agent.core.command import run_command
from agent.core.doctor_check import Check, failed, warned
from agent.core.errors import CommandError
from agent.core.hardware import Hardware
from agent.core.launch_ladder import given_up
from agent.core.launch_plan import gib
from agent.core.sandbox_choice import find_bubblewrap
from agent.core.server_launching import Prepared

_LIMIT_S = 10.0
_OLDEST_GIT = (2, 28)
_NO_SANDBOX = "test commands run with your rights"
_FULL = 1 << 30
_CRAMPED = 5 << 30
"""Bytes that are free on a disk: below the first nothing works for long."""


def check_cpu(hardware: Hardware) -> Check:
    """Cores and features. Whether the binary fits them shows when it is started."""
    features = hardware.cpu_features
    found = f"{hardware.physical_cores} cores ({' '.join(features) or 'features unknown'})"
    details = {"cores": hardware.physical_cores, "features": list(features)}
    if platform.machine() in ("x86_64", "AMD64") and features and "avx2" not in features:
        fix = "Use a small model (1.5B at most), or a machine with AVX2."
        return warned("CPU", f"{found}; without AVX2 it is slow", fix, details)
    return Check(name="CPU", state="ok", found=found, details=details)


def check_memory(prepared: Prepared) -> Check:
    """What the server takes, as estimated, against what is free."""
    memory, ladder = prepared.ladder.estimate, prepared.ladder
    found = f"{gib(memory.needed('memory'))} needed, {gib(memory.free_in('memory'))} free"
    if memory.needed("device"):
        found += (
            f"; on devices {gib(memory.needed('device'))} needed, "
            f"{gib(memory.free_in('device'))} free"
        )
    details = {
        "needed": memory.needed("memory"),
        "free": memory.free_in("memory"),
        "device_needed": memory.needed("device"),
        "device_free": memory.free_in("device"),
    }
    less = given_up(ladder.asked, ladder.rung.shape)
    if less or not memory.fits:
        fix = "Close other programs, or set less: a smaller model, context or number of slots."
        gave = f"; therefore {less}" if less else ""
        return warned("memory", found + gave, fix, details)
    return Check(name="memory", state="ok", found=found, details=details)


async def check_sandbox() -> Check:
    """Whether bubblewrap is there and may do its work."""
    found = await find_bubblewrap()
    if found.program is None:
        return warned("sandbox", f"{found.reason}: {_NO_SANDBOX}", found.fix)
    return Check(name="sandbox", state="ok", found="bubblewrap works: commands are isolated")


async def check_git() -> Check:
    """Whether git is there, and not too old."""
    name, oldest = "git", ".".join(map(str, _OLDEST_GIT))
    fix = f"Install git {oldest} or newer."
    try:
        result = await run_command(("git", "--version"), cwd=Path("/"), timeout_s=_LIMIT_S)
    except CommandError as error:
        return failed(name, error)
    version = re.search(r"(\d+)\.(\d+)[\w.]*", result.output)
    if not result.ok or version is None:
        return Check(name=name, state="failure", found="git --version fails", fix=fix)
    details = {"version": version[0]}
    old = (int(version[1]), int(version[2])) < _OLDEST_GIT
    return Check(
        name=name,
        state="failure" if old else "ok",
        found=f"{version[0]}, older than {oldest}" if old else version[0],
        fix=fix if old else "",
        details=details,
    )


def check_disk(what: str, path: Path) -> Check:
    """Room on the disk of `path`, or of the nearest folder above that exists."""
    name = f"disk of the {what}"
    there = next((x for x in (path, *path.absolute().parents) if x.exists()), Path("/"))
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return warned(name, f"{there}: {error.strerror or error}", "Make the folder readable.")
    found, details = f"{gib(free)} free at {there}", {"path": str(there), "free": free}
    fix = f"Make room there{' (turbo prefixes prune)' if what == 'cache' else ''}."
    if free < _FULL:
        return Check(name=name, state="failure", found=found, fix=fix, details=details)
    if free < _CRAMPED:
        return warned(name, found, fix, details)
    return Check(name=name, state="ok", found=found, details=details)
