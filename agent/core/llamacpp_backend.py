"""The backend on llama-server: every request pinned to a slot that nobody else uses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar

from agent.core.backend_manager import (
    Answer,
    CacheMiss,
    Decodes,
    OnProgress,
    Progress,
    Reply,
    Request,
)
from agent.core.errors import (
    BackendStalled,
    BackendUnavailable,
    ContextTooSmall,
    GarbledOutput,
    ServerError,
)
from agent.core.generation import Generation
from agent.core.json_answer import constrained, parse_answer
from agent.core.llamacpp_client import LlamaCppClient
from agent.core.llamacpp_wire import Served
from agent.core.prefix_bank import PrefixBank
from agent.core.prefixes import Prefixes
from agent.core.prompt_encoder import Encoded, PromptEncoder
from agent.core.prompts import Prompt
from agent.core.remote_hosts import Sent
from agent.core.restore_probe import Restore, find_restore
from agent.core.sampling import Sampling
from agent.core.server_life import Keeper, NotOurs
from agent.core.slot_locks import SlotLocks
from agent.core.slots import SlotPool
from agent.core.token_prefix import common_prefix, whole_prefix

Result = TypeVar("Result")

_SERVER_FAILED = (BackendUnavailable, BackendStalled, ServerError)
_GARBLED_RETRIES = 2
_TOKENS_AROUND = 12
"""Shown on either side of the place of a cache miss."""
_RETRY_SEED = 1_000_003
"""Added to the seed per retry: far from the seeds that candidates and rounds count through."""
_LAST = 1_000
"""Priority of what nobody waits for."""
_RETRY_TEMPERATURE = 0.3
"""A greedy or nearly greedy retry would write the same bytes again."""

_JSON_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""For builds that constrain by llguidance, as xllamacpp does: they allow white space without end,
and a small model goes on with it until its answer is cut. Other builds pass over this and bound the
white space themselves."""


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
        bank: PrefixBank | None = None,
        restore: Restore | None = None,
        locks: SlotLocks | None = None,
        keeper: Keeper | None = None,
        strict: bool = False,
        notice: Callable[[str], None] = lambda _: None,
        sent: Sent | None = None,
    ) -> None:
        """`stall_timeout_s`: seconds without a token or progress. `load_timeout_s`: seconds to
        wait for a server that still loads its model. `died` tells why a server of ours is gone,
        None while it lives; `keeper` starts another one. `bank` lies in the server's folder for
        slots, and `restore` is what its prefixes are good for; None: that is tried, which needs an
        idle server. `locks` are for a server that others use too; they are closed with the backend.
        `strict`: one request at a time, and none uses what an earlier one left. `notice` gets
        lines worth knowing. `sent` counts what is sent."""
        self._client = LlamaCppClient(
            url, api_key=api_key, stall_timeout_s=stall_timeout_s, died=died, sent=sent
        )
        self._stall_s = stall_timeout_s
        self._load_s = load_timeout_s
        self._bank = bank
        self._restore = restore
        self._locks = locks
        self._keeper = keeper or NotOurs()
        self._strict = strict
        self._notice = notice
        self._served = Served(context=0, slots=0, model="", bos="")
        self.restore = Restore.NONE
        """What restored prefixes are good for on this server."""

    async def __aenter__(self) -> Self:
        try:
            while True:
                self._life = await self._keeper.ready()
                try:
                    await self._open()
                    break
                except _SERVER_FAILED as error:
                    await self._keeper.revive(self._life, error)
        except BaseException:
            await self._client.aclose()
            raise
        return self

    async def _open(self) -> None:
        """Learn all that must be known of the server before the first request."""
        await self._client.wait_loaded(self._load_s, self._notice)
        self._served = await self._client.props()
        self.restore = restore = await self._what_restores()
        self._encoder = PromptEncoder(
            self._client, bos=self._served.bos, beginnings=restore is not Restore.NONE
        )
        await self._encoder.learn()
        self._prefixes = Prefixes(self._client, self._bank, restore, self._notice)
        self._slots = SlotPool(
            self.slots,
            is_idle=self._client.is_idle,
            wedged_after_s=self._stall_s,
            on_wedged=self._on_wedged,
            locks=self._locks,
            reusable=self._reusable(restore),
        )

    async def _what_restores(self) -> Restore:
        if self._bank is None:
            return Restore.NONE
        return self._restore or await find_restore(self._client, self._bank, self._notice)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._slots.aclose()
        if self._locks is not None:
            self._locks.close()
        await self._encoder.aclose()
        self._prefixes.close()
        await self._client.aclose()

    def _reusable(self, restore: Restore) -> Callable[[Sequence[int], Sequence[int]], int]:
        if self._strict:
            return _nothing
        return whole_prefix if restore is Restore.EXTENSION else common_prefix

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
        """Slots that are used."""
        return 1 if self._strict else self._served.slots

    async def count_tokens(self, text: str) -> int:
        """Exact, by the server's tokenizer; without the tokens that a chat template adds."""
        return len(await self._outliving(lambda: self._client.tokenize(text, add_special=False)))

    async def decodes(self) -> Decodes | None:
        """See `Backend.decodes`."""
        return await self._client.decodes()

    async def complete(self, request: Request, on_progress: OnProgress | None = None) -> Reply:
        """The model's answer; see `Backend.complete`. Cancelling it closes the stream.

        A server of ours that dies or stalls meanwhile is started again and asked again. Output that
        the server cannot send is asked for again with another seed, twice at most.
        """
        with self._prefixes.announced(request.prompt):
            report = on_progress or _ignore
            reply = await self._outliving(lambda: self._answer(request, report))
        self._keeper.answered()
        return reply

    async def read_ahead(self, prompt: Prompt, on_progress: OnProgress | None = None) -> None:
        """See `Backend.read_ahead`. Cancelling it closes the stream."""
        if self._strict:
            return
        report = on_progress or _ignore
        encoded = await self._encoder.encode_beginning(prompt)
        # Reading a prompt all but stops what other slots decode (benchmarks/overlap.py).
        if self._slots.free < self._slots.count or len(encoded.ids) >= self.context:
            return
        async with self._slots.lease(encoded.ids, priority=_LAST) as lease:
            ahead = await self._prefixes.provide(lease, prompt, encoded, report)
            await self._prefixes.read(
                lease,
                encoded,
                ahead,
                report,
                until=lambda: self._slots.free < self._slots.count - 1,
            )

    async def complete_json(
        self, request: Request, answer: type[Answer], on_progress: OnProgress | None = None
    ) -> tuple[Answer, Reply]:
        """See `Backend.complete_json`."""
        reply = await self.complete(constrained(request, answer), on_progress)
        return parse_answer(reply, answer), reply

    def _others_run(self) -> bool:
        return self._slots.free < self._slots.count - 1

    async def _outliving(self, ask: Callable[[], Awaitable[Result]]) -> Result:
        """What `ask` returns, if need be of the server that follows the one of now."""
        while True:
            life = await self._keeper.ready()
            if life != self._life:
                self._life = life
                self._slots.forget()
            try:
                return await ask()
            except _SERVER_FAILED as error:
                await self._keeper.revive(life, error)

    def _on_wedged(self, slot: int) -> None:
        reason = f"slot {slot} was still busy {self._stall_s:g} s after its request was given up"
        self._keeper.revive_soon(self._life, reason)

    async def _answer(self, request: Request, report: OnProgress) -> Reply:
        prompt = await self._encoder.encode(request.prompt)
        if len(prompt.ids) + request.max_tokens > self.context:
            raise ContextTooSmall(
                prompt=len(prompt.ids),
                answer=request.max_tokens,
                context=self.context,
                setting="LLAMACPP_CONTEXT_SIZE",
            )
        return await self._complete(request, prompt, report)

    async def _complete(self, request: Request, prompt: Encoded, report: OnProgress) -> Reply:
        for retry in range(_GARBLED_RETRIES):
            try:
                sampling = _varied(request.sampling, retry)
                return await self._attempt(request, prompt, sampling, report)
            except GarbledOutput:
                continue
        sampling = _varied(request.sampling, _GARBLED_RETRIES)
        return await self._attempt(request, prompt, sampling, report)

    async def _attempt(
        self, request: Request, prompt: Encoded, sampling: Sampling, report: OnProgress
    ) -> Reply:
        ids = prompt.ids
        report(Progress(phase="queued", prompt=len(ids)))
        queued_at = monotonic()
        async with self._slots.lease(ids, priority=request.priority) as lease:
            sent_at = monotonic()
            ahead = await self._prefixes.provide(
                lease, request.prompt, prompt, report, alike=request.alike
            )
            generation = Generation(ids=ids, lease=lease, sent_at=sent_at, ahead=ahead)
            body = _body(request, ids, sampling, lease.slot, reuse=not self._strict)
            try:
                async with self._client.completion(body, answer=request.max_tokens) as events:
                    async for event in events:
                        if not generation.take(event, report):
                            break
            finally:
                lease.held = generation.held()
            reply = generation.reply(seed=sampling.seed, queued_s=sent_at - queued_at)
        if reply.usage.cached < reply.usage.expected_cached:
            return replace(reply, miss=await self._explain_miss(reply, ids, ahead.computed))
        return reply

    async def _explain_miss(self, reply: Reply, ids: list[int], ahead: int) -> CacheMiss:
        """Where the slot's cache ended, though our book went on. An empty slot means that the
        server began anew: then nothing in the book is true any more."""
        cached = reply.usage.cached + ahead
        if cached == 0:
            self._slots.forget()
        around = ids[max(0, cached - _TOKENS_AROUND) : cached + _TOKENS_AROUND]
        return CacheMiss(
            slot=reply.slot if reply.slot is not None else -1,
            expected=reply.usage.expected_cached + ahead,
            cached=cached,
            around=await self._client.pieces(around),
        )


def _nothing(held: Sequence[int], wanted: Sequence[int]) -> int:
    """Nothing of what a slot holds is used."""
    return 0


def _body(
    request: Request, ids: list[int], sampling: Sampling, slot: int, *, reuse: bool
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "prompt": ids,
        "id_slot": slot,
        "n_predict": request.max_tokens,
        "cache_prompt": reuse,
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
        body["json_schema"] = {**request.json_schema, "x-guidance": _JSON_LAYOUT}
    return body


def _varied(sampling: Sampling, retry: int) -> Sampling:
    """The preset for one try; every retry differs from what went wrong before."""
    if retry == 0:
        return sampling
    varied = sampling.with_seed(sampling.seed + _RETRY_SEED * retry)
    return replace(varied, temperature=max(varied.temperature, _RETRY_TEMPERATURE))


def _ignore(progress: Progress) -> None:
    """Nobody wants to know."""
