"""How much memory a launch takes, told before it is started. Pure.

The KV cache is exact: llama.cpp allocates it whole at the start. What computing takes follows the
graph of a decoder with a gated feed-forward part: its widest place decides, per token of a physical
batch (docs/decisions/013 has the errors that were measured). Weights that are mapped from their
file need memory too, or every token reads them again, but a server starts without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.core.config import CacheType, LoadMode
from agent.core.gguf_info import GgufInfo
from agent.core.hardware import Hardware

Place = Literal["memory", "device"]
PLACES: tuple[Place, ...] = ("memory", "device")

_BYTES_OF: dict[CacheType, float] = {
    "f32": 4,
    "f16": 2,
    "bf16": 2,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}
"""Of one element; quantised types hold 32 elements and their scales in a block."""

PADDING = 256
"""The server rounds the context of a slot up to this many tokens (rule 2)."""
_SERVER = 32 << 20
"""Bytes of llama-server itself, libraries included; measured with b10434."""
_PER_TOKEN_OF_VOCABULARY = 190
"""Bytes; measured with 2,048 and 151,936 tokens."""
_DRIVER = 80 << 20
"""Bytes of main memory that the driver of a device takes; measured with Mesa's llvmpipe."""
_SPARE = 20
"""One part in so many stays free: the estimate is off by a few percent, and so is what is free."""
_LEFT_TO_THE_DEVICE = 1 << 30
"""Bytes that llama-server leaves free on a device when it chooses the layers (--fit-target)."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What of a launch decides about its memory."""

    model: Path
    info: GgufInfo
    context: int
    """Tokens of one slot."""
    slots: int
    load_mode: LoadMode
    devices: bool
    """False: the CPU alone."""
    gpu_layers: Literal["auto", "all"] | int
    kv_offload: bool
    cache_type_k: CacheType
    cache_type_v: CacheType
    flash_attention: bool
    ubatch: int

    @property
    def locks(self) -> bool:
        """Weights are to be locked in memory."""
        return "mlock" in self.load_mode

    @property
    def maps(self) -> bool:
        """Weights on the CPU are pages of their file, which can be dropped and read again."""
        return self.load_mode in {"auto", "mmap"}


@dataclass(frozen=True, kw_only=True)
class Part:
    """Something that takes memory."""

    name: str
    place: Place
    size: int
    """Bytes."""


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """What a launch takes and what is free, in bytes."""

    parts: tuple[Part, ...]
    kv_per_slot: int
    gpu_layers: int
    """Layers that are expected on a device, the output layer counted as one."""
    mapped: int
    """Of main memory, weights that a server can start without."""
    free: int
    """Main memory."""
    device_free: int
    """Of all devices together."""
    shared: bool
    """The device's memory is main memory."""

    def needed(self, place: Place) -> int:
        """Bytes there."""
        own = sum(part.size for part in self.parts if part.place == place)
        if place == "memory" and self.shared:
            own += self.needed("device")
        return own

    def free_in(self, place: Place) -> int:
        """Bytes there that nobody has taken."""
        return self.free if place == "memory" else self.device_free

    def fits_in(self, place: Place, *, without: int = 0) -> bool:
        """Whether there is room for all but `without` bytes of it."""
        needed = self.needed(place) - without
        return not needed or needed + needed // _SPARE <= self.free_in(place)

    @property
    def fits(self) -> bool:
        """Everything stays in memory."""
        return self.fits_in("memory") and self.fits_in("device")

    @property
    def starts(self) -> bool:
        """What must be there at the start fits; mapped weights may be read again and again."""
        return self.fits_in("memory", without=self.mapped) and self.fits_in("device")


