"""The backend on llama-server: every request pinned to a slot that nobody else uses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from agent.core.backend_manager import (
    Answer,
    OnProgress,
    Opened,
    Progress,
    Reply,
    Request,
    Timing,
    Usage,
)
from agent.core.config import Settings
from agent.core.errors import (
    BackendUnavailable,
    ContextTooSmall,
    GarbledOutput,
    ServerError,
    SettingsError,
)
from agent.core.json_answer import constrained, parse_answer
from agent.core.llamacpp_client import Final, LlamaCppClient, Piece, Prefill, Served
from agent.core.prompt_encoder import PromptEncoder
from agent.core.repetition import RepetitionWatch
from agent.core.sampling import Sampling
from agent.core.slots import Lease, SlotPool

_GARBLED_RETRIES = 2
_RETRY_SEED = 1_000_003
"""Added to the seed per retry: far from the seeds that candidates and rounds count through."""
_RETRY_TEMPERATURE = 0.3
"""A greedy or nearly greedy retry would write the same bytes again."""


class LlamaCppBackend:
    """A `Backend` on one running llama-server; use it as an async context manager."""

    name = "llamacpp"

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        stall_timeout_s: float,
        died: Callable[[], str | None] | None = None,
    ) -> None:
        """`stall_timeout_s`: seconds without a token or progress. `died` tells why a server of
        ours is gone, None while it lives."""
        self._client = LlamaCppClient(
            url, api_key=api_key, stall_timeout_s=stall_timeout_s, died=died
        )
        self._stall_s = stall_timeout_s
        self._served = Served(context=0, slots=0, model="", bos="")

    async def __aenter__(self) -> Self:
        try:
            self._served = await self._client.props()
        except BaseException:
            await self._client.aclose()
            raise
        self._encoder = PromptEncoder(self._client, bos=self._served.bos)
        self._slots = SlotPool(
            self._served.slots, is_idle=self._client.is_idle, wedged_after_s=self._stall_s
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._slots.aclose()
        await self._encoder.aclose()
        await self._client.aclose()

    @property
    def model(self) -> str:
        """The model as the server names it."""
        return self._served.model

    @property
    def context(self) -> int:
        """Tokens per slot, as served."""
        return self._served.context

    @property
    def slots(self) -> int:
        """Slots, as served."""
        return self._served.slots

    async def count_tokens(self, text: str) -> int:
        """Exact, by the server's tokenizer; without the tokens that a chat template adds."""
        return len(await self._client.tokenize(text, add_special=False))

    async def complete(self, request: Request, on_progress: OnProgress | None = None) -> Reply:
        """The model's answer; see `Backend.complete`. Cancelling it closes the stream.

        Output that the server cannot send is asked for again with another seed, twice at most.
        """
        ids = await self._encoder.encode(request.prompt)
        if len(ids) + request.max_tokens > self.context:
            raise ContextTooSmall(
                prompt=len(ids),
                answer=request.max_tokens,
                context=self.context,
                setting="LLAMACPP_CONTEXT_SIZE",
            )
        report = on_progress or _ignore
        for retry in range(_GARBLED_RETRIES):
            try:
                return await self._attempt(request, ids, _varied(request.sampling, retry), report)
            except GarbledOutput:
                continue
        sampling = _varied(request.sampling, _GARBLED_RETRIES)
        return await self._attempt(request, ids, sampling, report)

    async def complete_json(
        self, request: Request, answer: type[Answer], on_progress: OnProgress | None = None
    ) -> tuple[Answer, Reply]:
        """See `Backend.complete_json`."""
        reply = await self.complete(constrained(request, answer), on_progress)
        return parse_answer(reply, answer), reply

    async def _attempt(
        self, request: Request, ids: list[int], sampling: Sampling, report: OnProgress
    ) -> Reply:
        report(Progress(phase="queued", prompt=len(ids)))
        queued_at = monotonic()
        async with self._slots.lease(ids) as lease:
            generation = _Generation(ids=ids, lease=lease, sent_at=monotonic())
            body = _body(request, ids, sampling, lease.slot)
            async with self._client.completion(body, answer=request.max_tokens) as events:
                async for event in events:
                    if not generation.take(event, report):
                        break
            return generation.reply(seed=sampling.seed, queued_s=generation.sent_at - queued_at)


