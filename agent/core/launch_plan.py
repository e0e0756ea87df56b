"""One llama-server that can be started: its command line and where each flag comes from. Pure.

Optional flags are given only when the binary knows them; find_binary() holds the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.core.engine_choices import is_tiny
from agent.core.launch_flags import (
    add_attention,
    add_devices,
    add_loading,
    add_model,
    add_slots,
    add_speculation,
    add_threads,
)
from agent.core.launch_ladder import Ladder, given_up, may_lock
from agent.core.launch_shape import Basis
from agent.core.llamacpp_binary import Binary
from agent.core.memory_estimate import MemoryEstimate, Place
from agent.core.planned_flags import FlagSheet, PlannedFlag

_NO_ORIGIN = "https://closed.invalid"
"""An origin that no web page can have (RFC 2606)."""


@dataclass(frozen=True, kw_only=True)
class LaunchPlan:
    """One llama-server that can be started."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    """Variables besides those of this process."""
    model: Path
    slots: int
    context: int
    """Tokens of one slot."""
    threads: int
    port: int
    api_key_file: Path
    """Where the owner writes the key before the start; in a folder that only we can read."""
    slot_dir: Path | None
    """Where the server saves slots; None when it saves none."""
    key_in_environment: bool
    """The binary knows no key file and takes the key as LLAMA_API_KEY."""
    build: str
    """Version and commit of the binary, as far as it tells them."""
    stamp: str
    """Another one for another build of the binary."""
    description: str
    """Build and threads, for reports; model, slots and context are asked of the server itself."""
    flags: tuple[PlannedFlag, ...]
    """What `argv` is made of, with reasons, and what the binary lacks."""
    memory: MemoryEstimate
    notes: tuple[str, ...]
    """Where the plan is not what the settings say, and why."""


def plan_launch(
    basis: Basis, ladder: Ladder, *, port: int, slot_dir: Path | None, api_key_file: Path
) -> LaunchPlan:
    """The command line for the rung on which `ladder` stands.

    `slot_dir` is the folder for saved slots; None: none are saved.
    """
    binary, shape = basis.binary, ladder.rung.shape
    sheet = FlagSheet(binary)
    notes: list[str] = []
    add_model(sheet, basis, ladder, port)
    threads = add_threads(sheet, basis, notes)
    add_slots(sheet, shape.info, slot_dir)
    add_devices(sheet, basis, ladder, notes)
    add_attention(sheet, basis, ladder)
    add_loading(sheet, basis, ladder)
    add_speculation(sheet, basis.choices)
    if is_tiny(shape.info):
        sheet.add(["--no-warmup"], why="a third of the start-up time of such a model")
    sheet.add(["--jinja"], why="the model's own chat template")
    sheet.add(["--metrics"], why="figures that only the server has")
    sheet.add(["--slots"], why="tells whether a slot still decodes")
    sheet.add(["--sse-ping-interval", "1"], why="TERM waits for a ping of streams")
    sheet.add(["--no-ui"], ["--no-webui"], why="nobody opens it")
    # Its default answers every web page with that page's own origin (b10434, measured).
    sheet.add(["--cors-origins", _NO_ORIGIN], why="no web page may read an answer")
    sheet.add(["--no-cors-credentials"], why="nor use what a browser keeps")
    sheet.add(["--offline"], why="nothing is fetched from a network")
    sheet.add(["--log-colors", "off"], why="the log is a file")
    if binary.traces:
        sheet.need("--verbosity", 4, "the log tells what lies on which device")
    keyed = sheet.add(["--api-key-file", str(api_key_file)], why="nobody else may ask")
    return LaunchPlan(
        argv=(*binary.command, *sheet.argv),
        # Without this a crash starts a debugger that takes seconds to print what nobody reads.
        environment={**binary.environment, "GGML_NO_BACKTRACE": "1"},
        model=shape.model,
        slots=shape.slots,
        context=shape.context,
        threads=threads,
        port=port,
        api_key_file=api_key_file,
        slot_dir=slot_dir if binary.knows("--slot-save-path") else None,
        key_in_environment=not keyed,
        build=_build(binary),
        stamp=binary.stamp,
        description=_describe(binary, threads),
        flags=sheet.flags,
        memory=ladder.estimate,
        notes=(*_about_memory(basis, ladder), *notes, *_refused_settings(sheet.flags)),
    )


def gib(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"


def _about_memory(basis: Basis, ladder: Ladder) -> Iterator[str]:
    asked, shape, memory = ladder.asked, ladder.rung.shape, ladder.estimate
    if not may_lock(asked, basis.hardware):
        yield (
            f"The system lets us lock {gib(basis.hardware.lockable or 0)} of memory "
            "(RLIMIT_MEMLOCK), less than the weights: raise it (ulimit -l, LimitMEMLOCK=)."
        )
    if less := given_up(asked, shape):
        yield f"Memory does not suffice for what was asked for: {less}."
    if not memory.kv_per_slot:
        yield (
            f"The header does not tell how large the KV cache is ({shape.info.architecture}), so "
            "the estimate is too small."
        )
    end = "expect it to be slow." if memory.starts else "it may not start."
    places: tuple[tuple[Place, str], ...] = (("memory", "memory"), ("device", "device memory"))
    for place, where in places:
        if not memory.fits_in(place):
            needed, free = gib(memory.needed(place)), gib(memory.free_in(place))
            yield f"{needed} of {where} are needed, but only {free} are free: {end}"


def _refused_settings(flags: Sequence[PlannedFlag]) -> Iterator[str]:
    for flag in flags:
        if flag.origin == "refused" and flag.source.isupper():  # a setting, not a profile
            yield f"This llama-server does not know {flag.flag}, so {flag.source} is not used."


def _build(binary: Binary) -> str:
    return " ".join(x for x in (binary.version, binary.commit) if x)


def _describe(binary: Binary, threads: int) -> str:
    return f"llama-server {_build(binary)} on {threads} thread{'s' if threads > 1 else ''}"