def padded(tokens: int) -> int:
    """The context that the server gives to a slot that asks for `tokens`."""
    return -(-tokens // PADDING) * PADDING


def estimate(shape: Shape, hardware: Hardware) -> MemoryEstimate:
    """The memory of `shape` on `hardware`."""
    layers = _layers(shape, hardware)
    device = _on_device(shape, layers) if layers else {}
    main = _in_main_memory(shape, layers)
    if layers:
        main["driver of the device"] = _DRIVER
    parts = [Part(name=name, place="device", size=size) for name, size in device.items()]
    parts += [Part(name=name, place="memory", size=size) for name, size in main.items()]
    return MemoryEstimate(
        parts=tuple(part for part in parts if part.size),
        kv_per_slot=_kv_per_slot(shape),
        gpu_layers=layers,
        mapped=main["weights"] - _repacked(shape.info, layers) if shape.maps else 0,
        free=hardware.memory_available,
        device_free=sum(device.free for device in hardware.devices),
        shared=hardware.devices_share_memory,
    )


def weights_in_main_memory(shape: Shape, hardware: Hardware) -> int:
    """Bytes of weights that the CPU reads, those that can be locked."""
    return _in_main_memory(shape, _layers(shape, hardware))["weights"]


def _layers(shape: Shape, hardware: Hardware) -> int:
    """Layers on a device, as llama-server counts them: the output layer is the last one."""
    if not (shape.devices and hardware.devices):
        return 0
    most = shape.info.block_count + 1
    if shape.gpu_layers == "all":
        return most
    if shape.gpu_layers != "auto":
        return min(shape.gpu_layers, most)
    free = sum(device.free for device in hardware.devices) - _LEFT_TO_THE_DEVICE
    fitting = (n for n in range(most, 0, -1) if sum(_on_device(shape, n).values()) <= free)
    return next(fitting, 0)


def _on_device(shape: Shape, layers: int) -> dict[str, int]:
    share = _share(shape.info, layers)
    # What lies on the other side is copied for each step.
    copies = 2 if share < 1 else 1 if shape.kv_offload else 1.5
    return {
        "weights": _offloaded(shape.info, layers),
        "KV cache": int(_kv_cache(shape) * share) if shape.kv_offload else 0,
        "computing": int(_computing(shape) * copies),
    }


def _in_main_memory(shape: Shape, layers: int) -> dict[str, int]:
    info = shape.info
    offloaded = _offloaded(info, layers)
    # Weights that both sides need (the embedding of a tied model) are on both.
    twice = info.input_bytes if info.tied and layers else 0
    share = _share(info, layers) if shape.kv_offload else 0
    return {
        "weights": (info.model_size or info.file_size) - offloaded + twice,
        "KV cache": _kv_cache(shape) - int(_kv_cache(shape) * share),
        "computing": _masks(shape) + 8 * info.embedding_length * shape.ubatch
        if layers
        else _computing(shape),
        "answers": 4 * info.vocabulary * shape.slots,
        "server": _SERVER + _PER_TOKEN_OF_VOCABULARY * info.vocabulary,
    }


def _offloaded(info: GgufInfo, layers: int) -> int:
    """Bytes of weights on devices."""
    if not layers:
        return 0
    whole = info.model_size or info.file_size
    # Of a split model the first part stands for all.
    scale = whole / info.file_size if info.file_size else 1
    output = whole - (info.layer_bytes + info.input_bytes * (not info.tied)) * scale
    return int(output + info.layer_bytes * scale * _share(info, layers))


def _repacked(info: GgufInfo, layers: int) -> int:
    """Bytes of weights on the CPU that are a copy in another order, not pages of their file."""
    scale = (info.model_size or info.file_size) / info.file_size if info.file_size else 1
    return int(info.repacked_bytes * scale * (1 - _share(info, layers)))


def _share(info: GgufInfo, layers: int) -> float:
    """Of all layers with a KV cache, the part that is on devices."""
    return min(1.0, (layers - 1) / info.block_count) if layers and info.block_count else 0.0


def _kv_cache(shape: Shape) -> int:
    return _kv_per_slot(shape) * shape.slots


def _kv_per_slot(shape: Shape) -> int:
    keys, values = shape.info.key_values
    each = keys * _BYTES_OF[shape.cache_type_k] + values * _BYTES_OF[shape.cache_type_v]
    return int(each * padded(shape.context))


def _computing(shape: Shape) -> int:
    """The widest place of the graph, in floats of one token, times the tokens computed at once."""
    info = shape.info
    feed_forward = 3 * info.feed_forward_length + 4 * info.embedding_length
    attention = 5 * info.embedding_length + info.head_count_kv * (
        info.key_length + info.value_length
    )
    if not shape.flash_attention:
        attention += info.head_count * padded(shape.context)
    widest = max(4 * feed_forward * shape.ubatch, 4 * attention * shape.ubatch + _copies(shape))
    return widest + _masks(shape)


def _copies(shape: Shape) -> int:
    """Flash attention reads no f32, so the cache of a layer is copied to f16, all slots of it."""
    if not shape.flash_attention or not shape.info.block_count:
        return 0
    pairs = zip((shape.cache_type_k, shape.cache_type_v), shape.info.key_values, strict=True)
    elements = sum(count for kind, count in pairs if kind == "f32") // shape.info.block_count
    return 2 * elements * padded(shape.context) * shape.slots


def _masks(shape: Shape) -> int:
    """Which token sees which, for one slot."""
    return (2 if shape.flash_attention else 4) * padded(shape.context) * shape.ubatch
