"""Examine everything that a run needs, each as a `Check` with the way out; `turbo doctor` shows it.

The server is started as a run starts it, asked what a run asks of it, and ended; where a run would
use the daemon, its server is asked. A check that fails stops only those that cannot be made without
it, and these say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic

from agent.core.backend_manager import get_backend
from agent.core.config import Settings
from agent.core.daemon_joining import beside_the_daemon, joined_daemon
from agent.core.daemon_record import Serving
from agent.core.doctor_answers import (
    check_context,
    check_daemon,
    check_gpu,
    check_restore,
    check_schema,
    check_server,
    check_slots,
)
from agent.core.doctor_check import Check, failed, unchecked
from agent.core.doctor_machine import (
    check_cache,
    check_cpu,
    check_disk,
    check_git,
    check_memory,
    check_sandbox,
)
from agent.core.doctor_parts import check_binary, check_devices, check_model
from agent.core.errors import TurboError
from agent.core.folders import cache_folder
from agent.core.gpu_flaws import find_flaws
from agent.core.gpu_truth import parse_truth
from agent.core.hardware import read_hardware
from agent.core.llamacpp_backend import LlamaCppBackend
from agent.core.llamacpp_opening import bank_of, on_daemon
from agent.core.model_digest import model_digest
from agent.core.server_launching import Prepared, open_server, prepare
from agent.core.server_log import start_of

_OURS = ("binary", "CPU", "memory", "devices", "model")
"""What is ours to examine only where the server is."""
_ANSWERS = ("context per slot", "slots", "schema probe")
_LOADED = ("layers and buffers", "restore probe")


async def examine(settings: Settings, *, repository: Path | None) -> tuple[Check, ...]:
    """All checks, in the order in which they are shown. `repository` is where tasks would be run;
    None: outside of any."""
    elsewhere = _elsewhere(settings)
    if elsewhere:
        engine = [*unchecked(_OURS, f"{elsewhere} is set"), *await _attached(settings, elsewhere)]
    else:
        engine = await _own(settings)
    return (
        *engine,
        await check_sandbox(),
        await check_git(),
        check_cache(),
        check_disk("repository", repository or Path.cwd()),
    )


def _elsewhere(settings: Settings) -> str:
    """The setting by which somebody else's server is used; empty when ours is."""
    if settings.backend == "ollama":
        return "BACKEND=ollama"
    return "LLAMACPP_URL" if settings.llamacpp_url is not None else ""


async def _own(settings: Settings) -> list[Check]:
    """A server of ours."""
    binary, checked_binary = await asyncio.to_thread(check_binary, settings)
    info, checked_model = await asyncio.to_thread(check_model, settings)
    hardware = read_hardware()
    checks = [checked_binary, check_cpu(hardware)]
    if binary is None or info is None:
        lacking = "no binary runs here" if binary is None else "the model cannot be used"
        checks += unchecked(("memory",), lacking)
        if binary is None:
            checks += unchecked(("devices",), lacking)
        else:
            checks.append(await check_devices(settings, info, binary, hardware))
        return [*checks, checked_model, *_not_served(lacking)]
    said: list[str] = []
    async with joined_daemon(settings, said.append) as serving:
        try:
            prepared = await prepare(settings)
        except TurboError as error:  # contradicting settings, or a GPU that must be there
            checks += unchecked(("memory",), "nothing can be started")
            checks.append(await check_devices(settings, info, binary, hardware))
            served = [failed("server", error), *_not_served("", server=False)]
            return [*checks, checked_model, *served]
        if serving is None:
            checks.append(check_memory(prepared))
            asking = _of_our_own(settings, said)
        else:  # what is free now is what the daemon has left
            checks += unchecked(("memory",), "the daemon has loaded the model already")
            asking = _of_the_daemon(settings, serving, prepared)
        checks.append(await check_devices(settings, info, binary, prepared.basis.hardware))
        return [*checks, checked_model, *await _finished(asking)]


def _not_served(reason: str, *, server: bool = True) -> list[Check]:
    names = ("server",) if server else ()
    return unchecked((*names, *_LOADED, *_ANSWERS), reason or "no server runs")


async def _finished(asking: AsyncIterator[Check]) -> list[Check]:
    """What the server shows, the check of itself first; after an error the rest is unchecked."""
    checks: list[Check] = []
    try:
        async for check in asking:
            checks.append(check)
    except TurboError as error:
        if not checks:
            return [failed("server", error), *_not_served("", server=False)]
        checks[0] = failed("server", error)
        done = {x.name for x in checks}
        rest = [x for x in (*_LOADED, *_ANSWERS) if x not in done]
        return [*checks, *unchecked(rest, "the server failed")]
    return checks


async def _of_our_own(settings: Settings, daemon: Sequence[str]) -> AsyncIterator[Check]:
    """Start the server and ask it; it has ended at the end. `daemon` says why the one of the daemon
    would not do."""
    begin = monotonic()
    notices: list[str] = []
    async with open_server(beside_the_daemon(settings), notice=notices.append) as server:
        yield check_server(server, monotonic() - begin, notices, daemon)
        yield check_gpu(server.truth, server.flaws)
        digest = await asyncio.to_thread(model_digest, server.model, cache_folder("digests"))
        async with LlamaCppBackend(
            server.url,
            api_key=server.api_key,
            stall_timeout_s=settings.request_timeout_s,
            bank=bank_of(settings, server, digest),
        ) as backend:
            saves = settings.prefix_bank_max_mb > 0 and server.plan.slot_dir is not None
            yield check_restore(backend.restore if saves else None)
            yield check_context(backend)
            yield check_slots(backend)
            yield await check_schema(backend)


async def _of_the_daemon(
    settings: Settings, serving: Serving, prepared: Prepared
) -> AsyncIterator[Check]:
    """Ask the daemon's server as a run does; it goes on afterwards."""
    yield check_daemon(serving)
    basis, truth = prepared.basis, parse_truth(start_of(serving.log))
    wanted = prepared.ladder.asked.devices
    yield check_gpu(
        truth, find_flaws(truth, choices=basis.choices, wanted=wanted, hardware=basis.hardware)
    )
    async with AsyncExitStack() as stack:
        backend = (await on_daemon(settings, serving, stack)).backend
        yield check_restore(serving.restore if serving.slot_dir is not None else None)
        yield check_context(backend)
        yield check_slots(backend)
        yield await check_schema(backend)


async def _attached(settings: Settings, setting: str) -> list[Check]:
    """Somebody else's server, which goes on afterwards."""
    checks: list[Check] = []
    notices: list[str] = []
    try:
        async with get_backend(settings, notice=notices.append) as opened:
            backend = opened.backend
            details = {"notes": notices}
            checks.append(
                Check(name="server", state="ok", found=opened.description, details=details)
            )
            checks += unchecked(_LOADED, f"{setting} is set")
            checks.append(check_context(backend))
            checks.append(check_slots(backend))
            checks.append(await check_schema(backend))
    except TurboError as error:
        return [failed("server", error), *_not_served("", server=False)]
    return checks
