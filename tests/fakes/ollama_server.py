"""An Ollama on the wire: /api/version, /api/tags, /api/show, /api/chat as NDJSON, and
/api/generate only to unload the model.

What /api/chat answers is a `Chat` of the test's choice: a script, or `ThinkingChat`, which lets a
real llama-server think, so that the contract suite can run against it. Other calls fail the test.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from fakes.http_server import Call, FakeHttpServer, Hangup, Responder

Chat = Callable[[Call, Responder], Awaitable[None]]

MODEL = "fake-coder:1b"
TOO_LONG = "the prompt is longer than the context length currently available to the model"


def line(data: dict[str, Any]) -> bytes:
    return json.dumps(data).encode() + b"\n"


def piece(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    return line({"model": MODEL, "message": message, "done": False})


def end(prompt: int, predicted: int, reason: str = "stop", cached: int | None = None) -> bytes:
    data: dict[str, Any] = {
        "model": MODEL,
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": reason,
        "prompt_eval_count": prompt,
        "prompt_eval_duration": 2_000_000,
        "eval_count": predicted,
        "eval_duration": 3_000_000,
    }
    return line(data if cached is None else data | {"prompt_eval_cached_count": cached})


def say(*lines: bytes) -> Chat:
    """These bytes, then the proper end of the stream."""

    async def chat(call: Call, reply: Responder) -> None:
        await reply.begin()
        for data in lines:
            await reply.chunk(data)
        await reply.end()

    return chat


def refuse(status: int, message: str) -> Chat:
    async def chat(call: Call, reply: Responder) -> None:
        await reply.send(status, {"error": message})

    return chat


class ThinkingChat:
    """Passes chats on to a llama-server and its answers back, as Ollama itself does."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def __call__(self, call: Call, reply: Responder) -> None:
        body, options = call.body, call.body["options"]
        template = await self._client.post("/apply-template", json={"messages": body["messages"]})
        sent = {
            "prompt": template.json()["prompt"],
            "stream": True,
            "id_slot": 0,
            "n_predict": options["num_predict"],
            "seed": options["seed"],
            "samplers": ["top_k", "top_p", "temperature"],
            **{name: options[name] for name in ("temperature", "top_k", "top_p")},
        }
        if "format" in body:
            sent["json_schema"] = body["format"]
        async with self._client.stream("POST", "/completion", json=sent) as response:
            if response.status_code != 200:
                await response.aread()
                await reply.send(400, {"error": TOO_LONG})
                return
            await reply.begin()
            async for text in response.aiter_lines():
                if not text.startswith("data: "):
                    continue
                data = json.loads(text.removeprefix("data: "))
                if not data["stop"]:
                    await reply.chunk(piece(data["content"]))
                    continue
                timings = data["timings"]
                prompt = timings["cache_n"] + timings["prompt_n"]
                reason = "length" if data["stop_type"] == "limit" else "stop"
                await reply.chunk(end(prompt, data["tokens_predicted"], reason, timings["cache_n"]))
            await reply.end()


class FakeOllama(FakeHttpServer):
    """Has one model, `MODEL`."""

    def __init__(
        self,
        *chats: Chat,
        always: Chat | None = None,
        version: str = "0.34.0",
        quantisation: str = "Q4_K_M",
    ) -> None:
        super().__init__(self._dispatch)
        self._chats = list(chats)
        self._always = always
        self._version = version
        self._details = {"quantization_level": quantisation}

    @property
    def chats(self) -> list[dict[str, Any]]:
        """Bodies of all calls of /api/chat."""
        return [call.body for call in self.calls if call.path == "/api/chat"]

    async def __aexit__(self, *details: object) -> None:
        await super().__aexit__(*details)
        if details[0] is None:
            assert self._chats == [], "chats were not used"

    async def _dispatch(self, call: Call, reply: Responder) -> None:
        chat = self._always
        if call.path == "/api/chat" and self._chats:
            chat = self._chats.pop(0)
        match call.method, call.path:
            case "GET", "/api/version":
                await reply.send(200, {"version": self._version})
            case "GET", "/api/tags":
                await reply.send(200, {"models": [{"name": MODEL, "model": MODEL}]})
            case "POST", "/api/show" if call.body == {"model": MODEL}:
                info = {
                    "general.architecture": "fake",
                    "general.parameter_count": 4_952_064,
                    "fake.context_length": 2048,
                }
                await reply.send(200, {"model_info": info, "details": self._details})
            case "POST", "/api/generate" if call.body == {"model": MODEL, "keep_alive": 0}:
                await reply.send(200, {"model": MODEL, "done": True, "done_reason": "unload"})
            case "POST", "/api/chat" if chat is not None and call.body["model"] == MODEL:
                await chat(call, reply)
            case _:
                self.failures.append(f"unscripted call: {call}")
                raise Hangup
