"""From settings to a llama.cpp backend that is ready, on whichever server a run is to use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.core.backend_manager import Opened
from agent.core.config import Settings
from agent.core.daemon_joining import beside_the_daemon, joined_daemon
from agent.core.daemon_keeper import DaemonKeeper
from agent.core.daemon_record import Serving
from agent.core.errors import ServerError
from agent.core.folders import cache_folder
from agent.core.http_errors import without_password
from agent.core.kv_layout import layout_of
from agent.core.llamacpp_backend import LlamaCppBackend
from agent.core.model_digest import model_digest
from agent.core.prefix_bank import PrefixBank
from agent.core.remote_hosts import Sent, allowed_url
from agent.core.slot_locks import SlotLocks

if TYPE_CHECKING:
    from agent.core.llamacpp_server import LlamaCppServer

_NOT_ALONE = (
    "TURBO_DETERMINISM=strict holds on this server only while nobody else uses it and as long as "
    "it does not speculate."
)


@asynccontextmanager
async def open_llamacpp(
    settings: Settings,
    *,
    notice: Callable[[str], None] = lambda _: None,
    on_launch: Callable[[], object] = lambda: None,
    on_restart: Callable[[str], None] = lambda _: None,
    apart: Path | None = None,
) -> AsyncIterator[Opened]:
    """A llama-server that runs at LLAMACPP_URL; else the one of the daemon, when it is what the
    settings ask for; else one of our own that ends with the block. One of our own or of the daemon
    is started again when it dies or hangs, and `on_restart` is told why. `on_launch` is called
    before one of our own is started. With `apart` the daemon is passed over, and prefixes are saved
    in that folder.

    Raises an EngineError when none can be had, SettingsError for an address that is none.
    """
    async with AsyncExitStack() as stack:
        if settings.llamacpp_url is not None:
            opened = await _attached(settings, settings.llamacpp_url, stack, notice)
        else:
            serving = None
            if apart is None:
                serving = await stack.enter_async_context(joined_daemon(settings, notice))
            if serving is not None:
                opened = await on_daemon(settings, serving, stack, notice, on_restart)
            else:
                settings = beside_the_daemon(settings)
                on_launch()
                opened = await _own(settings, stack, notice, on_restart, apart)
        yield opened


async def _attached(
    settings: Settings, address: str, stack: AsyncExitStack, notice: Callable[[str], None]
) -> Opened:
    """A server that somebody else started."""
    key = settings.llamacpp_api_key
    url = allowed_url(address, "LLAMACPP_URL", settings)
    sent = Sent.to(url)
    strict = settings.turbo_determinism == "strict"
    backend = LlamaCppBackend(
        url,
        api_key=key.get_secret_value() if key else None,
        stall_timeout_s=settings.request_timeout_s,
        load_timeout_s=settings.llamacpp_start_timeout_s,
        locks=SlotLocks(cache_folder("slots", private=True), url),
        strict=strict,
        notice=notice,
        sent=sent,
    )
    shown = without_password(url)
    notice(f"using the llama-server at {shown}")
    if strict:
        notice(_NOT_ALONE)
    await stack.enter_async_context(backend)
    opened = _opened(backend, f"llama-server at {shown}", {"url": shown})
    return replace(opened, sent=sent)


async def on_daemon(
    settings: Settings,
    serving: Serving,
    stack: AsyncExitStack,
    notice: Callable[[str], None] = lambda _: None,
    on_restart: Callable[[str], None] = lambda _: None,
) -> Opened:
    """The daemon's server; our connections to it are closed with `stack`. Its folder for slots is
    ours, so prefixes are saved as for our own. Raises an EngineError."""
    patience_s = settings.llamacpp_start_timeout_s
    keeper = await stack.enter_async_context(
        DaemonKeeper(serving, timeout_s=patience_s, on_restart=on_restart, notice=notice)
    )
    bank: PrefixBank | None = None
    if serving.slot_dir is not None and settings.prefix_bank_max_mb:
        most, name = settings.prefix_bank_max_mb << 20, serving.model.name
        bank = PrefixBank(serving.slot_dir, layout=serving.layout, model=name, max_bytes=most)
    backend = LlamaCppBackend(
        serving.url,
        api_key=serving.api_key,
        stall_timeout_s=settings.request_timeout_s,
        load_timeout_s=patience_s,
        died=keeper.death,
        keeper=keeper,
        bank=bank,
        restore=serving.restore,
        locks=SlotLocks(cache_folder("slots", private=True), serving.url),
        notice=notice,
    )
    await stack.enter_async_context(backend)
    engine = {
        "build": serving.build,
        "argv": list(serving.argv),
        "model": str(serving.model),
        "model_sha256": serving.model_sha256,
    }
    who = f"{serving.description} of the daemon"
    return _opened(backend, who, engine, serving.log)


async def _own(
    settings: Settings,
    stack: AsyncExitStack,
    notice: Callable[[str], None],
    on_restart: Callable[[str], None],
    apart: Path | None,
) -> Opened:
    """A server of our own."""
    # Owning one pulls in hardware and GGUF probing, which the others never need.
    from agent.core.server_keeper import ServerKeeper  # noqa: PLC0415
    from agent.core.server_launching import open_server  # noqa: PLC0415
    from agent.core.server_notes import end_left_over  # noqa: PLC0415

    end_left_over(notice)
    server = await stack.enter_async_context(open_server(settings, notice=notice, slots_in=apart))
    digest = await asyncio.to_thread(model_digest, server.model, cache_folder("digests"))
    engine = {
        "build": server.plan.build,
        "argv": list(server.plan.argv),
        "model": str(server.model),
        "model_sha256": digest,
    }
    patience_s = settings.llamacpp_start_timeout_s
    keeper = await stack.enter_async_context(
        ServerKeeper(server, timeout_s=patience_s, on_restart=on_restart)
    )
    backend = LlamaCppBackend(
        server.url,
        api_key=server.api_key,
        stall_timeout_s=settings.request_timeout_s,
        died=lambda: _death_of(keeper.server),
        keeper=keeper,
        bank=bank_of(settings, server, digest),
        strict=settings.turbo_determinism == "strict",
        notice=notice,
    )
    await stack.enter_async_context(backend)
    return _opened(backend, server.description, engine, server.log)


def _opened(
    backend: LlamaCppBackend, who: str, engine: Mapping[str, Any], log: Path | None = None
) -> Opened:
    slots = "1 slot" if backend.slots == 1 else f"{backend.slots} slots"
    description = f"{who}: {backend.model}, {slots} x {backend.context} tokens"
    return Opened(backend=backend, engine=engine, description=description, server_log=log)


def _death_of(server: LlamaCppServer) -> ServerError | None:
    reason = server.death()
    if reason is None:
        return None
    return ServerError(reason, log=server.log, fix="Run again; the log says more.")


def bank_of(settings: Settings, server: LlamaCppServer, digest: str) -> PrefixBank | None:
    """Saved prefixes for a server of ours, whose model has `digest`; None where it saves none."""
    folder, argv = server.plan.slot_dir, server.plan.argv
    if folder is None:
        return None
    layout = layout_of(argv, model=digest, build=server.plan.stamp)
    most = settings.prefix_bank_max_mb << 20
    return PrefixBank(folder, layout=layout, model=server.model.name, max_bytes=most)
