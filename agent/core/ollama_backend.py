"""The backend on an Ollama that already runs: one request at a time, native /api/chat.

What Ollama cannot tell, and what we do: it has no tokenizer endpoint, so that token counts before
a request are estimates; it has no slots that can be named, so that caching is its own affair and
nothing is promised about it (`expected_cached` is 0).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from time import monotonic
from types import TracebackType
from typing import Any, Self

import httpx

from agent.core.backend_manager import (
    Answer,
    Decodes,
    OnProgress,
    Opened,
    Progress,
    Reply,
    Request,
    Timing,
    Usage,
)
from agent.core.config import Settings
from agent.core.errors import BackendError, BackendUnavailable, ContextTooSmall
from agent.core.http_errors import (
    http_errors,
    new_client,
    read_body,
    understanding,
    without_password,
)
from agent.core.json_answer import constrained, parse_answer
from agent.core.json_value import read_json
from agent.core.ollama_wire import (
    ChatEnd,
    ChatError,
    ChatPiece,
    parse_chat,
    parse_error,
    parse_models,
    parse_trained_context,
    parse_version,
)
from agent.core.prompts import Prompt
from agent.core.remote_hosts import Sent, allowed_url
from agent.core.repetition import RepetitionWatch
from agent.core.sse import LineReader, longest_stream

_FIX = "Start it with `ollama serve`, or set OLLAMA_LOCAL to where it runs."
_KEEP_ALIVE = "10m"
"""The model stays loaded over the tests between two requests."""
_BYTES_PER_TOKEN = 2.5
"""Source code has 3 to 4 bytes per token with the vocabularies of today's code models."""
_TEMPLATE_TOKENS = 16
"""What a chat template puts around two messages, at the most."""
_REFUSES_OVERFLOW = (0, 13)
"""From this release `truncate` and `shift` are understood (ollama #12888)."""


