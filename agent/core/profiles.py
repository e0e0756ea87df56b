"""Profiles: what a kind of machine or use asks of llama-server, in the flags of today.

They carry what guides for such machines ask for, as far as llama.cpp still has it: continuous
batching and the reuse of prompts are its default now, and flash attention is on wherever the device
can do it. A profile only says what differs from the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from agent.core.config import ProfileName

GPU_PROFILES: frozenset[ProfileName] = frozenset({"vulkan-igpu", "gpu-24gb"})
"""Profiles that make no sense without a GPU."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A value that a profile gives to a setting that is not set."""

    value: object
    why: str


_PROFILES: Mapping[ProfileName, Mapping[str, Wish]] = {
    "auto": {},
    "cpu": {
        "llamacpp_use_vulkan": Wish(value="0", why="the CPU alone"),
    },
    "vulkan-igpu": {
        "llamacpp_use_vulkan": Wish(value="1", why="the graphics must be found"),
        "llamacpp_n_gpu_layers": Wish(
            value="all", why="the GPU reads the same memory as the CPU, so no layer stays behind"
        ),
    },
    "gpu-24gb": {
        "llamacpp_n_gpu_layers": Wish(value="all", why="a layer on the CPU slows down all others"),
        "llamacpp_kv_offload": Wish(value=True, why="attention reads the cache on the GPU"),
        "llamacpp_flash_attention": Wish(
            value="on", why="a large card has it, and a quantised KV cache needs it"
        ),
        "llamacpp_batch_size": Wish(value=4096, why="a large card reads long prompts at once"),
        "llamacpp_ubatch_size": Wish(value=1024, why="large steps keep a large card busy"),
    },
    "low-latency": {
        "llamacpp_load_mode": Wish(
            value="mlock", why="weights are in memory before the first request, and stay there"
        ),
        "llamacpp_batch_size": Wish(
            value=512, why="a long prompt holds up those who write for a quarter of the time"
        ),
        "llamacpp_cache_type_k": Wish(value="f16", why="nothing to convert for each token"),
        "llamacpp_cache_type_v": Wish(value="f16", why="nothing to convert for each token"),
    },
}


def wishes(profile: ProfileName) -> Mapping[str, Wish]:
    """What the profile asks for, by the name of the setting."""
    return MappingProxyType(_PROFILES[profile])
