"""What `turbo server plan` shows: the flags with their reasons, the machine, and the memory."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.table import Table

from agent.core.launch_plan import LaunchPlan, gib
from agent.core.memory_estimate import MemoryEstimate, Place
from agent.core.server_launching import Prepared
from agent.core.tables import table_console
from agent.core.terminal import printable

_PLACES: tuple[tuple[Place, str], ...] = (("memory", "main memory"), ("device", "device memory"))


def show_plan(prepared: Prepared, plan: LaunchPlan) -> None:
    """Print the plan for people, on standard output."""
    basis = prepared.basis
    hardware, info = basis.hardware, basis.info
    facts = Table.grid(padding=(0, 2))
    facts.add_row("binary", f"{basis.binary.path} ({plan.build})")
    facts.add_row(
        "model",
        f"{printable(info.name)}: {info.architecture}, {info.parameters / 1e6:,.0f} M parameters, "
        f"{gib(info.model_size)}, trained for {info.context_length:,} tokens",
    )
    facts.add_row(
        "machine",
        f"{hardware.physical_cores} cores ({' '.join(hardware.cpu_features)}), "
        f"{gib(hardware.memory_available)} free",
    )
    for device in hardware.devices:
        free = f"{gib(device.free)} of {gib(device.memory)} free"
        facts.add_row(device.name, f"{printable(device.description)}, {free}")
    facts.add_row("profile", basis.choices.profile)
    with table_console() as console:
        console.print(facts)
        console.print()
        console.print(_flags(plan))
        console.print()
        console.print(_memory(plan.memory))


def plan_as_object(prepared: Prepared, plan: LaunchPlan) -> dict[str, Any]:
    """The same for programs; sizes are bytes."""
    basis, memory = prepared.basis, plan.memory
    return {
        "profile": basis.choices.profile,
        "binary": {
            "path": str(basis.binary.path),
            "version": basis.binary.version,
            "commit": basis.binary.commit,
        },
        "model": {"path": str(plan.model), **dataclasses.asdict(prepared.ladder.rung.shape.info)},
        "hardware": dataclasses.asdict(basis.hardware),
        "argv": list(plan.argv),
        "flags": [
            {
                "flag": flag.flag,
                "value": flag.value or None,
                "why": flag.why,
                "origin": flag.origin,
                "source": flag.source or None,
            }
            for flag in plan.flags
        ],
        "memory": {
            "parts": [dataclasses.asdict(part) for part in memory.parts],
            "kv_per_slot": memory.kv_per_slot,
            "gpu_layers": memory.gpu_layers,
            "needed": {place: memory.needed(place) for place, _ in _PLACES},
            "free": {place: memory.free_in(place) for place, _ in _PLACES},
            "fits": memory.fits,
        },
        "rung": prepared.ladder.rung.kind,
        "notes": [*prepared.notes, *plan.notes],
    }


def _flags(plan: LaunchPlan) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("flag", no_wrap=True)
    table.add_column("value", overflow="fold", max_width=40)
    table.add_column("why")
    table.add_column("from", overflow="fold")
    for flag in plan.flags:
        style = "dim" if flag.origin == "refused" else None
        table.add_row(flag.flag, flag.value, flag.why, flag.said_by, style=style)
    return table


def _memory(memory: MemoryEstimate) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("memory")
    table.add_column("where")
    table.add_column("size", justify="right")
    for part in memory.parts:
        name = part.name
        if name == "KV cache":
            name += f" ({gib(memory.kv_per_slot)} per slot)"
        table.add_row(name, dict(_PLACES)[part.place], gib(part.size))
    for place, where in _PLACES:
        if memory.needed(place):
            free = f"{gib(memory.needed(place))} of {gib(memory.free_in(place))} free"
            table.add_row("together", where, free, style="bold")
    return table
