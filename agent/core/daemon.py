"""The daemon: a process that holds one llama-server for all runs of a user, and starts it again.

It lives until a signal ends it. Whoever wants its server reads the record (daemon_record.py); it
takes no requests itself, so that nothing of it can hang but llama-server.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import ExitStack

import agent
from agent.core.config import Settings
from agent.core.daemon_control import log_folder
from agent.core.daemon_record import DaemonRecord, Serving, being_the_daemon, last_answer
from agent.core.daemon_wish import wish_of
from agent.core.errors import ServerError, UsageError
from agent.core.folders import cache_folder
from agent.core.llamacpp_client import LlamaCppClient
from agent.core.llamacpp_opening import bank_of
from agent.core.llamacpp_server import LlamaCppServer
from agent.core.model_digest import model_digest
from agent.core.process_id import ProcessId
from agent.core.restore_probe import Restore, find_restore
from agent.core.server_keeper import ServerKeeper
from agent.core.server_launching import open_server
from agent.core.server_notes import end_left_over
from agent.core.server_sleep import without_sleep

_STEADY_S = 60.0
"""A server that lived this long was no failure to start, even if no run tells of an answer."""


async def serve(
    settings: Settings, *, sleep_idle_s: int | None, say: Callable[[str], None]
) -> None:
    """Be the daemon until cancelled; `say` gets a line per thing worth knowing. The server gives
    its memory back after `sleep_idle_s` seconds without a request, and loads again at the next.

    Raises UsageError when one runs already, and EngineError when a server cannot be had any more.
    """
    with ExitStack() as stack:
        if not stack.enter_context(being_the_daemon()):
            raise UsageError(
                "A daemon runs already.", fix="`turbo server status` tells more about it."
            )
        record = DaemonRecord(
            version=agent.__version__,
            supervisor=ProcessId.ours(),
            since=time.time(),
        )
        record.write()
        end_left_over(say)
        os.chdir(log_folder())  # the folder in which it was started stays free
        async with open_server(
            settings, notice=say, log_dir=log_folder(), sleep_idle_s=sleep_idle_s
        ) as server:
            serving = await _look_at(server, settings, sleep_idle_s, say)
            wish = await asyncio.to_thread(wish_of, settings)
            record = record.model_copy(update={"wish": wish})
            await _keep(server, settings.llamacpp_start_timeout_s, record, serving, say)


async def _keep(
    server: LlamaCppServer,
    timeout_s: float,
    record: DaemonRecord,
    serving: Serving,
    say: Callable[[str], None],
) -> None:
    """Offer the server to runs, and start it again whenever it ends."""
    record.model_copy(update={"serving": serving}).write()
    say(f"{server.description} serves {server.model.name} at {server.url} (pid {server.pid}).")
    async with ServerKeeper(server, timeout_s=timeout_s, on_restart=say) as keeper:
        while True:
            life, began, before = await keeper.ready(), time.monotonic(), last_answer()
            reason = (await keeper.server.watch()).partition("\n")[0]
            if time.monotonic() - began > _STEADY_S or last_answer() != before:
                keeper.answered()
            await keeper.revive(life, ServerError(reason))
            serving = serving.model_copy(
                update={
                    "process": _process(keeper.server),
                    "starts": serving.starts + 1,
                    "reason": reason,
                    "log": keeper.server.log,
                }
            )
            record.model_copy(update={"serving": serving}).write()
            say(f"Started it again (pid {keeper.server.pid}).")


async def _look_at(
    server: LlamaCppServer,
    settings: Settings,
    sleep_idle_s: int | None,
    say: Callable[[str], None],
) -> Serving:
    """Find out all that a run has to know; the server is still ours alone."""
    digest = await asyncio.to_thread(model_digest, server.model, cache_folder("digests"))
    bank = bank_of(settings, server, digest)
    client = LlamaCppClient(
        server.url, api_key=server.api_key, stall_timeout_s=settings.request_timeout_s
    )
    try:
        served = await client.props()
        restore = await find_restore(client, bank, say) if bank else Restore.NONE
    finally:
        await client.aclose()
    return Serving(
        process=_process(server),
        starts=1,
        reason="",
        log=server.log,
        url=server.url,
        api_key=server.api_key,
        description=server.description,
        build=server.plan.build,
        argv=without_sleep(server.plan.argv),
        model=server.model,
        model_sha256=digest,
        slots=served.slots,
        context=served.context,
        sleep_idle_s=sleep_idle_s,
        slot_dir=bank.folder if bank else None,
        layout=bank.layout if bank else "",
        restore=restore,
    )


def _process(server: LlamaCppServer) -> ProcessId:
    process = ProcessId.of(server.pid)
    if process is None:
        raise ServerError(server.death() or "llama-server is gone", log=server.log)
    return process
