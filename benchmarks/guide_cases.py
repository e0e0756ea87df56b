"""The claims that benchmarks/guide.py tests: two sides each, which differ in one thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from agent.core.sampling import CODING

Key = Literal[
    "ready", "first token", "reading", "writing", "writing, 4 at once", "plan and 4 candidates",
    "first token after a restart", "memory",
]  # fmt: skip
UNITS: dict[Key, str] = {
    "ready": "s",
    "first token": "s",
    "reading": "tokens/s",
    "writing": "tokens/s",
    "writing, 4 at once": "tokens/s",
    "plan and 4 candidates": "s",
    "first token after a restart": "s",
    "memory": "MiB",
}
GENERAL = "qwen2.5-coder-0.5b:q8_0:8"
EMBEDDED = "embedded"
QUANTISED = "phi-3-mini:{}:4"


@dataclass(frozen=True, kw_only=True)
class Way:
    """One side of a comparison."""

    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str = GENERAL
    temperature: float = CODING.temperature
    known: bool = False
    """The prompt has been read before, by the same slot."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A claim and the two sides that test it."""

    name: str
    claim: str
    base: Way
    other: Way
    keys: tuple[Key, ...]


def setting(label: str, **values: Any) -> Way:
    """A side by its settings."""
    return Way(label=label, settings={f"llamacpp_{key}": value for key, value in values.items()})


def quantised(name: str) -> Way:
    """A side by its quantisation."""
    return Way(label=name.upper(), model=QUANTISED.format(name))


def cache_types(name: str) -> Way:
    """A side by the type of its KV cache."""
    return setting(f"KV {name}", cache_type_k=name, cache_type_v=name)


F16_CACHE = setting("KV f16 (default)")
SPEEDS: tuple[Key, ...] = ("reading", "writing")
CASES = (
    Case(
        name="flash-attention",
        claim="Flash attention is faster",
        base=setting("off", flash_attention="off"),
        other=setting("on (default: auto)", flash_attention="on"),
        keys=(*SPEEDS, "memory"),
    ),
    Case(
        name="slots-2",
        claim="Two slots write more than one, in Q8_0 (continuous batching, always on)",
        base=setting("LLAMACPP_PARALLEL=1", parallel=1),
        other=setting("LLAMACPP_PARALLEL=2", parallel=2),
        keys=("writing, 4 at once",),
    ),
    Case(
        name="slots-4",
        claim="Four slots write more than one, in Q8_0",
        base=setting("LLAMACPP_PARALLEL=1", parallel=1),
        other=setting("LLAMACPP_PARALLEL=4 (default)", parallel=4),
        keys=("writing, 4 at once",),
    ),
    *(
        Case(
            name=f"slots-4-{kind.replace('_', '')}",
            claim=f"Four slots write more than one in {kind.upper()}",
            base=replace(setting("LLAMACPP_PARALLEL=1", parallel=1), model=QUANTISED.format(kind)),
            other=replace(
                setting("LLAMACPP_PARALLEL=4 (default)", parallel=4), model=QUANTISED.format(kind)
            ),
            keys=("writing, 4 at once",),
        )
        for kind in ("q4_k_m", "f16")
    ),
    Case(
        name="prompt-cache",
        claim="A prompt that was read is not read again",
        base=Way(label="never seen"),
        other=Way(label="the slot has read it (default)", known=True),
        keys=("first token",),
    ),
    Case(
        name="prefix-bank",
        claim="A prefix is computed once and restored into the other slots",
        base=Way(label="PREFIX_BANK_MAX_MB=0", settings={"prefix_bank_max_mb": 0}),
        other=Way(label="PREFIX_BANK_MAX_MB=2048 (default)"),
        keys=("plan and 4 candidates", "first token after a restart"),
    ),
    *(
        Case(
            name=f"ubatch-{tokens}",
            claim=f"{tokens} tokens computed at once read faster than 512",
            base=setting("LLAMACPP_UBATCH_SIZE=512 (default)", ubatch_size=512),
            other=setting(f"LLAMACPP_UBATCH_SIZE={tokens}", ubatch_size=tokens),
            keys=("reading", "memory"),
        )
        for tokens in (64, 256, 1024)
    ),
    Case(
        name="threads",
        claim="Two threads are faster than one",
        base=setting("LLAMACPP_THREADS=1", threads=1),
        other=setting("LLAMACPP_THREADS=2 (default here)", threads=2),
        keys=(*SPEEDS, "writing, 4 at once"),
    ),
    *(
        Case(
            name=f"kv-{kind.replace('_', '')}",
            claim=f"A KV cache in {kind} is faster and smaller than in f16",
            base=F16_CACHE,
            other=cache_types(kind),
            keys=(*SPEEDS, "memory"),
        )
        for kind in ("q8_0", "q4_0")
    ),
    Case(
        name="mlock",
        claim="Locked weights are faster",
        base=setting("LLAMACPP_LOAD_MODE=mmap (default)", load_mode="mmap"),
        other=setting("LLAMACPP_LOAD_MODE=mlock", load_mode="mlock"),
        keys=("ready", "writing", "memory"),
    ),
    Case(
        name="no-mmap",
        claim="Copied weights are faster than mapped ones",
        base=setting("LLAMACPP_LOAD_MODE=mmap (default)", load_mode="mmap"),
        other=setting("LLAMACPP_LOAD_MODE=none", load_mode="none"),
        keys=("ready", "writing", "memory"),
    ),
    Case(
        name="temperature",
        claim="A lower temperature is faster",
        base=Way(label="temperature 0.8", temperature=0.8),
        other=Way(label="temperature 0.05 (default)", temperature=0.05),
        keys=("writing",),
    ),
    Case(
        name="q4-q6",
        claim="Q4 is slower than Q6",
        base=quantised("q6_k"),
        other=quantised("q4_k_m"),
        keys=(*SPEEDS, "memory"),
    ),
    *(
        Case(
            name=f"{kind.replace('_', '')}-q80",
            claim=f"{kind.upper()} is faster than Q8_0",
            base=quantised("q8_0"),
            other=quantised(kind),
            keys=(*SPEEDS, "writing, 4 at once", "memory"),
        )
        for kind in ("q4_0", "q4_k_m", "f16")
    ),
    Case(
        name="speculation-nothing-to-copy",
        claim="Guessing tokens costs nothing where nothing can be guessed",
        base=setting("LLAMACPP_SPECULATION=off (default)", speculation="off"),
        other=setting("LLAMACPP_SPECULATION=ngram", speculation="ngram"),
        keys=("writing", "writing, 4 at once"),
    ),
    Case(
        name="speculation-embedded",
        claim="Guessing tokens helps the embedded model, which writes code",
        base=replace(
            setting("LLAMACPP_SPECULATION=off (default)", speculation="off"), model=EMBEDDED
        ),
        other=replace(setting("LLAMACPP_SPECULATION=ngram", speculation="ngram"), model=EMBEDDED),
        keys=("writing", "writing, 4 at once"),
    ),
    Case(
        name="context",
        claim="Context that is reserved and not used slows nothing, it takes memory",
        base=setting("LLAMACPP_CONTEXT_SIZE=4096 (default)", context_size=4096),
        other=setting("LLAMACPP_CONTEXT_SIZE=16384", context_size=16384),
        keys=(*SPEEDS, "memory"),
    ),
)
