"""A TCP proxy that harms what passes through it, by chance but the same way for the same seed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

KINDS = ("cut", "reset", "silence", "delay", "twice", "lost", "garbled")


@dataclass
class Chance:
    """What happens to which piece of an answer."""

    seed: int
    every: float
    """Pieces between two faults, on average."""
    kinds: Sequence[str] = KINDS
    done: list[str] = field(default_factory=list)
    """The faults so far."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._left = self._pieces()

    def _pieces(self) -> float:
        return self._random.expovariate(1 / self.every)

    def kind(self) -> str:
        """What happens to the next piece; empty for nothing."""
        self._left -= 1
        if self._left > 0:
            return ""
        self._left = self._pieces()
        self.done.append(self._random.choice(self.kinds))
        return self.done[-1]

    def garbled(self, data: bytes) -> bytes:
        """Some of the bytes become others."""
        changed = bytearray(data)
        for _ in range(self._random.randint(1, 4)):
            changed[self._random.randrange(len(changed))] = self._random.randrange(256)
        return bytes(changed)

    def part(self, data: bytes) -> bytes:
        """The beginning, which may end in the middle of a header, an event or a character."""
        return data[: self._random.randrange(len(data) + 1)]


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


async def _harm(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chance: Chance) -> None:
    while data := await reader.read(65_536):
        kind = chance.kind()
        match kind:
            case "cut" | "reset":
                data = chance.part(data)
            case "silence":
                await asyncio.Event().wait()
            case "delay":
                await asyncio.sleep(0.05)
            case "twice":
                data += data
            case "lost":
                continue
            case "garbled":
                data = chance.garbled(data)
        writer.write(data)
        await writer.drain()
        if kind == "reset":
            writer.transport.abort()
        if kind in ("cut", "reset"):
            return


@asynccontextmanager
async def faulty_proxy(target: str, chance: Chance) -> AsyncIterator[str]:
    """The URL of a proxy in front of the server at the URL `target`."""
    port = urlsplit(target).port
    connections: set[asyncio.Task[None]] = set()
    opened: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        tasks: list[asyncio.Task[None]] = []
        try:
            above_reader, above_writer = await asyncio.open_connection("127.0.0.1", port)
            opened.append(above_writer)
            writers.append(above_writer)
            asking = asyncio.create_task(_forward(reader, above_writer))
            answering = asyncio.create_task(_harm(above_reader, writer, chance))
            tasks += [asking, answering]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for each in writers:
                each.close()
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        connections.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        for each in opened:  # one that came last was cancelled before it began to serve
            each.close()
            with contextlib.suppress(OSError):
                await each.wait_closed()
