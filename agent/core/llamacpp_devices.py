"""The devices that a llama-server finds: GPUs, as it names them.

Asking starts the drivers, which takes 10 to 30 ms without a GPU, twice that with Mesa's software
Vulkan and a good part of a second with some. A list that says nothing that changes by itself is
kept: one of devices that share the memory of the CPU, of which the kernel tells what is free. It
may still change without the binary: with a driver, a variable that hides devices, a card. So it is
kept until one of their traces changes, and an empty one is not kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.core.answer_cache import remember, remembered
from agent.core.config import data_dir, environment_for
from agent.core.llamacpp_ask import Unusable, ask
from agent.core.llamacpp_binary import Binary

_LINE = re.compile(r"^\s+(\w+): (.+) \((\d+) MiB, (\d+) MiB free\)$", re.MULTILINE)

_VARIABLES = (
    *("GGML_", "CUDA_", "HIP_", "ROCR_", "HSA_", "NVIDIA_", "VK_", "MESA_", "DRI_PRIME"),
    *("LD_LIBRARY_PATH", "XDG_"),
)
"""Beginnings of the names of variables by which drivers show, hide and order devices."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_TRACES = (
    "/etc/ld.so.cache",  # rewritten whenever a package brings or takes libraries
    *("/usr/share/vulkan/icd.d/*", "/usr/local/share/vulkan/icd.d/*", "/etc/vulkan/icd.d/*"),
    *("/dev/dri/*", "/dev/nvidia*", "/dev/kfd", "/dev/dxg"),
)
"""Files by which a new driver or card can be told."""

_INTEGRATED = re.compile(
    r"llvmpipe|SwiftShader|Apple|Adreno|Mali|\bIris|HD Graphics|Arc\(tm\) Graphics"
    r"|Radeon(\(TM\))? (Vega \d+ )?Graphics|Radeon(\(TM\))? \d{3}M\b",
    re.IGNORECASE,
)
"""Names of GPUs without memory of their own. --list-devices does not tell the kind."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """A GPU."""

    name: str
    """As ``--device`` takes it: ``Vulkan0``, ``CUDA0``."""
    description: str
    memory: int
    """Bytes that it has."""
    free: int
    """Bytes of it that were free when the binary was asked; see `find_devices`."""

    @property
    def shares_memory(self) -> bool:
        """What it takes is main memory, as far as its name tells."""
        return _INTEGRATED.search(self.description) is not None


def find_devices(
    binary: Binary, *, cache: Path | None = None, limit_s: float = 30.0
) -> tuple[Device, ...]:
    """The devices that `binary` finds; none when it cannot tell.

    With a `cache` folder a kept list will do. It has only devices that share main memory, and what
    was free of that may be another amount now.
    """
    if not binary.knows("--list-devices"):
        return ()
    question = f"devices of {binary.path}"
    mark = f"{binary.stamp} {_machine()}"
    if cache is not None and (kept := _kept(cache, question, mark)):
        return kept
    try:
        found = parse_devices(ask(binary.command, "--list-devices", binary.environment, limit_s))
    except Unusable:
        return ()
    if cache is not None and found and all(device.shares_memory for device in found):
        remember(cache, question, {"mark": mark, "devices": [asdict(x) for x in found]})
    return found


def parse_devices(output: str) -> tuple[Device, ...]:
    """Read the output of ``--list-devices``."""
    return tuple(
        Device(name=name, description=text, memory=int(total) << 20, free=int(free) << 20)
        for name, text, total, free in _LINE.findall(output)
    )


def _kept(cache: Path, question: str, mark: str) -> tuple[Device, ...]:
    answer = remembered(cache, question) or {}
    if answer.get("mark") != mark:
        return ()
    try:
        return tuple(Device(**each) for each in answer["devices"])
    except (KeyError, TypeError):
        return ()


def _machine() -> str:
    """Changes with drivers, cards and the variables that hide them."""
    environment = environment_for()
    marks = [f"{k}={environment[k]}" for k in sorted(environment) if k.startswith(_VARIABLES)]
    marks += sorted(_traces())
    with contextlib.suppress(OSError):
        marks.append(_BOOT.read_text(encoding="ascii"))
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()


def _traces() -> Iterator[str]:
    for pattern in (*_TRACES, f"{data_dir().parent}/vulkan/icd.d/*"):
        for path in Path("/").glob(pattern[1:]):
            try:
                about = path.stat()
                yield f"{path}|{about.st_mtime_ns if path.is_file() else ''}"
            except OSError:
                yield str(path)
