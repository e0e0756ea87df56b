"""The backend on llama-server: every request pinned to a slot that nobody else uses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from agent.core.backend_manager import (
    Answer,
    OnProgress,
    Opened,
    Progress,
    Reply,
    Request,
)
from agent.core.config import Settings
from agent.core.errors import ContextTooSmall, GarbledOutput, ServerError
from agent.core.generation import Generation
from agent.core.http_errors import checked_url
from agent.core.json_answer import constrained, parse_answer
from agent.core.llamacpp_client import LlamaCppClient
from agent.core.llamacpp_wire import Served
from agent.core.prompt_encoder import PromptEncoder
from agent.core.sampling import Sampling
from agent.core.slots import SlotPool

if TYPE_CHECKING:
    from agent.core.llamacpp_server import LlamaCppServer

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
        load_timeout_s: float = 0.0,
        died: Callable[[], ServerError | None] | None = None,
    ) -> None:
        """`stall_timeout_s`: seconds without a token or progress. `load_timeout_s`: seconds to
        wait for a server that still loads its model. `died` tells why a server of ours is gone,
        None while it lives."""
        self._client = LlamaCppClient(
            url, api_key=api_key, stall_timeout_s=stall_timeout_s, died=died
        )
        self._stall_s = stall_timeout_s
        self._load_s = load_timeout_s
        self._served = Served(context=0, slots=0, model="", bos="")

    async def __aenter__(self) -> Self:
        try:
            await self._client.wait_loaded(self._load_s)
            self._served = await self._client.props()
            self._encoder = PromptEncoder(self._client, bos=self._served.bos)
            await self._encoder.learn()
        except BaseException:
            await self._client.aclose()
            raise
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
            generation = Generation(ids=ids, lease=lease, sent_at=monotonic())
            body = _body(request, ids, sampling, lease.slot)
            try:
                async with self._client.completion(body, answer=request.max_tokens) as events:
                    async for event in events:
                        if not generation.take(event, report):
                            break
            finally:
                lease.held = generation.held()
            return generation.reply(seed=sampling.seed, queued_s=generation.sent_at - queued_at)


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
                checked_url(settings.llamacpp_url, "LLAMACPP_URL"),
                api_key=key.get_secret_value() if key else None,
                stall_timeout_s=settings.request_timeout_s,
                load_timeout_s=settings.llamacpp_start_timeout_s,
            )
            who, log = f"llama-server at {settings.llamacpp_url}", None
            notice(f"using the {who}")
        else:
            # Owning a server pulls in hardware and GGUF probing, which an attached one never needs.
            from agent.core.llamacpp_server import open_server  # noqa: PLC0415

            server = await stack.enter_async_context(open_server(settings, notice=notice))
            backend = LlamaCppBackend(
                server.url,
                api_key=server.api_key,
                stall_timeout_s=settings.request_timeout_s,
                died=lambda: _death_of(server),
            )
            who, log = server.description, server.log
        await stack.enter_async_context(backend)
        description = f"{who}: {backend.model}, {backend.slots} slots x {backend.context} tokens"
        yield Opened(backend=backend, description=description, server_log=log)


def _death_of(server: LlamaCppServer) -> ServerError | None:
    reason = server.death()
    if reason is None:
        return None
    return ServerError(reason, log=server.log, fix="Run again; the log says more.")


def _body(request: Request, ids: list[int], sampling: Sampling, slot: int) -> dict[str, Any]:
    body: dict[str, Any] = {
        "prompt": ids,
        "id_slot": slot,
        "n_predict": request.max_tokens,
        "cache_prompt": True,
        "stream": True,
        "return_progress": True,
        "seed": sampling.seed,
        # Every sampler that is not named here is off.
        "samplers": ["top_k", "top_p", "temperature"],
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "temperature": sampling.temperature,
    }
    if request.json_schema is not None:
        body["json_schema"] = request.json_schema
    return body


def _varied(sampling: Sampling, retry: int) -> Sampling:
    """The preset for one try; every retry differs from what went wrong before."""
    if retry == 0:
        return sampling
    varied = sampling.with_seed(sampling.seed + _RETRY_SEED * retry)
    return replace(varied, temperature=max(varied.temperature, _RETRY_TEMPERATURE))


def _ignore(progress: Progress) -> None:
    """Nobody wants to know."""
