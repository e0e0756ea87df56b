"""llama-server's HTTP interface, typed: what we send, what comes back, what its errors mean.

Written for llama.cpp b10434 (tools/server/README.md there); fields that older builds lack have a
stand-in. Knows nothing of slots that are taken or of prompts: see `llamacpp_backend`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from agent.core.errors import (
    BackendError,
    BackendUnavailable,
    ContextTooSmall,
    GarbledOutput,
    ServerError,
)
from agent.core.http_errors import http_errors, new_client, stalled
from agent.core.sse import EventReader

_FIX = (
    "Check LLAMACPP_URL and that the server there runs; "
    "without LLAMACPP_URL a server is started for you."
)
_RETRY_FOR_S = 4.0
"""A server that restarts its HTTP side is back within this time; a model load takes longer and is
waited for when the server is opened, not here."""
_FIRST_PAUSE_S = 0.1
_LOOK_TIMEOUT_S = 5.0
"""/slots is answered between two batches; longer than that it says nothing useful."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """What /props tells: the only truth about a running server."""

    context: int
    """Tokens per slot, as served."""
    slots: int
    model: str
    bos: str
    """Text of the token that starts a sequence; empty when the model has none."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """The server reads the prompt. Counts are tokens; `done` includes the cached ones."""

    total: int
    cached: int
    done: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the answer."""

    text: str
    tokens: list[int]
    predicted: int
    """Tokens of the answer so far."""


@dataclass(frozen=True, slots=True)
class Final:
    """The last event of a generation."""

    text: str
    cut: bool
    """The token budget or the context ran out."""
    cached: int | None
    """Prompt tokens taken from the slot's cache; None where the server does not tell."""
    computed: int
    predicted: int
    prefill_s: float
    decode_s: float


Event = Prefill | Piece | Final


