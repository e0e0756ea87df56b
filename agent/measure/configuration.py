"""One way to start the server, and those that are worth a measurement here. Pure.

What the user has set is not touched, and what binary, model or machine cannot do is not tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.core.contradictions import can_quantise
from agent.core.engine_choices import is_tiny
from agent.core.launch_shape import Basis

_UBATCH = 512
"""Of llama-server."""
_NAMES = {
    "llamacpp_parallel": "slots",
    "llamacpp_threads": "threads",
    "llamacpp_threads_batch": "batch threads",
    "llamacpp_ubatch_size": "physical batch",
    "llamacpp_flash_attention": "flash attention",
    "llamacpp_cache_type_k": "KV type",
    "llamacpp_speculation": "speculation",
}
"""The type of the values is always that of the keys."""


@dataclass(frozen=True)
class Configuration:
    """Settings that differ from the default, by name and in the order of the names."""

    items: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, **values: Any) -> Configuration:
        """The configuration with these values, named without their `llamacpp_`."""
        return cls(tuple(sorted((f"llamacpp_{name}", value) for name, value in values.items())))

    @property
    def values(self) -> dict[str, Any]:
        """By the names of settings."""
        return dict(self.items)

    def with_also(self, other: Configuration) -> Configuration:
        """Both together; where they differ, `other`."""
        return Configuration(tuple(sorted((self.values | other.values).items())))

    @property
    def changes_answers(self) -> bool:
        """The numbers that the model computes become coarser."""
        return "llamacpp_cache_type_k" in self.values

    @property
    def label(self) -> str:
        """For people."""
        values = {_NAMES[name]: value for name, value in self.items if name in _NAMES}
        if "threads" in values and "batch threads" in values:
            values["threads"] = f"{values['threads']} (batches {values.pop('batch threads')})"
        return ", ".join(f"{name} {value}" for name, value in values.items()) or "default"


DEFAULT = Configuration()


@dataclass(frozen=True, kw_only=True)
class Space:
    """What is to be measured."""

    variants: tuple[Configuration, ...]
    """Each differs from the default in one respect; what promises most comes first."""
    left_out: Mapping[str, str]
    """What is not, and why."""


def space_of(basis: Basis, candidates: int) -> Space:
    """The variants for this model, binary and machine, where a step has so many `candidates`."""
    left_out: dict[str, str] = {}
    variants: list[Configuration] = []
    threads = (
        ("batch threads", ("threads", "threads_batch"), _threads_for_batches(basis)),
        ("threads", ("threads", "threads_batch"), _threads(basis)),
    )
    others = (
        ("slots", ("parallel",), _slots(basis, candidates)),
        ("physical batch", ("ubatch_size", "batch_size"), _batches(basis)),
        ("flash attention", ("flash_attention",), _attention(basis)),
        ("KV type", ("cache_type_k", "cache_type_v"), _kv_types(basis)),
        ("speculation", ("speculation",), _speculation(basis)),
    )
    # Where a GPU computes, threads matter least.
    ordered = (*others, *threads) if basis.hardware.devices else (*threads, *others)
    for name, fields, values in ordered:
        held = [x.upper() for x in map("llamacpp_{}".format, fields) if basis.choices.is_set(x)]
        if held:
            left_out[name] = f"{' and '.join(held)} {'stays' if len(held) == 1 else 'stay'} as set"
            continue
        found = list(values)
        variants += found
        if not found:
            left_out[name] = "there is no other value to try here"
    return Space(variants=tuple(variants), left_out=left_out)


def with_stored(space: Space, stored: Configuration, basis: Basis) -> Space:
    """The same, and first of all what has won before, as far as it is still open."""
    held = {name for name in stored.values if basis.choices.is_set(name)}
    if basis.choices.settings.turbo_determinism == "strict":
        held.add("llamacpp_speculation")
    left = Configuration(tuple((name, x) for name, x in stored.items if name not in held))
    if not left.items:
        return space
    return replace(space, variants=tuple(dict.fromkeys((left, *space.variants))))


def default_threads(basis: Basis) -> int:
    """Those of a start that nobody has tuned."""
    return 1 if is_tiny(basis.info) else basis.hardware.physical_cores


def _thread_counts(basis: Basis) -> list[int]:
    cores, default = basis.hardware.physical_cores, default_threads(basis)
    return [x for x in dict.fromkeys((cores, cores // 2, cores - 1)) if x >= 1 and x != default]


def _threads(basis: Basis) -> Iterator[Configuration]:
    """For one stream alone; a batch of several takes those for batches."""
    if basis.binary.knows("--threads-batch"):
        batch = default_threads(basis)
        yield from (Configuration.of(threads=x, threads_batch=batch) for x in _thread_counts(basis))


def _threads_for_batches(basis: Basis) -> Iterator[Configuration]:
    if basis.binary.knows("--threads-batch"):
        yield from (Configuration.of(threads_batch=x) for x in _thread_counts(basis))


def _slots(basis: Basis, candidates: int) -> Iterator[Configuration]:
    """More than candidates would stay idle; with one, nothing runs beside a review."""
    default = basis.choices.of("llamacpp_parallel").value
    for slots in (2 * default, default // 2):
        if 2 <= slots <= candidates:
            yield Configuration.of(parallel=slots)


def _batches(basis: Basis) -> Iterator[Configuration]:
    if not basis.binary.knows("--ubatch-size"):
        return
    default = basis.choices.of("llamacpp_ubatch_size").value or _UBATCH
    on_device = bool(basis.hardware.devices)
    for size in (2 * default, default // 2) if on_device else (default // 2, default // 4):
        if size >= 32:
            yield Configuration.of(ubatch_size=size)


def _attention(basis: Basis) -> Iterator[Configuration]:
    """The default takes it wherever the device can, so that only leaving it out is left."""
    quantised = basis.choices.of("llamacpp_cache_type_v").value not in (None, "f16", "bf16", "f32")
    if basis.binary.knows("--flash-attn") and not quantised:
        yield Configuration.of(flash_attention="off")


def _kv_types(basis: Basis) -> Iterator[Configuration]:
    off = basis.choices.of("llamacpp_flash_attention").value == "off"
    known = basis.binary.knows("--cache-type-k") and basis.binary.knows("--cache-type-v")
    if known and can_quantise(basis.info) and not off:
        yield Configuration.of(cache_type_k="q8_0", cache_type_v="q8_0")


def _speculation(basis: Basis) -> Iterator[Configuration]:
    strict = basis.choices.settings.turbo_determinism == "strict"
    if basis.binary.knows("--spec-type") and not strict:
        yield Configuration.of(speculation="ngram")
