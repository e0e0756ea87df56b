"""A real llama-server behind a proxy that answers every /completion itself, without end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from agent.core.config import Settings
from agent.core.server_launching import open_server

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@contextmanager
def endless_answers(piece: bytes) -> Iterator[tuple[str, str]]:
    """Address and key of such a server; `piece` is sent again and again."""
    ready, over = threading.Event(), threading.Event()
    told: list[tuple[str, str]] = []
    thread = threading.Thread(target=lambda: asyncio.run(_serve(piece, told, ready, over)))
    thread.start()
    ready.wait()
    try:
        yield told[0]
    finally:
        over.set()
        thread.join()


async def _serve(
    piece: bytes, told: list[tuple[str, str]], ready: threading.Event, over: threading.Event
) -> None:
    with TemporaryDirectory() as folder:
        async with open_server(Settings(), log_dir=Path(folder)) as server:
            port = int(server.url.rpartition(":")[2])

            async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    await _between(reader, writer, port, piece)
                writer.close()

            proxy = await asyncio.start_server(connected, "127.0.0.1", 0)
            address = proxy.sockets[0].getsockname()
            told.append((f"http://127.0.0.1:{address[1]}", server.api_key))
            ready.set()
            await asyncio.to_thread(over.wait)
            proxy.close()


async def _between(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, piece: bytes
) -> None:
    """One connection: bytes go to and fro until a completion is asked for."""
    behind, to_behind = await asyncio.open_connection("127.0.0.1", port)
    back = asyncio.create_task(_copy(behind, writer))
    try:
        while data := await reader.read(65_536):
            if data.startswith(b"POST /completion "):
                back.cancel()
                writer.write(_HEAD)
                while True:
                    writer.write(piece)
                    await writer.drain()
            to_behind.write(data)
            await to_behind.drain()
    finally:
        back.cancel()
        to_behind.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
