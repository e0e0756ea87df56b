"""llama-server's HTTP interface: one method per endpoint, every failure one of our errors.

Knows nothing of leases and prompts: see `llamacpp_backend`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from time import monotonic
from typing import Any

import httpx

from agent.core.backend_manager import Decodes
from agent.core.errors import (
    BackendError,
    BackendStalled,
    BackendUnavailable,
    ContextTooSmall,
    GarbledOutput,
    RequestRefused,
    ServerError,
)
from agent.core.http_errors import (
    http_errors,
    new_client,
    read_body,
    stalled,
    understanding,
    without_password,
)
from agent.core.json_value import read_json, shown, text, whole
from agent.core.llamacpp_wire import (
    Event,
    Failure,
    Final,
    Piece,
    Prefill,
    Served,
    parse_event,
    parse_failure,
    parse_metrics,
    parse_props,
)
from agent.core.remote_hosts import Sent
from agent.core.sse import EventReader, longest_stream

_FIX = (
    "Check LLAMACPP_URL and that the server there runs; "
    "without LLAMACPP_URL a server is started for you."
)
_BROKEN_FIX = (
    "The model file may be damaged: `turbo models verify` tells, for one that was pulled; fetch "
    "any other one again. Or it is too new for this llama-server: take another server "
    "(turbo server binaries)."
)
_REFUSED_FIX = (
    "Take another llama-server (turbo server binaries), or check what answers at LLAMACPP_URL."
)
_RETRY_FOR_S = 4.0
"""A server that restarts its HTTP side is back within this time; a model load takes longer and is
waited for when the server is opened, not here."""
_FIRST_PAUSE_S = 0.05
_LOAD_PAUSE_S = 0.2
_SILENT_AFTER_S = 2.0
_HUNG_AFTER_S = 15.0
"""Seconds without an answer to /health after which a server is said to be silent, and given up."""
_LOOK_TIMEOUT_S = 5.0
"""/slots is answered between two batches; longer than that it says nothing useful."""


class LlamaCppClient:
    """One server. `died` says why a server process of ours is gone, None while it lives; `sent`
    counts what is sent."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None,
        stall_timeout_s: float,
        died: Callable[[], ServerError | None] | None = None,
        sent: Sent | None = None,
    ) -> None:
        self.url = url
        self._stall_s = stall_timeout_s
        self._died = died
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else None
        count = sent.count if sent else None
        self._http = new_client(url, stall_s=stall_timeout_s, headers=headers, on_request=count)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def wait_loaded(
        self, timeout_s: float, notice: Callable[[str], None] = lambda _: None
    ) -> None:
        """Wait for a server that is there but still loads its model (/health says 503); `notice`
        gets a line when it is silent.

        Raises BackendUnavailable when nothing answers, or when loading takes longer, and
        BackendStalled when the server accepts connections and says nothing.
        """
        give_up_at = monotonic() + timeout_s
        while True:
            status = await self._health(notice)
            if status != httpx.codes.SERVICE_UNAVAILABLE:
                return
            if monotonic() > give_up_at:
                raise BackendUnavailable(f"{self._peer} still loads its model.", fix=_FIX)
            await asyncio.sleep(_LOAD_PAUSE_S)

    async def _health(self, notice: Callable[[str], None]) -> int:
        """The status of /health, which a llama-server answers at once whatever it does."""
        for patience_s in (_SILENT_AFTER_S, _HUNG_AFTER_S - _SILENT_AFTER_S):
            try:
                return (await self._look("/health", patience_s))[0]
            except BackendStalled:
                if patience_s == _SILENT_AFTER_S:
                    notice(f"Waiting for {self._peer}, which does not answer.")
        raise BackendStalled(f"{self._peer} did not answer for {_HUNG_AFTER_S:g} s.", fix=_FIX)

    async def props(self) -> Served:
        """What is served. Raises BackendError when this is no llama-server."""
        try:
            data = await self._json(self._http.build_request("GET", "/props"))
        except RequestRefused:
            raise BackendError(
                f"What answers at {without_password(self.url)} is no llama-server.", fix=_FIX
            ) from None
        with self._understanding("/props"):
            return parse_props(data)

    async def apply_template(self, messages: list[dict[str, str]]) -> str:
        """The text that the model's chat template makes of `messages`, without a leading BOS."""
        # Thinking stays off: a grammar would leak into it (lessons_from_peers.md, 10).
        body = {"messages": messages, "chat_template_kwargs": {"enable_thinking": False}}
        data = await self._json(self._post("/apply-template", body))
        with self._understanding("/apply-template"):
            return text(data["prompt"])

    async def tokenize(self, words: str, *, add_special: bool) -> list[int]:
        """Token ids of `words`; `add_special` puts the BOS in front where the model wants one."""
        body = {"content": words, "add_special": add_special, "parse_special": True}
        data = await self._json(self._post("/tokenize", body))
        with self._understanding("/tokenize"):
            return [whole(token) for token in data["tokens"]]

    async def pieces(self, tokens: list[int]) -> str:
        """The text of token ids."""
        data = await self._json(self._post("/detokenize", {"tokens": tokens}))
        with self._understanding("/detokenize"):
            return shown(data["content"])

    async def save_slot(self, slot: int, file: str) -> int:
        """Write what the slot's cache holds to `file` in the server's folder for slots; the bytes
        written. Raises BackendError, also where the server was started without such a folder."""
        return await self._slot_action(slot, "save", file)

    async def restore_slot(self, slot: int, file: str) -> bool:
        """Fill the slot's cache from `file`. False when the server does not take that file; the
        slot holds nothing then (seen with b10434)."""
        try:
            await self._slot_action(slot, "restore", file)
        except RequestRefused:
            return False
        return True

    async def erase_slot(self, slot: int) -> None:
        """Empty the slot's cache. Raises BackendError."""
        await self._slot_action(slot, "erase", "")

    async def _slot_action(self, slot: int, action: str, file: str) -> int:
        """The bytes that it wrote."""
        path = f"/slots/{slot}?action={action}"
        data = await self._json(self._post(path, {"filename": file}))
        with self._understanding(path):
            return whole(data["n_written"] if action == "save" else 0)

    async def decodes(self) -> Decodes | None:
        """The server's counters; None when it is gone or was started without them."""
        try:
            status, body = await self._look("/metrics", _LOOK_TIMEOUT_S)
        except BackendError:
            return None
        return parse_metrics(body.decode(errors="replace")) if status == httpx.codes.OK else None

    async def is_idle(self, slot: int) -> bool:
        """Whether nothing runs in `slot`. A server that is gone, or that was started without
        this endpoint, counts as idle; one that does not answer in time as busy."""
        try:
            status, body = await self._look("/slots", _LOOK_TIMEOUT_S)
            if status != httpx.codes.OK:
                return True
            with self._understanding("/slots"):
                slots = read_json(body)
                return not any(x["id"] == slot and x["is_processing"] for x in slots)
        except BackendError as error:
            # Refused means gone; a connection that was merely lost is worth another look.
            return isinstance(error.__cause__, httpx.ConnectError)

    @asynccontextmanager
    async def completion(
        self, body: dict[str, Any], *, answer: int
    ) -> AsyncGenerator[AsyncGenerator[Event, None], None]:
        """Events of one streamed ``/completion``; leaving the block closes the stream.

        `answer` is the token budget, for the message of ContextTooSmall. Raises a BackendError:
        BackendStalled after silence or events that get no further, BackendUnavailable when the
        stream breaks off.
        """
        # The server closes the connection of a stream without saying so in its headers (b10434);
        # put back into the pool it would fail the next request now and then.
        request = self._post("/completion", body, connection="close")
        response = await self._send(request, answer=answer)
        events = self._events(response, answer=answer)
        try:
            yield events
        finally:
            await events.aclose()
            await response.aclose()

    async def _events(
        self, response: httpx.Response, *, answer: int
    ) -> AsyncGenerator[Event, None]:
        reader = EventReader(max_total=longest_stream(answer))
        chunks = response.aiter_raw()
        loop = asyncio.get_running_loop()
        silent_until = loop.time() + self._stall_s
        furthest = (0, -1)
        while chunk := await self._next(chunks, silent_until):
            for payload in reader.feed(chunk):
                with self._understanding("/completion"):
                    event = parse_event(payload)
                # A server that tells again and again how far it is has come no further.
                if not isinstance(event, Failure) and _reached(event) > furthest:
                    furthest = _reached(event)
                    silent_until = loop.time() + self._stall_s
                if isinstance(event, Failure):
                    raise self._refusal(event, answer=answer)
                yield event
                if isinstance(event, Final):
                    return
        await self._raise_if_dead()
        raise BackendUnavailable(
            f"{self._peer} ended the stream before the answer was complete.", fix=_FIX
        )

    async def _next(self, chunks: AsyncIterator[bytes], silent_until: float) -> bytes:
        """The next bytes, none at the end."""
        try:
            # Pings wake the connection but are no sign of work, so the deadline is the caller's:
            # httpx's own read timeout would begin anew with each ping.
            async with asyncio.timeout_at(silent_until):
                with self._errors():
                    return await anext(chunks, b"")
        except TimeoutError:
            raise stalled(self._peer, self._stall_s) from None
        except BackendUnavailable:
            await self._raise_if_dead()
            raise

    async def _look(self, path: str, timeout_s: float) -> tuple[int, bytes]:
        """Status and body of what a llama-server answers at once."""
        with self._errors():
            async with self._http.stream("GET", path, timeout=timeout_s) as response:
                return response.status_code, await read_body(response)

    def _post(
        self, path: str, body: dict[str, Any], *, connection: str = "keep-alive"
    ) -> httpx.Request:
        return self._http.build_request("POST", path, json=body, headers={"Connection": connection})

    async def _json(self, request: httpx.Request) -> Any:
        response = await self._send(request)
        try:
            with self._errors():
                body = await read_body(response)
        finally:
            await response.aclose()
        with self._understanding(request.url.path):
            return read_json(body)

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
                        body = await read_body(response)
                    finally:
                        await response.aclose()
                raise self._refusal(parse_failure(response.status_code, body), answer=answer)
            except BackendUnavailable:
                await self._raise_if_dead()
                if loop.time() + pause > give_up_at:
                    raise
            await asyncio.sleep(pause)
            pause *= 2

    def _refusal(self, failure: Failure, *, answer: int) -> BackendError:
        """Our error for an error object of llama-server."""
        code, message = failure.code, failure.message
        if failure.kind == "exceed_context_size_error":
            return ContextTooSmall(
                prompt=failure.prompt,
                answer=answer,
                context=failure.context,
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
        return RequestRefused(
            f"{self._peer} refused the request ({code}): {message}",
            fix=_BROKEN_FIX if code == httpx.codes.INTERNAL_SERVER_ERROR else _REFUSED_FIX,
        )

    async def _raise_if_dead(self) -> None:
        """A broken connection is noticed before the end of the process is: wait for it briefly."""
        if self._died is None:
            return
        for _ in range(5):
            death = self._died()
            if death is not None:
                raise death
            await asyncio.sleep(0.02)

    @property
    def _peer(self) -> str:
        return f"llama-server at {without_password(self.url)}"

    def _errors(self) -> AbstractContextManager[None]:
        return http_errors(self._peer, stall_s=self._stall_s, fix=_FIX)

    def _understanding(self, endpoint: str) -> AbstractContextManager[None]:
        return understanding(self._peer, endpoint, fix=_FIX)


def _reached(event: Event) -> tuple[int, int]:
    """How far the server is: first it reads, then it writes."""
    match event:
        case Prefill():
            return (0, event.done)
        case Piece():
            return (1, event.predicted)
        case Final():
            return (2, 0)
