"""Servers of several configurations, open at the same time as far as memory allows.

A server that is idle takes no CPU, so that comparing two of them in turn costs no start-ups. When
memory does not suffice for one more, the one that was not used for the longest time is closed.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType

from agent.core.config import Settings
from agent.core.errors import ServerError
from agent.core.launch_ladder import Ladder, given_up
from agent.core.llamacpp_client import LlamaCppClient
from agent.core.llamacpp_server import LlamaCppServer
from agent.core.server_launching import open_server, prepare
from agent.measure.configuration import DEFAULT, Configuration
from agent.measure.rates import Measured


class OpenServer:
    """One server of the pool."""

    def __init__(self, server: LlamaCppServer, client: LlamaCppClient) -> None:
        self.server = server
        self.client = client
        plan = server.plan
        self.measured = Measured(client, slots=plan.slots, slot_dir=plan.slot_dir)


class ServerPool:
    """Opens servers as they are asked for, and closes all of them at the end."""

    def __init__(self, settings: Settings, *, log_dir: Path) -> None:
        """The port of `settings` is not used: there may be several servers. Slots are saved in any
        case, for a moment: measuring is quicker then."""
        saved = max(1, settings.prefix_bank_max_mb)
        changed = {"llamacpp_port": 0, "prefix_bank_max_mb": saved}
        self._settings = settings.model_copy(update=changed)
        self._log_dir = log_dir
        self._open: dict[Configuration, tuple[OpenServer, AsyncExitStack]] = {}
        self._default: Ladder | None = None
        self.crowded = False
        """A server had to be closed for another one: each change costs a start-up."""

    async def __aenter__(self) -> ServerPool:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close_all()

    def is_open(self, configuration: Configuration) -> bool:
        """Whether asking for it costs no start-up."""
        return configuration in self._open

    async def get(self, configuration: Configuration) -> OpenServer:
        """The server of a configuration. Raises an EngineError or SettingsError; ServerError, too,
        when memory does not suffice for it."""
        known = self._open.pop(configuration, None)
        if known is None:
            await self._make_room(configuration)
            known = await self._start(configuration)
        self._open[configuration] = known  # the last one is the one that was used last
        return known[0]

    async def close(self, configuration: Configuration) -> None:
        """End a server; nothing when it is not open."""
        known = self._open.pop(configuration, None)
        if known is not None:
            await known[1].aclose()

    async def close_all(self) -> None:
        """End all servers."""
        async with AsyncExitStack() as all_of_them:
            for _, stack in self._open.values():
                all_of_them.push_async_callback(stack.aclose)
            self._open.clear()

    async def _make_room(self, configuration: Configuration) -> None:
        while True:
            prepared = await prepare(self._settings, tuned=configuration.values)
            if configuration == DEFAULT and not self._open:
                self._default = prepared.ladder
            if self._fits(prepared.ladder):
                return
            if not self._open:
                less = given_up(prepared.ladder.asked, prepared.ladder.rung.shape)
                raise ServerError(f"Memory does not suffice for it: {less}.")
            self.crowded = True
            await self.close(next(iter(self._open)))

    def _fits(self, ladder: Ladder) -> bool:
        """Whether it would be started as asked for, or with no less than the default is."""
        base = self._default
        if base is None or base is ladder:
            return True
        now, then = ladder.rung.shape, base.rung.shape
        whole = not given_up(ladder.asked, now)
        same = given_up(base.asked, then) == given_up(ladder.asked, now)
        return (whole or same) and ladder.estimate.gpu_layers >= base.estimate.gpu_layers

    async def _start(self, configuration: Configuration) -> tuple[OpenServer, AsyncExitStack]:
        stack = AsyncExitStack()
        try:
            opening = open_server(self._settings, log_dir=self._log_dir, tuned=configuration.values)
            server = await stack.enter_async_context(opening)
            client = LlamaCppClient(
                server.url,
                api_key=server.api_key,
                stall_timeout_s=self._settings.request_timeout_s,
            )
            stack.push_async_callback(client.aclose)
        except BaseException:
            await stack.aclose()
            raise
        return OpenServer(server, client), stack
