"""A llama-server that does not think but speaks the protocol, and fails as scripted.

Everything but /completion is answered as the real one does it. Each /completion takes the next
step of the script; one without a step, an unknown path and a step left over fail the test.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from fakes.http_server import Call, FakeHttpServer, Hangup, Responder

Step = Callable[[Call, Responder], Awaitable[None]]

KEY = "right"
GARBLED = "The model produced output that does not match the expected Content-only format"


def error(code: int, message: str, kind: str = "server_error", **more: int) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "type": kind} | more}


def event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def answer(*pieces: str, stop: str = "eos", cached: int = 0) -> Step:
    """A whole answer, one token per piece."""

    async def step(call: Call, reply: Responder) -> None:
        prompt = len(call.body["prompt"])
        await reply.begin()
        await reply.chunk(_progress(prompt, cached))
        for data in _pieces(pieces):
            await reply.chunk(data)
        await reply.chunk(_final(call, prompt, cached, len(pieces), stop))
        await reply.end()

    return step


def refuse(status: int, body: dict[str, Any] | bytes) -> Step:
    async def step(call: Call, reply: Responder) -> None:
        await reply.send(status, body)

    return step


def hang_up(*pieces: str, begun: bool = True) -> Step:
    """Cut the connection after some pieces, or before the first byte of the reply."""

    async def step(call: Call, reply: Responder) -> None:
        if begun:
            await reply.begin()
            for data in _pieces(pieces):
                await reply.chunk(data)
        raise Hangup

    return step


def end_early(*pieces: str) -> Step:
    """A stream that is closed properly but has no last event."""

    async def step(call: Call, reply: Responder) -> None:
        await reply.begin()
        for data in _pieces(pieces):
            await reply.chunk(data)
        await reply.end()

    return step


def stall(*pieces: str, pings: bool = False) -> Step:
    async def step(call: Call, reply: Responder) -> None:
        await reply.begin()
        for data in _pieces(pieces):
            await reply.chunk(data)
        while True:
            await asyncio.sleep(0.02)
            if pings:
                await reply.chunk(b": ping\n\n")

    return step


def read_on(*done: int, forever: bool) -> Step:
    """Tell how far the prompt is read, and the last of it `forever`; else answer after it."""

    async def step(call: Call, reply: Responder) -> None:
        prompt = len(call.body["prompt"])
        await reply.begin()
        for count in done:
            await reply.chunk(_progress(prompt, 0, count))
            await asyncio.sleep(0.05)
        while forever:
            await reply.chunk(_progress(prompt, 0, done[-1]))
            await asyncio.sleep(0.02)
        await reply.chunk(_final(call, prompt, 0, 0, "eos"))
        await reply.end()

    return step


def fail_midway(body: dict[str, Any], *pieces: str) -> Step:
    async def step(call: Call, reply: Responder) -> None:
        await reply.begin()
        for data in _pieces(pieces):
            await reply.chunk(data)
        await reply.chunk(event(body))
        await reply.end()

    return step


def plain_template(system: str, user: str) -> str:
    return f"<system>{system}<user>{user}<assistant>"


class FakeLlamaServer(FakeHttpServer):
    """One slot pool that is always idle, a tokenizer that makes one token per character."""

    def __init__(
        self,
        *script: Step,
        context: int = 1024,
        slots: int = 2,
        bos: str = "",
        template: Callable[[str, str], str] = plain_template,
        port: int = 0,
    ) -> None:
        super().__init__(self._dispatch, port=port)
        self._template = template
        self._script = list(script)
        self._context = context
        self._slots = slots
        self._bos = bos
        self.health: list[int] = []
        """Statuses of the next calls of /health; 200 when there are none."""

    @property
    def completions(self) -> list[dict[str, Any]]:
        """Bodies of all calls of /completion."""
        return [call.body for call in self.calls if call.path == "/completion"]

    async def __aexit__(self, *details: object) -> None:
        await super().__aexit__(*details)
        if details[0] is None:
            assert self._script == [], "steps were not used"

    async def _dispatch(self, call: Call, reply: Responder) -> None:
        if call.path == "/health":
            await reply.send(self.health.pop(0) if self.health else 200, {"status": "ok"})
        elif call.headers.get("authorization") != f"Bearer {KEY}":
            await reply.send(401, error(401, "Invalid API Key", "authentication_error"))
        elif call.path == "/props":
            settings = {"n_ctx": self._context}
            props = {"default_generation_settings": settings, "total_slots": self._slots}
            await reply.send(200, props | {"model_alias": "fake", "bos_token": self._bos})
        elif call.path == "/metrics":
            await reply.send(501, error(501, "This server does not count", "not_supported_error"))
        elif call.path == "/slots":
            slots = [{"id": x, "is_processing": False} for x in range(self._slots)]
            await reply.send(200, slots)
        elif call.path == "/apply-template":
            system, user = call.body["messages"]
            text = self._template(system["content"], user["content"])
            await reply.send(200, {"prompt": self._bos + text})
        elif call.path == "/tokenize":
            special = self._bos if call.body["add_special"] else ""
            await reply.send(200, {"tokens": [ord(x) for x in special + call.body["content"]]})
        elif call.path == "/detokenize":
            await reply.send(200, {"content": "".join(map(chr, call.body["tokens"]))})
        elif call.path == "/completion" and self._script:
            await self._script.pop(0)(call, reply)
        else:
            self.failures.append(f"unscripted call: {call}")
            raise Hangup


def _progress(prompt: int, cached: int, done: int | None = None) -> bytes:
    processed = prompt if done is None else done
    counts = {"total": prompt, "cache": cached, "processed": processed, "time_ms": 1}
    return event({"content": "", "stop": False, "prompt_progress": counts})


def _pieces(pieces: tuple[str, ...]) -> list[bytes]:
    return [
        event({"content": x, "tokens": [i], "stop": False, "tokens_predicted": i + 1})
        for i, x in enumerate(pieces)
    ]


def _final(call: Call, prompt: int, cached: int, predicted: int, stop: str) -> bytes:
    return event(
        {
            "content": "",
            "tokens": [],
            "id_slot": call.body["id_slot"],
            "stop": True,
            "stop_type": stop,
            "tokens_predicted": predicted,
            "timings": {
                "cache_n": cached,
                "prompt_n": prompt - cached,
                "prompt_ms": 2.0,
                "predicted_ms": 3.0,
            },
        }
    )