@dataclass(kw_only=True)
class _Generation:
    """What is known of one running request; keeps the lease's book as it goes."""

    ids: list[int]
    lease: Lease
    sent_at: float
    text: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    predicted: int = 0
    cached: int = 0
    first_token_at: float | None = None
    final: Final | None = None
    watch: RepetitionWatch = field(default_factory=RepetitionWatch)

    def take(self, event: Prefill | Piece | Final, report: OnProgress) -> bool:
        """Account for one event. False when the rest is not worth having."""
        match event:
            case Piece():
                if self.first_token_at is None:
                    self.first_token_at = monotonic()
                self.text.append(event.text)
                self.tokens += event.tokens
                self.predicted = event.predicted
                self._hold(len(self.ids))
                self._report(report, "decode", event.predicted)
                return not self.watch.feed(event.text)
            case Prefill():
                self.cached = event.cached
                self._hold(event.done)
                self._report(report, "prefill", event.done)
            case Final():
                self.text.append(event.text)
                self.predicted = event.predicted
                self.final = event
                self.lease.idle = True
        return True

    def reply(self, *, seed: int, queued_s: float) -> Reply:
        """The whole answer, after the last event or after a loop was cut."""
        final = self.final
        now = monotonic()
        first = self.first_token_at if self.first_token_at is not None else now
        prompt = len(self.ids)
        if final is not None:
            self.cached = final.cached if final.cached is not None else prompt - final.computed
        # The last prompt token is always computed: its output is the first token of the answer.
        expected = min(self.lease.expected_cached, prompt - 1)
        return Reply(
            text="".join(self.text),
            finish="length" if final is None or final.cut else "stop",
            usage=Usage(
                prompt=prompt,
                computed=prompt - self.cached,
                cached=self.cached,
                expected_cached=expected,
                predicted=self.predicted,
            ),
            timing=Timing(
                queued_s=queued_s,
                first_token_s=first - self.sent_at,
                prefill_s=final.prefill_s if final else first - self.sent_at,
                decode_s=final.decode_s if final else now - first,
            ),
            seed=seed,
            slot=self.lease.slot,
        )

    def _hold(self, prompt_tokens: int) -> None:
        # The newest token is in the slot's cache only once the next one is computed.
        self.lease.held = self.ids[:prompt_tokens] + self.tokens[:-1]

    def _report(
        self, report: OnProgress, phase: Literal["prefill", "decode"], done: int
    ) -> None:
        report(Progress(phase=phase, slot=self.lease.slot, prompt=len(self.ids), done=done))


@asynccontextmanager
async def open_llamacpp(
    settings: Settings, *, notice: Callable[[str], None] = lambda _: None
) -> AsyncIterator[Opened]:
    """A llama-server that runs at LLAMACPP_URL, or one of our own that ends with the block.

    Raises an EngineError when neither can be had, SettingsError for an address that is none.
    """
    async with AsyncExitStack() as stack:
        if settings.llamacpp_url is not None:
            key = settings.llamacpp_api_key
            backend = LlamaCppBackend(
                _checked(settings.llamacpp_url),
                api_key=key.get_secret_value() if key else None,
                stall_timeout_s=settings.request_timeout_s,
            )
            await _wait_loaded(backend, settings, notice)
            who, log = settings.llamacpp_url, None
        else:
            # Owning a server pulls in hardware and GGUF probing, which an attached one never needs.
            from agent.core.llamacpp_server import open_server  # noqa: PLC0415

            server = await stack.enter_async_context(open_server(settings, notice=notice))
            backend = LlamaCppBackend(
                server.url,
                api_key=server.api_key,
                stall_timeout_s=settings.request_timeout_s,
                died=server.death,
            )
            who, log = server.description, server.log
        await stack.enter_async_context(backend)
        description = f"{who}: {backend.model}, {backend.slots} slots x {backend.context} tokens"
        yield Opened(backend=backend, description=description, server_log=log)