class LlamaCppClient:
    """One server. `died` tells why a server process of ours is gone, None while it lives."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None,
        stall_timeout_s: float,
        died: Callable[[], str | None] | None = None,
    ) -> None:
        self.url = url
        self._stall_s = stall_timeout_s
        self._died = died
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else None
        self._http = new_client(url, stall_s=stall_timeout_s, headers=headers)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def loading(self) -> bool:
        """Whether the server still loads its model. Raises BackendUnavailable without one."""
        with self._errors():
            return (await self._http.get("/health")).status_code == httpx.codes.SERVICE_UNAVAILABLE

    async def props(self) -> Served:
        """What is served. Raises BackendError when this is no llama-server."""
        data = await self._json(self._http.build_request("GET", "/props"))
        with self._understanding("/props"):
            return Served(
                context=int(data["default_generation_settings"]["n_ctx"]),
                slots=int(data["total_slots"]),
                model=str(data.get("model_alias") or data["model_path"]),
                bos=str(data.get("bos_token") or ""),
            )

    async def apply_template(self, messages: list[dict[str, str]]) -> str:
        """The text that the model's chat template makes of `messages`, without a leading BOS."""
        # Thinking stays off: a grammar would leak into it (lessons_from_peers.md, 10).
        body = {"messages": messages, "chat_template_kwargs": {"enable_thinking": False}}
        data = await self._json(self._post("/apply-template", body))
        with self._understanding("/apply-template"):
            return str(data["prompt"])

    async def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """Token ids of `text`; `add_special` puts the BOS in front where the model wants one."""
        body = {"content": text, "add_special": add_special, "parse_special": True}
        data = await self._json(self._post("/tokenize", body))
        with self._understanding("/tokenize"):
            tokens: list[int] = data["tokens"]
            return tokens

    async def is_idle(self, slot: int) -> bool:
        """Whether nothing runs in `slot`. A server that is gone, or that was started without
        this endpoint, counts as idle; one that does not answer in time as busy."""
        try:
            with self._errors():
                reply = await self._http.get("/slots", timeout=_LOOK_TIMEOUT_S)
        except BackendUnavailable:
            return True
        except BackendError:
            return False
        if reply.status_code != httpx.codes.OK:
            return True
        with self._understanding("/slots"):
            return not any(x["id"] == slot and x["is_processing"] for x in reply.json())

    @asynccontextmanager
    async def completion(
        self, body: dict[str, Any], *, answer: int
    ) -> AsyncGenerator[AsyncGenerator[Event, None], None]:
        """Events of one streamed ``/completion``; leaving the block closes the stream.

        `answer` is the token budget, for the message of ContextTooSmall. Raises a BackendError:
        BackendStalled after silence, BackendUnavailable when the stream breaks off.
        """
        response = await self._send(self._post("/completion", body), answer=answer)
        events = self._events(response, answer=answer)
        try:
            yield events
        finally:
            await events.aclose()
            await response.aclose()

    async def _events(
        self, response: httpx.Response, *, answer: int
    ) -> AsyncGenerator[Event, None]:
        reader = EventReader()
        chunks = response.aiter_raw()
        loop = asyncio.get_running_loop()
        silent_until = loop.time() + self._stall_s
        final = False
        # Read on after the final event: a connection is used again only when its body has ended.
        while chunk := await self._next(chunks, silent_until, over=final):
            payloads = reader.feed(chunk)
            if payloads:
                silent_until = loop.time() + self._stall_s
            for payload in payloads:
                event = self._event(payload, answer=answer)
                yield event
                final = final or isinstance(event, Final)
        if not final:
            await self._raise_if_dead()
            raise BackendUnavailable(
                f"{self._peer} ended the stream before the answer was complete.", fix=_FIX
            )

    async def _next(
        self, chunks: AsyncIterator[bytes], silent_until: float, *, over: bool
    ) -> bytes:
        """The next bytes, none at the end. Once the answer is `over`, how the connection ends is
        nobody's concern."""
        try:
            # Pings wake the connection but are no sign of work, so the deadline is the caller's:
            # httpx's own read timeout would begin anew with each ping.
            async with asyncio.timeout_at(silent_until):
                with self._errors():
                    return await anext(chunks, b"")
        except TimeoutError:
            failure: BackendError = stalled(self._peer, self._stall_s)
        except BackendError as error:
            failure = error
        if over:
            return b""
        if isinstance(failure, BackendUnavailable):
            await self._raise_if_dead()
        raise failure

    def _event(self, payload: bytes, *, answer: int) -> Event:
        with self._understanding("/completion"):
            data = json.loads(payload)
            if "error" in data or "code" in data:
                raise self._refusal(data.get("error", data), answer=answer)
            if data["stop"]:
                timings = data["timings"]
                return Final(
                    text=data["content"],
                    cut=data["stop_type"] == "limit",
                    cached=timings.get("cache_n"),
                    computed=timings["prompt_n"],
                    predicted=data["tokens_predicted"],
                    prefill_s=timings["prompt_ms"] / 1000,
                    decode_s=timings["predicted_ms"] / 1000,
                )
            if "prompt_progress" in data:
                progress = data["prompt_progress"]
                return Prefill(progress["total"], progress["cache"], progress["processed"])
            return Piece(data["content"], data.get("tokens", []), data["tokens_predicted"])

    def _post(self, path: str, body: dict[str, Any]) -> httpx.Request:
        # Compact and encoded here: half the time of httpx's own way for a long list of ids.
        content = json.dumps(body, separators=(",", ":")).encode()
        return self._http.build_request(
            "POST", path, content=content, headers={"Content-Type": "application/json"}
        )

    async def _json(self, request: httpx.Request) -> Any:  # noqa: ANN401 - callers take it apart
        response = await self._send(request)
        try:
            with self._errors():
                body = await response.aread()
        finally:
            await response.aclose()
        with self._understanding(request.url.path):
            return json.loads(body)

    async def _send(self, request: httpx.Request, *, answer: int = 0) -> httpx.Response:
        """The response once its headers have come with status 200.

        What a moment's patience can mend (nothing listens, connection dropped before the reply,
        503) is sent again for a few seconds, unless the server process is known to be dead.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + _RETRY_FOR_S
        pause = _FIRST_PAUSE_S
        while True:
            try:
                with self._errors():
                    response = await self._http.send(request, stream=True)
                    if response.status_code == httpx.codes.OK:
                        return response
                    try:
                        body = await response.aread()
                    finally:
                        await response.aclose()
                raise self._refusal(_error_of(response.status_code, body), answer=answer)
            except BackendUnavailable:
                await self._raise_if_dead()
                if loop.time() + pause > give_up_at:
                    raise
            await asyncio.sleep(pause)
            pause *= 2

    def _refusal(self, error: dict[str, Any], *, answer: int) -> BackendError:
        """What an error object of llama-server means (tools/server/server-common.cpp,
        format_error_response)."""
        code, kind = error.get("code", 0), error.get("type", "")
        message = str(error.get("message", error))
        if kind == "exceed_context_size_error":
            return ContextTooSmall(
                prompt=int(error["n_prompt_tokens"]),
                answer=answer,
                context=int(error["n_ctx"]),
                setting="LLAMACPP_CONTEXT_SIZE",
            )
        if code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return BackendError(
                f"{self._peer} does not accept our key: {message}",
                fix="Set LLAMACPP_API_KEY to the --api-key of the server at LLAMACPP_URL.",
            )
        if code == httpx.codes.SERVICE_UNAVAILABLE:
            return BackendUnavailable(f"{self._peer} is not ready: {message}", fix=_FIX)
        # Neither status nor type tells this one apart (llama.cpp #27543).
        if code == httpx.codes.INTERNAL_SERVER_ERROR and "does not match the expected" in message:
            return GarbledOutput(f"The model wrote bytes that are no UTF-8: {message}")
        return BackendError(f"{self._peer} refused the request ({code}): {message}")

    async def _raise_if_dead(self) -> None:
        """A broken connection is noticed before the end of the process is: wait for it briefly."""
        if self._died is None:
            return
        for _ in range(5):
            reason = self._died()
            if reason is not None:
                raise ServerError(reason)
            await asyncio.sleep(0.02)

    @property
    def _peer(self) -> str:
        return f"llama-server at {self.url}"

    def _errors(self) -> AbstractContextManager[None]:
        return http_errors(self._peer, stall_s=self._stall_s, fix=_FIX)

    @contextmanager
    def _understanding(self, endpoint: str) -> Iterator[None]:
        """A reply that does not have the documented form is an error of the peer, not a bug."""
        try:
            yield
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BackendError(
                f"{self._peer} answered {endpoint} in a form that llama-server does not use: "
                f"{type(error).__name__}: {error}",
                fix=_FIX,
            ) from error


def _error_of(status: int, body: bytes) -> dict[str, Any]:
    """The error object of a refused request; a proxy in between may send any other body."""
    try:
        error = json.loads(body)["error"]
        return {"code": status} | error
    except (ValueError, KeyError, TypeError):
        return {"code": status, "message": body[:200].decode(errors="replace")}