class OllamaBackend:
    """A `Backend` on one model of a running Ollama; use it as an async context manager."""

    name = "ollama"
    slots = 1
    """Ollama decodes one request at a time unless OLLAMA_NUM_PARALLEL is set in its own
    environment, which it does not tell. The others wait here, where waiting is no stall."""

    def __init__(
        self,
        url: str,
        *,
        model: str,
        context: int,
        stall_timeout_s: float,
        sent: Sent | None = None,
    ) -> None:
        """`context` is sent as `num_ctx` with every request: another value would load the model
        anew. `stall_timeout_s`: seconds without a token, loading the model included. `sent` counts
        what is sent."""
        self.model = model
        self.context = context
        self._stall_s = stall_timeout_s
        self._peer = f"Ollama at {without_password(url)}"
        self._http = new_client(
            url, stall_s=stall_timeout_s, on_request=sent.count if sent else None
        )
        self._turn = asyncio.Semaphore(self.slots)
        self.version: tuple[int, ...] = ()

    async def __aenter__(self) -> Self:
        try:
            with self._understanding("/api/version"):
                self.version = parse_version(await self._json("GET", "/api/version"))
            await self._find_model()
        except BaseException:
            await self._http.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def count_tokens(self, text: str) -> int:
        """An estimate on the high side for source code; Ollama has no tokenizer to ask."""
        return _estimate(text)

    async def complete(self, request: Request, on_progress: OnProgress | None = None) -> Reply:
        """The model's answer; see `Backend.complete`.

        Raises ContextTooSmall by the estimate of `count_tokens`, and when Ollama says so: it is
        asked to refuse what it would otherwise cut. `Usage.computed` counts cached tokens too
        where Ollama is too old to tell them apart.
        """
        estimate = _estimate(request.prompt.system + request.prompt.user) + _TEMPLATE_TOKENS
        if estimate + request.max_tokens > self.context:
            raise self._too_small(request, estimate)
        report = on_progress or _ignore
        report(Progress(phase="queued", prompt=estimate))
        queued_at = monotonic()
        async with self._turn:
            sent_at = monotonic()
            report(Progress(phase="prefill", prompt=estimate))
            text: list[str] = []
            first_at: float | None = None
            watch = RepetitionWatch()
            end: ChatEnd | None = None
            async with aclosing(self._chat(request, estimate)) as events:
                async for event in events:
                    text.append(event.text)
                    if isinstance(event, ChatEnd):
                        end = event
                        continue
                    first_at = first_at or monotonic()
                    report(Progress(phase="decode", prompt=estimate, done=len(text)))
                    if watch.feed(event.text):
                        break
            now = monotonic()
        first_s = (first_at or now) - sent_at
        if end is None:
            # A loop that was cut has no final line: one piece is one token, nearly always.
            end = ChatEnd("", True, estimate, 0, len(text), first_s, now - sent_at - first_s)
        return Reply(
            text="".join(text),
            finish="length" if end.cut else "stop",
            usage=Usage(
                prompt=end.prompt,
                computed=end.prompt - end.cached,
                cached=end.cached,
                predicted=end.predicted,
            ),
            timing=Timing(
                queued_s=sent_at - queued_at,
                first_token_s=first_s,
                prefill_s=end.prefill_s,
                decode_s=end.decode_s,
            ),
            seed=request.sampling.seed,
        )

    async def decodes(self) -> Decodes | None:
        """None: Ollama does not tell."""
        return None

    async def read_ahead(self, prompt: Prompt, on_progress: OnProgress | None = None) -> None:
        """Nothing: Ollama chooses the slot itself."""

    async def complete_json(
        self, request: Request, answer: type[Answer], on_progress: OnProgress | None = None
    ) -> tuple[Answer, Reply]:
        """See `Backend.complete_json`."""
        reply = await self.complete(constrained(request, answer), on_progress)
        return parse_answer(reply, answer), reply

    async def _chat(
        self, request: Request, estimate: int
    ) -> AsyncGenerator[ChatPiece | ChatEnd, None]:
        """Lines of one streamed chat; closing the generator ends the request."""
        reader = LineReader(max_total=longest_stream(request.max_tokens))
        with self._errors():
            # A connection that was kept may be closed by the server just when it is used again.
            once = {"Connection": "close"}
            async with self._http.stream(
                "POST", "/api/chat", json=self._body(request), headers=once
            ) as response:
                if response.status_code != httpx.codes.OK:
                    message = parse_error(await read_body(response))
                    raise self._refusal(response.status_code, message, request, estimate)
                async for chunk in response.aiter_raw():
                    for line in reader.feed(chunk):
                        with self._understanding("/api/chat"):
                            event = parse_chat(line)
                        if isinstance(event, ChatError):
                            raise self._refusal(0, event.message, request, estimate)
                        yield event
                        if isinstance(event, ChatEnd):
                            return
        raise BackendUnavailable(f"{self._peer} ended the stream before the answer was complete.")

    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": request.prompt.messages,
            "stream": True,
            # A grammar would leak into the thinking part (lessons_from_peers.md, 10).
            "think": False,
            "truncate": False,
            "shift": False,
            "keep_alive": _KEEP_ALIVE,
            "options": {
                "num_ctx": self.context,
                "num_predict": request.max_tokens,
                "seed": request.sampling.seed,
                "temperature": request.sampling.temperature,
                "top_k": request.sampling.top_k,
                "top_p": request.sampling.top_p,
                # Off, as in the chain that llama-server is given; Ollama's default is 1.1.
                "repeat_penalty": 1.0,
            },
        }
        if request.json_schema is not None:
            body["format"] = request.json_schema
        return body

    async def _find_model(self) -> None:
        with self._understanding("/api/tags"):
            names = parse_models(await self._json("GET", "/api/tags"))
        wanted = self.model if ":" in self.model else f"{self.model}:latest"
        if wanted not in names:
            there = "".join(f"\n  {name}" for name in names)
            raise BackendError(
                f"{self._peer} has no model {self.model}."
                + (f"\nModels that are there:{there}" if names else ""),
                fix=f"Fetch it with `ollama pull {self.model}`, or set OLLAMA_MODEL.",
            )
        with self._understanding("/api/show"):
            show = await self._json("POST", "/api/show", {"model": self.model})
            trained = parse_trained_context(show)
        if trained is not None:
            self.context = min(self.context, trained)

    async def _json(self, method: str, path: str, body: dict[str, str] | None = None) -> Any:
        with self._errors():
            async with self._http.stream(method, path, json=body) as response:
                status, content = response.status_code, await read_body(response)
        if status != httpx.codes.OK:
            raise BackendError(
                f"{self._peer} refused {path} ({status}): {parse_error(content)}", fix=_FIX
            )
        with self._understanding(path):
            return read_json(content)

    def _refusal(self, status: int, message: str, request: Request, estimate: int) -> BackendError:
        # Ollama has no error types; this is the text of its 400 for `truncate: false`.
        if "context length" in message:
            return self._too_small(request, estimate)
        if status == httpx.codes.SERVICE_UNAVAILABLE:
            return BackendUnavailable(f"{self._peer} is too busy: {message}")
        return BackendError(f"{self._peer} could not answer ({status}): {message}")

    def _too_small(self, request: Request, estimate: int) -> ContextTooSmall:
        return ContextTooSmall(
            prompt=estimate,
            answer=request.max_tokens,
            context=self.context,
            setting="LLAMACPP_CONTEXT_SIZE",
        )

    def _understanding(self, endpoint: str) -> AbstractContextManager[None]:
        return understanding(self._peer, endpoint, fix=_FIX)

    def _errors(self) -> AbstractContextManager[None]:
        return http_errors(self._peer, stall_s=self._stall_s, fix=_FIX)


@asynccontextmanager
async def open_ollama(
    settings: Settings, *, notice: Callable[[str], None] = lambda _: None
) -> AsyncIterator[Opened]:
    """The Ollama at OLLAMA_LOCAL with OLLAMA_MODEL.

    Raises BackendUnavailable when it does not run, BackendError when it has no such model.
    """
    url = allowed_url(settings.ollama_local, "OLLAMA_LOCAL", settings)
    sent = Sent.to(url)
    async with OllamaBackend(
        url,
        model=settings.ollama_model,
        context=settings.llamacpp_context_size,
        stall_timeout_s=settings.request_timeout_s,
        sent=sent,
    ) as backend:
        release = ".".join(str(part) for part in backend.version)
        if (0, 0, 0) < backend.version < _REFUSES_OVERFLOW:
            notice(
                f"Ollama {release} cuts prompts that are too long and does not say so: update it"
            )
        if settings.turbo_determinism == "strict":
            notice(
                "TURBO_DETERMINISM=strict: Ollama keeps what it wants; answers may still differ."
            )
        shown = without_password(url)
        description = f"Ollama {release} at {shown}: {backend.model}, {backend.context} tokens"
        notice(f"using {description}")
        engine = {"ollama": shown, "model": settings.ollama_model}
        yield Opened(backend=backend, engine=engine, description=description, sent=sent)


def _estimate(text: str) -> int:
    return int(len(text.encode()) / _BYTES_PER_TOKEN) + 1


def _ignore(progress: Progress) -> None:
    """Nobody wants to know."""
