"""Where a running llama-server really keeps model and KV cache, read from its log. Pure.

``offloaded 25/25 layers to GPU`` is printed without any GPU as well (llama_server_facts.md, rule
15). What proves something are the buffers: each line names the device that it was allocated on.
Newer builds print these lines at verbosity 4 only, which the launch plan asks for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_FOUND = (
    re.compile(r"\s- (\w+)\s*: (.+) \(\d+ MiB, \d+ MiB free\)$", re.MULTILINE),
    re.compile(r"using device (\w+) \((.+?)\)(?: \([\w:. ]+\))? - \d+ MiB free$", re.MULTILINE),
)
"""Lines below ``device_info:``, and what builds before it say of a device."""
_BUFFER = re.compile(
    r"(?P<name>[\w.:\[\]]+) (?P<kind>model|KV|RS|compute) buffer size =\s+(?P<size>[\d.]+) MiB"
)
"""RS: the state of recurrent layers, which is their KV cache."""
_LAYERS = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")
_LOADING = "load_tensors: loading model tensors"
"""Fitting layers to a device loads the model for a look first; only the last load counts."""
_ON_CPU = re.compile(r"^(CPU|AMX|BLAS|ACCEL)|_Host$")
"""Buffers in main memory. A `Host` buffer is one that a GPU reads from."""


@dataclass(frozen=True, kw_only=True)
class Buffers:
    """What lies on one device, in bytes."""

    device: str
    """As llama-server names it (``Vulkan0``); ``CPU`` is main memory."""
    description: str = ""
    """Of the device; empty when the log does not tell it."""
    model: int = 0
    kv: int = 0
    compute: int = 0


@dataclass(frozen=True, kw_only=True)
class GpuTruth:
    """What the log of a server that is ready says."""

    buffers: tuple[Buffers, ...] = ()
    """One per device that the server saw, GPUs first, used or not; the CPU last."""
    layers: int = 0
    """Layers on GPUs, the output layer counted as one; 0 without a buffer there."""
    of: int = 0
    """Layers that the model has, counted alike."""

    @property
    def told(self) -> bool:
        """Whether the log names buffers at all."""
        return any(x.model for x in self.buffers)

    @property
    def gpus(self) -> tuple[Buffers, ...]:
        """The GPUs that the server saw."""
        return tuple(x for x in self.buffers if x.device != "CPU")

    @property
    def used(self) -> tuple[Buffers, ...]:
        """GPUs that hold a part of the model or its cache."""
        return tuple(x for x in self.gpus if x.model or x.kv)

    @property
    def cpu(self) -> Buffers:
        """Main memory."""
        return next((x for x in self.buffers if x.device == "CPU"), Buffers(device="CPU"))


def parse_truth(log: str) -> GpuTruth:
    """Read the log of a server that has become ready."""
    descriptions = {_device_of(name): text for found in _FOUND for name, text in found.findall(log)}
    load = log[max(0, log.rfind(_LOADING)) :]
    sizes: dict[str, Counter[str]] = {name: Counter() for name in descriptions}
    for found in _BUFFER.finditer(load):
        device = _device_of(found["name"])
        kind = "KV" if found["kind"] == "RS" else found["kind"]
        sizes.setdefault(device, Counter())[kind] += round(float(found["size"]) * (1 << 20))
    buffers = tuple(
        Buffers(
            device=name,
            description=descriptions.get(name, ""),
            model=sizes[name]["model"],
            kv=sizes[name]["KV"],
            compute=sizes[name]["compute"],
        )
        for name in sorted(sizes, key=lambda x: (x == "CPU", x))
    )
    truth = GpuTruth(buffers=buffers)
    told = _LAYERS.search(load)
    if told is None:
        return truth
    on_gpus = int(told[1]) if any(x.model for x in truth.used) else 0
    return GpuTruth(buffers=buffers, layers=on_gpus, of=int(told[2]))


def _device_of(buffer: str) -> str:
    return "CPU" if _ON_CPU.search(buffer) else buffer.partition("_")[0]


def mib(size: int) -> str:
    """A number of bytes, for people."""
    return f"{size / (1 << 20):,.0f} MiB"


def describe(truth: GpuTruth) -> str:
    """What lies where, in one line; empty when the log does not tell."""
    if not truth.told:
        return ""
    layers = f"{truth.layers} of {truth.of} layers"
    together = len(truth.used) > 1
    parts = [f"{layers} on GPUs"] if together else []
    for each in (*truth.used, truth.cpu):
        held = [] if together or each.device == "CPU" else [layers]
        held += [f"{what} {mib(x)}" for what, x in (("model", each.model), ("KV", each.kv)) if x]
        about = f" ({each.description})" if each.description and each.device != "CPU" else ""
        if held:
            parts.append(f"{each.device}{about}: {', '.join(held)}")
    return "; ".join(parts)


def names_of(gpus: Iterable[Buffers]) -> str:
    """Their names, for people."""
    return " and ".join(x.device for x in gpus)
