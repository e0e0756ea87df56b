"""From settings to a llama.cpp backend that is ready: our own server, or one that already runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from agent.core.backend_manager import Opened
from agent.core.config import Settings
from agent.core.errors import ServerError
from agent.core.folders import cache_folder
from agent.core.http_errors import checked_url
from agent.core.kv_layout import layout_of
from agent.core.llamacpp_backend import LlamaCppBackend
from agent.core.model_digest import model_digest
from agent.core.prefix_bank import PrefixBank
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
    on_restart: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Opened]:
    """A llama-server that runs at LLAMACPP_URL, or one of our own that ends with the block; that
    one is started again when it dies or hangs, and `on_restart` is told why.

    Raises an EngineError when neither can be had, SettingsError for an address that is none.
    """
    strict = settings.turbo_determinism == "strict"
    async with AsyncExitStack() as stack:
        if settings.llamacpp_url is not None:
            key = settings.llamacpp_api_key
            url = checked_url(settings.llamacpp_url, "LLAMACPP_URL")
            backend = LlamaCppBackend(
                url,
                api_key=key.get_secret_value() if key else None,
                stall_timeout_s=settings.request_timeout_s,
                load_timeout_s=settings.llamacpp_start_timeout_s,
                locks=SlotLocks(cache_folder("slots", private=True), url),
                strict=strict,
            )
            who, log = f"llama-server at {settings.llamacpp_url}", None
            engine: dict[str, Any] = {"url": url}
            notice(f"using the {who}")
            if strict:
                notice(_NOT_ALONE)
        else:
            # Owning a server pulls in hardware and GGUF probing, which an attached one never needs.
            from agent.core.server_keeper import ServerKeeper  # noqa: PLC0415
            from agent.core.server_launching import open_server  # noqa: PLC0415

            server = await stack.enter_async_context(open_server(settings, notice=notice))
            digest = await asyncio.to_thread(model_digest, server.model, cache_folder("digests"))
            bank = _bank(settings, server, digest)
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
                bank=bank,
                strict=strict,
                notice=notice,
            )
            who, log = server.description, server.log
        await stack.enter_async_context(backend)
        description = f"{who}: {backend.model}, {backend.slots} slots x {backend.context} tokens"
        yield Opened(backend=backend, engine=engine, description=description, server_log=log)


def _death_of(server: LlamaCppServer) -> ServerError | None:
    reason = server.death()
    if reason is None:
        return None
    return ServerError(reason, log=server.log, fix="Run again; the log says more.")


def _bank(settings: Settings, server: LlamaCppServer, digest: str) -> PrefixBank | None:
    folder, argv = server.plan.slot_dir, server.plan.argv
    if folder is None:
        return None
    layout = layout_of(argv, model=digest, build=server.plan.stamp)
    most = settings.prefix_bank_max_mb << 20
    return PrefixBank(folder, layout=layout, model=server.model.name, max_bytes=most)
