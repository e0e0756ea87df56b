"""What this machine gives us: cores, memory and devices, as far as we may use them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from agent.core.command import run_command
from agent.core.config import command_environment
from agent.core.control_group import MEMBERSHIP, MOUNT, cpu_quota, memory_room
from agent.core.errors import CommandError
from agent.core.llamacpp_binary import Binary
from agent.core.llamacpp_devices import Device, find_devices

_CPUINFO = Path("/proc/cpuinfo")
_TELLING = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "amx_int8", "asimd")
"""CPU features of which builds of llama.cpp depend; a CPU has a hundred more."""
_CARDS = ("nvidia[0-9]*", "kfd", "dri/renderD*", "dxg")
_CAP_IPC_LOCK = 14
"""Number of the Linux capability whose holder may lock any amount of memory."""
_NVIDIA_ASKED = ("--query-gpu=name,memory.free", "--format=csv,noheader,nounits")
_NVIDIA_LIMIT_S = 10.0
"""A driver that nobody uses is loaded for the question, which takes seconds."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The part of the machine that we may use."""

    physical_cores: int
    """Cores, not hardware threads; at least 1."""
    memory_available: int
    """Bytes that can be taken without swapping."""
    lockable: int | None = None
    """Bytes that a process may lock in memory; None: any amount."""
    cpu: str = ""
    """Its name as the system tells it."""
    cpu_features: tuple[str, ...] = ()
    """Those of which builds of llama.cpp depend."""
    devices: tuple[Device, ...] = ()
    """GPUs that the chosen binary can use."""
    devices_share_memory: bool = False
    """What a device takes is main memory."""
    cards: tuple[str, ...] = ()
    """Device files of GPUs, whether or not a driver for computing is installed."""


def read_hardware(mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> Hardware:
    """Look at the machine without its devices. `mount` is where control groups are mounted,
    `membership` tells ours; elsewhere than on Linux they are not there and bind nobody."""
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    memory = psutil.virtual_memory().available
    room = memory_room(mount, membership)
    return Hardware(
        physical_cores=max(1, min(cores, cpu_quota(mount, membership) or cores)),
        memory_available=memory if room is None else min(memory, room),
        lockable=_lockable(),
        cpu=_cpu_name(),
        cpu_features=_cpu_features(),
        cards=tuple(sorted(str(path) for name in _CARDS for path in Path("/dev").glob(name))),
    )


async def with_devices(hardware: Hardware, binary: Binary, *, cache: Path | None) -> Hardware:
    """The same machine with the devices that `binary` finds, and what is free on them now. `cache`
    is the folder of kept lists; None: the binary is asked."""
    devices = await asyncio.to_thread(find_devices, binary, cache=cache)
    if any("NVIDIA" in device.description for device in devices):
        devices = as_nvidia_says(devices, await _ask_nvidia())
    # A kept list has old amounts, and drivers differ in what they call free: the kernel knows.
    devices = tuple(
        replace(x, free=min(x.memory, hardware.memory_available)) if x.shares_memory else x
        for x in devices
    )
    shared = any(device.shares_memory for device in devices)
    return replace(hardware, devices=devices, devices_share_memory=shared)


def as_nvidia_says(devices: Sequence[Device], answer: str) -> tuple[Device, ...]:
    """What is free on NVIDIA's cards as nvidia-smi tells it, where that is less: a binary may see
    only what it takes itself."""
    told = [line.rsplit(",", 1) for line in answer.splitlines() if "," in line]
    cards = [(name.strip(), free.strip()) for name, free in told]
    corrected = []
    for device in devices:
        card = next((x for x in cards if x[0] in device.description), None)
        if card is not None:
            cards.remove(card)  # the next card of this name is another one
            if card[1].isdigit():
                device = replace(device, free=min(device.free, int(card[1]) << 20))  # noqa: PLW2901
        corrected.append(device)
    return tuple(corrected)


async def _ask_nvidia() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    with contextlib.suppress(CommandError):
        result = await run_command(
            [program, *_NVIDIA_ASKED],
            cwd=Path("/"),
            timeout_s=_NVIDIA_LIMIT_S,
            env=command_environment(),
        )
        return result.output if result.ok else ""
    return ""


def _lockable() -> int | None:
    """RLIMIT_MEMLOCK, which binds all but the holders of CAP_IPC_LOCK."""
    if not psutil.LINUX:
        return None
    limit: int = psutil.Process().rlimit(psutil.RLIMIT_MEMLOCK)[0]
    held = re.search(r"^CapEff:\s*([0-9a-f]+)$", _text(Path("/proc/self/status")), re.MULTILINE)
    if limit == psutil.RLIM_INFINITY or (held and int(held[1], 16) >> _CAP_IPC_LOCK & 1):
        return None
    return limit


def _cpu_name() -> str:
    named = re.search(r"^model name\s*:(.*)$", _text(_CPUINFO), re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()


def _cpu_features() -> tuple[str, ...]:
    listed = re.search(r"^(?:flags|Features)\s*:(.*)$", _text(_CPUINFO), re.MULTILINE)
    have = set(listed[1].split()) if listed else set()
    return tuple(name for name in _TELLING if name in have)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
