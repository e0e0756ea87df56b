"""Which models of the catalogue suit a machine, by the estimate that plans launches, too. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.core.config import Settings
from agent.core.gguf_info import GgufInfo
from agent.core.hardware import Hardware
from agent.core.memory_estimate import PLACES, Shape, estimate
from agent.core.model_catalogue import Entry, Network
from agent.core.model_room import gib

_QUICK_BYTES = 6 << 30
"""Weights that a CPU may read for a token before we call it slow: a 7B in Q4 is below, a 14B above.
A judgement, as are those for few cores; `turbo bench` measures."""
_QUICK_BYTES_PER_CORE = 3 << 29
"""Of it, for each core but the first: with four cores a 7B is quick, with two a 1.5B, and neither a
4B nor a mixture of experts that reads 3B of 30B."""
_QUICK_BYTES_OF_ONE_CORE = 3 << 28
_CLASSES = (2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""GiB of memory that machines come with."""
_FREE_PART = 3 / 4
"""Of a machine's memory, what is free for a model while people work on it."""

Verdict = Literal["fits", "slow", "too large", "unknown"]
_ORDER: tuple[Verdict, ...] = ("fits", "slow", "too large", "unknown")


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What is to be said of a model on a machine."""

    entry: Entry
    verdict: Verdict
    why: str
    needed: int | None
    """Bytes of memory, devices included; None where the catalogue does not know its size."""

    @property
    def memory_class(self) -> int | None:
        """GiB of the smallest usual machine that has them free."""
        if self.needed is None:
            return None
        return next((x for x in _CLASSES if (x << 30) * _FREE_PART >= self.needed), None)


def advise(entries: Iterable[Entry], hardware: Hardware, settings: Settings) -> list[Advice]:
    """The models, the best that fits first, then those that are slow here, then too large ones."""
    found = [_advice(entry, hardware, settings) for entry in entries]
    return sorted(found, key=lambda each: _ORDER.index(each.verdict))


def best_fitting(entries: Iterable[Entry], hardware: Hardware, settings: Settings) -> Entry | None:
    """The one to be recommended first; None where none fits."""
    first = next(iter(advise(entries, hardware, settings)), None)
    return first.entry if first and first.verdict == "fits" else None


def _advice(entry: Entry, hardware: Hardware, settings: Settings) -> Advice:
    if entry.size is None:
        why = "the catalogue has no source for its size; a pull tells it"
        return Advice(entry=entry, verdict="unknown", why=why, needed=None)
    if entry.network is None:
        why = "the catalogue does not know its network; a pull tells it"
        return Advice(entry=entry, verdict="unknown", why=why, needed=None)
    shape = _shape(entry, entry.network, entry.size, hardware, settings)
    memory = estimate(shape, hardware)
    needed = memory.needed("memory") + (0 if memory.shared else memory.needed("device"))
    if not memory.fits:
        bare = all(memory.needed(place) <= memory.free_in(place) for place in PLACES)
        kept = " when a twentieth of it is kept in reserve" if bare else ""
        why = f"more than is free{kept}; the weights alone have {gib(entry.size)}"
        return Advice(entry=entry, verdict="too large", why=why, needed=needed)
    on_cpu = 1 - min(1.0, memory.gpu_layers / (shape.info.block_count + 1))
    read = round(entry.size * on_cpu * (entry.active or entry.parameters) / entry.parameters)
    if read > _quick_bytes(hardware.physical_cores):
        cores = hardware.physical_cores
        who = "1 core reads" if cores == 1 else f"{cores} cores read"
        why = f"fits, but {who} {gib(read)} of weights for every token"
        return Advice(entry=entry, verdict="slow", why=why, needed=needed)
    where = "fits on the GPU" if on_cpu == 0 else "fits, partly on the GPU"
    why = where if memory.gpu_layers else "fits"
    return Advice(
        entry=entry,
        verdict="fits",
        why=f"{why}; {entry.note}" if entry.note else why,
        needed=needed,
    )


def _quick_bytes(cores: int) -> int:
    """Weights that so many cores may read for a token before we call it slow."""
    few = max(_QUICK_BYTES_OF_ONE_CORE, (cores - 1) * _QUICK_BYTES_PER_CORE)
    return min(_QUICK_BYTES, few)


def _shape(
    entry: Entry, network: Network, size: int, hardware: Hardware, settings: Settings
) -> Shape:
    return Shape(
        model=Path(entry.name),
        info=_info(entry, network, size),
        context=min(settings.llamacpp_context_size, network.max_position_embeddings),
        slots=settings.llamacpp_parallel,
        load_mode="auto",
        devices=bool(hardware.devices),
        gpu_layers="auto",
        kv_offload=True,
        cache_type_k="f16",
        cache_type_v="f16",
        flash_attention=True,
        ubatch=settings.llamacpp_ubatch_size or 512,
    )


def _info(entry: Entry, network: Network, size: int) -> GgufInfo:
    """What the header of the file will tell, as far as the estimate needs it."""
    cached = network.num_hidden_layers * network.num_key_value_heads * network.head_dim
    # All weights are taken to have the same size; the tables of tokens have a little more.
    per_weight = size / (entry.parameters * 1e9)
    table = round(network.vocab_size * network.hidden_size * per_weight)
    return GgufInfo(
        version=3,
        architecture=network.architecture,
        name=entry.name,
        file_size=size,
        parameters=round(entry.parameters * 1e9),
        context_length=network.max_position_embeddings,
        block_count=network.num_hidden_layers,
        embedding_length=network.hidden_size,
        head_count=network.num_attention_heads,
        head_count_kv=network.num_key_value_heads,
        key_length=network.head_dim,
        value_length=network.head_dim,
        sliding_window=0,
        embedding=False,
        model_size=size,
        layer_bytes=max(0, size - table * (1 if network.tie_word_embeddings else 2)),
        input_bytes=table,
        tied=network.tie_word_embeddings,
        key_values=(cached, cached),
        feed_forward_length=network.feed_forward,
        vocabulary=network.vocab_size,
    )
