"""Whether a run may use the daemon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager

import agent
from agent.core.config import Settings
from agent.core.daemon_record import (
    DaemonRecord,
    Serving,
    daemon_lives,
    find_daemon,
    read_record,
    using_the_daemon,
)
from agent.core.daemon_wish import differences, wish_of
from agent.core.errors import EngineError

_PAUSE_S = 0.05


@asynccontextmanager
async def joined_daemon(
    settings: Settings, notice: Callable[[str], None]
) -> AsyncIterator[Serving | None]:
    """The server of the daemon, when there is one and it is what these settings ask for; else None,
    and `notice` gets a line that says why. While the block lasts, `turbo server stop` knows of us.
    """
    with ExitStack() as stack:
        serving = None
        try:
            if await asyncio.to_thread(find_daemon, notice) is not None:
                stack.enter_context(using_the_daemon())
                serving = await _fitting(settings, notice)
        except _NotUsed as reason:
            stack.close()
            notice(f"The daemon is not used: {reason}. This run starts a server of its own.")
        yield serving


def beside_the_daemon(settings: Settings) -> Settings:
    """The settings for a server of our own: where the daemon has the port that they name, any."""
    record = read_record() if settings.llamacpp_port and daemon_lives() else None
    if record and record.serving and record.serving.url.endswith(f":{settings.llamacpp_port}"):
        return settings.model_copy(update={"llamacpp_port": 0})
    return settings


class _NotUsed(Exception):
    """The daemon does not do for this run, and why."""


async def _fitting(settings: Settings, notice: Callable[[str], None]) -> Serving | None:
    try:
        record = await _ready(settings, notice)
        if record is None:
            return None
        if record.version != agent.__version__:
            raise _NotUsed(f"it is of turbo {record.version} (turbo server restart)")
        if record.serving is None:
            raise _NotUsed("it still loads its model")
        if settings.turbo_determinism == "strict":
            raise _NotUsed("TURBO_DETERMINISM=strict needs a server that nobody else uses")
        differ = differences(record.wish, await asyncio.to_thread(wish_of, settings))
    except EngineError as error:
        raise _NotUsed(error.message) from None
    if differ:
        raise _NotUsed("; ".join(differ))
    return record.serving


async def _ready(settings: Settings, notice: Callable[[str], None]) -> DaemonRecord | None:
    """The daemon once its server has loaded, which takes no longer than one of our own would."""
    record = await asyncio.to_thread(find_daemon, notice)
    if record is None or record.serving is not None:
        return record
    notice("Waiting for the daemon, which loads its model.")
    give_up_at = time.monotonic() + settings.llamacpp_start_timeout_s
    while record is not None and record.serving is None and time.monotonic() < give_up_at:
        await asyncio.sleep(_PAUSE_S)
        record = await asyncio.to_thread(find_daemon, notice)
    return record
