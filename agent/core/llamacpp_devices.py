"""The devices that a llama-server finds: GPUs, as it names them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.core.llamacpp_binary import Binary, list_devices

_LINE = re.compile(r"^\s+(\S+): (.+) \((\d+) MiB, (\d+) MiB free\)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Device:
    """A GPU."""

    name: str
    """As ``--device`` takes it: ``Vulkan0``, ``CUDA0``."""
    description: str
    memory: int
    """Bytes that it has."""
    free: int
    """Bytes of it that were free when the binary was asked."""


def find_devices(binary: Binary, *, limit_s: float = 30.0) -> tuple[Device, ...]:
    """The devices that `binary` finds now; none when it cannot tell."""
    return parse_devices(list_devices(binary, limit_s=limit_s))


def parse_devices(output: str) -> tuple[Device, ...]:
    """Read the output of ``--list-devices``."""
    return tuple(
        Device(name=name, description=text, memory=int(total) << 20, free=int(free) << 20)
        for name, text, total, free in _LINE.findall(output)
    )
