"""What is given up, and in which order, when memory does not suffice. Pure.

Load mode, context per slot, slots, layers on a device, and at last a smaller quantisation of the
same model. The first rung that the estimate finds room for is taken before anything is started;
when a server dies for want of memory all the same, the next one.

Less context and fewer slots make the team worse. So where they do not make up for what a device
lacks, they are given back, and layers go instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from agent.core.config import LoadMode
from agent.core.gguf_info import GgufInfo
from agent.core.hardware import Hardware
from agent.core.memory_estimate import (
    MemoryEstimate,
    Shape,
    estimate,
    padded,
    weights_in_main_memory,
)

_LESS_DEMANDING: Mapping[LoadMode, tuple[LoadMode, ...]] = {
    "mlock": ("none", "mmap"),
    "mmap+mlock": ("mmap",),
    "none": ("mmap",),
    "dio": ("mmap",),
}

Kind = Literal["asked", "KV type", "load mode", "context", "slots", "GPU layers", "quantisation"]


@dataclass(frozen=True, kw_only=True)
class Ways:
    """What may be given up, as far as settings, binary and machine allow it."""

    least_context: int = 2048
    """Tokens of a slot; what is asked of the model does not fit into less."""
    quantise_kv: bool = False
    """The profile takes q8_0 for the KV cache where it buys context."""
    server_fits_layers: bool = True
    """The binary chooses the number of layers when it is not told one."""
    cpu_alone: bool = True
    """It may end up without a device."""
    smaller: Callable[[], Iterable[tuple[Path, GgufInfo]]] = tuple
    """Smaller quantisations of the same model, the largest first; asked for last."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One step of the ladder."""

    kind: Kind
    shape: Shape


def rungs(asked: Shape, hardware: Hardware, ways: Ways) -> Iterator[Rung]:
    """All shapes to be tried, `asked` first."""
    yield Rung(kind="asked", shape=asked)
    yield from _below(asked, hardware, ways)
    for model, info in ways.smaller():
        context = min(asked.context, info.context_length or asked.context)
        other = replace(asked, model=model, info=info, context=context)
        yield Rung(kind="quantisation", shape=other)
        yield from _below(other, hardware, ways)


def _below(asked: Shape, hardware: Hardware, ways: Ways) -> Iterator[Rung]:
    shape = asked
    if ways.quantise_kv:
        shape = replace(shape, cache_type_k="q8_0", cache_type_v="q8_0")
        yield Rung(kind="KV type", shape=shape)
    for mode in _LESS_DEMANDING.get(asked.load_mode, ()):
        shape = replace(shape, load_mode=mode)
        yield Rung(kind="load mode", shape=shape)
    roomy = shape
    while shape.context > ways.least_context:
        shape = replace(shape, context=max(ways.least_context, padded(shape.context // 2)))
        yield Rung(kind="context", shape=shape)
    while shape.slots > 1:
        shape = replace(shape, slots=shape.slots // 2)
        yield Rung(kind="slots", shape=shape)
    if shape.devices and hardware.devices and shape.gpu_layers != 0:
        for fewer in _fewer_layers(roomy, ways):
            yield Rung(kind="GPU layers", shape=fewer)


def _fewer_layers(shape: Shape, ways: Ways) -> Iterator[Shape]:
    most = shape.info.block_count + 1
    if shape.gpu_layers != "auto":
        if ways.server_fits_layers:
            yield replace(shape, gpu_layers="auto")
        else:
            now = most if shape.gpu_layers == "all" else min(shape.gpu_layers, most)
            yield from (replace(shape, gpu_layers=now * part // 4) for part in (3, 2, 1))
    if ways.cpu_alone:
        yield replace(shape, devices=False)


class Ladder:
    """The way down, and where we are on it."""

    def __init__(self, asked: Shape, hardware: Hardware, ways: Ways) -> None:
        self._hardware = hardware
        self._all = rungs(asked, hardware, ways)
        self._seen: list[Rung] = []
        self._at = 0
        self._settle()

    @property
    def rung(self) -> Rung:
        """The one to try."""
        return self._seen[self._at]

    @property
    def estimate(self) -> MemoryEstimate:
        """Its memory."""
        return estimate(self.rung.shape, self._hardware)

    @property
    def asked(self) -> Shape:
        """What settings and profile ask for."""
        return self._seen[0].shape

    def descend(self) -> bool:
        """Go to the next rung; False, and nothing changes, when there is none left."""
        if self._at + 1 == len(self._seen):
            following = next(self._all, None)
            if following is None:
                return False
            self._seen.append(following)
        self._at += 1
        return True

    def descend_to(self, mark: Mapping[str, Any]) -> bool:
        """Go down to the rung of this `mark_of`; False, and nothing changes, without one."""
        for index in range(self._at, len(self._seen)):
            if mark_of(self._seen[index].shape) == mark:
                self._at = index
                return True
        for rung in self._all:
            self._seen.append(rung)
            if mark_of(rung.shape) == mark:
                self._at = len(self._seen) - 1
                return True
        return False

    def _settle(self) -> None:
        """The first rung that fits; else the first with which a server starts; else the last."""
        starting = None
        for index, rung in enumerate(self._all):
            self._seen.append(rung)
            self._at = index
            if may_lock(rung.shape, self._hardware):
                needs = estimate(rung.shape, self._hardware)
                if needs.fits:
                    return
                if needs.starts and starting is None:
                    starting = index
        self._at = self._at if starting is None else starting


def may_lock(shape: Shape, hardware: Hardware) -> bool:
    """Whether the system lets us lock what is to be locked. llama-server only warns of it."""
    if not shape.locks or hardware.lockable is None:
        return True
    return weights_in_main_memory(shape, hardware) <= hardware.lockable


def mark_of(shape: Shape) -> dict[str, Any]:
    """What tells one rung from the others; JSON values."""
    return {
        "model": shape.model.name,
        "context": shape.context,
        "slots": shape.slots,
        "load_mode": shape.load_mode,
        "layers": shape.gpu_layers if shape.devices else "none",
        "cache": [shape.cache_type_k, shape.cache_type_v],
    }


def given_up(asked: Shape, shape: Shape) -> str:
    """What `shape` has less than `asked`, in words; empty when they are the same."""
    lines = []
    if shape.model != asked.model:
        lines.append(f"{shape.model.name} instead of {asked.model.name}")
    if (shape.cache_type_k, shape.cache_type_v) != (asked.cache_type_k, asked.cache_type_v):
        lines.append(f"a KV cache in {shape.cache_type_k} instead of {asked.cache_type_k}")
    if shape.load_mode != asked.load_mode:
        lines.append(f"load mode {shape.load_mode} instead of {asked.load_mode}")
    if shape.context != asked.context:
        lines.append(f"{shape.context} tokens per slot instead of {asked.context}")
    if shape.slots != asked.slots:
        lines.append(f"{shape.slots} of {asked.slots} slots")
    if shape.devices != asked.devices:
        lines.append("the CPU alone")
    elif shape.gpu_layers != asked.gpu_layers:
        now = "as many GPU layers as fit" if shape.gpu_layers == "auto" else shape.gpu_layers
        lines.append(f"{now} instead of {asked.gpu_layers}")
    return ", ".join(lines)
