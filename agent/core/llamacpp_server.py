"""One llama-server process and its owner.

`LlamaCppServer.launch` starts a plan, waits until the server is ready, dead or late, and ends it
whatever happens; server_launching.py decides what to launch. Nothing survives the
``async with``: the server leads a process group of its own, which is ended on every way out, and
the kernel kills it when this program is killed (see process_group.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent.core.config import server_environment
from agent.core.errors import BinaryError, ServerDied, ServerError
from agent.core.gpu_flaws import Flaw
from agent.core.gpu_truth import GpuTruth
from agent.core.launch_plan import LaunchPlan
from agent.core.process_group import die_with_parent, end_group
from agent.core.server_deaths import PORT_TAKEN, Death, explain_death
from agent.core.server_log import end_of, keep_bounded
from agent.core.server_notes import noted

_KNOWN_LINES = 2
"""Of the log, where the cause is known and said."""
_PATIENCE_S = 0.3
"""After each TERM. An idle server needs 0.1 s; with a live stream it would take a second, but the
second TERM ends it at once (rule 12). It keeps nothing that could be lost."""


class LlamaCppServer:
    """A running server. Made by `launch`, which also ends it."""

    def __init__(
        self, plan: LaunchPlan, process: asyncio.subprocess.Process, *, api_key: str, log: Path
    ) -> None:
        self.plan = plan
        self.api_key = api_key
        self.log = log
        self.url = f"http://127.0.0.1:{plan.port}"
        self.pid = process.pid
        self.model = plan.model
        self.slots = plan.slots
        self.description = plan.description
        self.truth = GpuTruth()
        self.flaws: tuple[Flaw, ...] = ()
        """What it keeps on which device, and what is wrong with that; open_server() fills both in
        once it is ready."""
        self._process = process

    @classmethod
    @asynccontextmanager
    async def launch(
        cls, plan: LaunchPlan, *, log: Path, timeout_s: float, api_key: str | None = None
    ) -> AsyncIterator[LlamaCppServer]:
        """The server of `plan`, ready for requests within `timeout_s` seconds, with a new
        `api_key` unless one is given.

        Raises ServerDied when it ends before, ServerError when it is late, BinaryError when it
        cannot be executed.
        """
        key = api_key or secrets.token_hex(24)
        _write_secret(plan.api_key_file, key)
        try:
            server = cls(plan, await _start(plan, key, log), api_key=key, log=log)
            tidy = asyncio.create_task(keep_bounded(log))
            with noted(server.pid):
                try:
                    await server._until_ready(timeout_s)
                    plan.api_key_file.unlink(missing_ok=True)
                    yield server
                finally:
                    tidy.cancel()
                    await server.end()
        finally:
            plan.api_key_file.unlink(missing_ok=True)

    async def end(self) -> None:
        """End the server and all that it started. A server that has ended is left alone."""
        await end_group(self._process, patience_s=_PATIENCE_S, terms=2)

    def death(self) -> str | None:
        """None while it lives; else the cause in one line and the end of the log below it."""
        if self._process.returncode is None:
            return None
        tail = "".join(f"\n  | {line}" for line in self.log_tail().splitlines())
        return f"llama-server {self._cause().reason}{tail}"

    async def watch(self) -> str:
        """Wait until the server ends, and say why as `death` does."""
        await self._process.wait()
        return self.death() or ""

    def log_tail(self, lines: int = 12) -> str:
        """The last lines of the log, without colours and control characters."""
        return "\n".join(end_of(self.log).splitlines()[-lines:])

    def _cause(self) -> Death:
        status = self._process.returncode or 0
        cause = explain_death(status, end_of(self.log))
        # One in sixty servers that cannot bind exits before its log is written (measured).
        if cause.kind == "other" and status == 1 and _is_taken(self.plan.port):
            return PORT_TAKEN
        return cause

    async def _until_ready(self, timeout_s: float) -> None:
        ready = asyncio.create_task(self._answers())
        dead = asyncio.create_task(self._process.wait())
        try:
            await asyncio.wait(
                {ready, dead}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if dead.done():
                raise self._died()
            if not ready.done():
                raise self._late(timeout_s)
            ready.result()
        finally:
            ready.cancel()
            dead.cancel()
            await asyncio.gather(ready, dead, return_exceptions=True)

    async def _answers(self) -> None:
        """Ask until the server is healthy and proves to be ours."""
        # Imported while the server loads; whoever uses the server needs it anyway.
        import httpx  # noqa: PLC0415

        began = time.monotonic()
        # The bare context is never used, and loading the certificates for a real one takes 45 ms.
        unused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        async with httpx.AsyncClient(
            base_url=self.url, timeout=5.0, trust_env=False, verify=unused
        ) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get("/health")).status_code == httpx.codes.OK:
                        # Another server may have taken the port: only ours wants our key.
                        key = {"Authorization": f"Bearer {self.api_key}"}
                        ours = (await client.get("/props", headers=key)).status_code
                        anyone = (await client.get("/props")).status_code
                        if (ours, anyone) == (httpx.codes.OK, httpx.codes.UNAUTHORIZED):
                            return
                await asyncio.sleep(0.005 if time.monotonic() - began < 1 else 0.05)

    def _died(self) -> ServerDied:
        cause = self._cause()
        return ServerDied(
            f"llama-server {cause.reason} ({self.model.name}, port {self.plan.port}).",
            kind=cause.kind,
            log=self.log,
            log_tail=self.log_tail() if cause.kind == "other" else self.log_tail(_KNOWN_LINES),
            fix=cause.fix,
        )

    def _late(self, timeout_s: float) -> ServerError:
        return ServerError(
            f"llama-server was not ready after {timeout_s:g} s ({self.model.name}).",
            log=self.log,
            log_tail=self.log_tail(),
            fix="Raise LLAMACPP_START_TIMEOUT_S, or use a smaller model.",
        )


async def _start(plan: LaunchPlan, key: str, log: Path) -> asyncio.subprocess.Process:
    secret = {"LLAMA_API_KEY": key} if plan.key_in_environment else {}
    environment = {**server_environment(), **plan.environment, **secret}
    try:
        sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise ServerError(
            f"The log {log} cannot be written: {error.strerror or error}",
            fix="Make room on that disk or make the folder writable.",
        ) from None
    try:
        return await asyncio.create_subprocess_exec(
            *plan.argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=environment,
            cwd=log.parent,  # a core dump must not land in the user's repository
            start_new_session=True,
            preexec_fn=die_with_parent(),
        )
    except OSError as error:
        raise BinaryError(
            f"{plan.argv[0]} cannot be executed: {error.strerror or error}",
            fix="Set LLAMACPP_BINARY_PATH to a llama-server for this machine.",
        ) from None
    finally:
        os.close(sink)


def _write_secret(path: Path, key: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(key + "\n")


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does: connections that only linger do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
