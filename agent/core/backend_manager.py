"""What a backend is, and which one the settings ask for.

The team speaks only to `Backend`. `get_backend` is the one place that knows the implementations;
they are imported when they are needed, so that a command that needs none starts fast.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from pydantic import BaseModel

from agent.core.config import Settings
from agent.core.prompts import Prompt
from agent.core.sampling import Sampling

if TYPE_CHECKING:
    from agent.core.remote_hosts import Sent

Answer = TypeVar("Answer", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens of one request, or of many added up. computed + cached = prompt."""

    prompt: int = 0
    computed: int = 0
    cached: int = 0
    expected_cached: int = 0
    """What the order of prompts promised before the request was sent."""
    predicted: int = 0
    drafted: int = 0
    """Predicted tokens that speculation guessed ahead, right or wrong."""
    accepted: int = 0
    """Those of them that were right."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            **{x.name: getattr(self, x.name) + getattr(other, x.name) for x in fields(self)}
        )


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one request."""

    queued_s: float = 0.0
    """Waiting for a slot on our side."""
    first_token_s: float = 0.0
    """From sending to the first token."""
    prefill_s: float = 0.0
    """As the server reports it."""
    decode_s: float = 0.0
    """As the server reports it."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question to the model."""

    prompt: Prompt
    sampling: Sampling
    max_tokens: int
    """Upper bound of the answer, in tokens."""
    alike: int = 1
    """Requests with this very prompt that are sent together, this one included: what they share is
    then computed once for all of them."""
    priority: int = 0
    """Of several requests that wait for a slot, the one with the lowest number goes first."""
    json_schema: Mapping[str, Any] | None = None
    """Constrains the answer. Only schemas of our own models, never one that a model wrote."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Sent while a request runs."""

    phase: Literal["queued", "prefill", "decode"]
    slot: int | None = None
    prompt: int = 0
    """Prompt tokens, when known."""
    done: int = 0
    """Prompt tokens processed so far (prefill) or tokens predicted so far (decode)."""
    cached: int = 0
    """Prompt tokens that were not computed, when known."""


@dataclass(frozen=True, kw_only=True)
class Decodes:
    """What a server has decoded since its start."""

    batches: int
    """Calls that decode a batch of tokens, one or more of each busy slot."""
    busy: float
    """Slots that took part, over all batches added up."""


@dataclass(frozen=True, kw_only=True)
class CacheMiss:
    """A slot held fewer of a prompt's leading tokens than our book promised."""

    slot: int
    expected: int
    """Tokens."""
    cached: int
    """Tokens; the one after them is the first that was computed again."""
    around: str
    """The prompt's text around that place."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One whole answer."""

    text: str
    finish: Literal["stop", "length"]
    """`length`: the token budget or the context ran out; the text may be cut."""
    usage: Usage
    timing: Timing
    seed: int
    slot: int | None = None
    miss: CacheMiss | None = None


OnProgress = Callable[[Progress], None]


class Backend(Protocol):
    """One model behind HTTP. Requests may run at the same time; cancelling one frees its slot."""

    @property
    def name(self) -> str:
        """`llamacpp` or `ollama`."""
        ...

    @property
    def model(self) -> str:
        """The model as the server names it."""
        ...

    @property
    def context(self) -> int:
        """Tokens that one request may use, prompt and answer together, as served."""
        ...

    @property
    def slots(self) -> int:
        """Requests that the server decodes at the same time."""
        ...

    async def count_tokens(self, text: str) -> int:
        """Tokens of `text` for this model (an upper bound where the server cannot tell)."""
        ...

    async def decodes(self) -> Decodes | None:
        """What was decoded so far, by whomever; None where the server does not tell."""
        ...

    async def complete(self, request: Request, on_progress: OnProgress | None = None) -> Reply:
        """The model's answer. Raises a BackendError."""
        ...

    async def read_ahead(self, prompt: Prompt, on_progress: OnProgress | None = None) -> None:
        """Let a slot read the beginning of a prompt that may be asked soon, so that only the rest
        is left then. It only reads while no request runs, and ends when one comes; it does nothing
        where the server itself chooses slots. Raises a BackendError."""
        ...

    async def complete_json(
        self, request: Request, answer: type[Answer], on_progress: OnProgress | None = None
    ) -> tuple[Answer, Reply]:
        """An answer constrained by the schema of `answer` and validated by it.

        Raises BadAnswer when the text does not validate (cut off, or refused by a validator),
        otherwise a BackendError.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A backend that is ready, and what the report says of it."""

    backend: Backend
    engine: Mapping[str, Any]
    """What another run must have the same to give the same answers; JSON values."""
    description: str
    """One line: binary or address, model, slots, context."""
    server_log: Path | None = None
    sent: Sent | None = None
    """What went to another machine, counted as it goes; None for a server on this one."""


@asynccontextmanager
async def get_backend(
    settings: Settings,
    *,
    notice: Callable[[str], None] = lambda _: None,
    on_launch: Callable[[], object] = lambda: None,
    on_restart: Callable[[str], None] = lambda _: None,
    apart: Path | None = None,
) -> AsyncIterator[Opened]:
    """Open the backend that `settings` names and close it, with its server, at the end.

    `notice` gets one line per thing worth knowing (which model, which server). `on_launch` is
    called when a server of our own is about to be started: its loading leaves time for other work.
    `on_restart` gets the reason whenever a server of ours had to be started again. `apart` is a
    folder for saved prefixes: a llama-server is then started that shares nothing with other runs.
    Raises an EngineError when it cannot be opened.
    """
    if settings.backend == "ollama":
        from agent.core.ollama_backend import open_ollama  # noqa: PLC0415 - only when asked for

        async with open_ollama(settings, notice=notice) as opened:
            yield opened
    else:
        from agent.core.llamacpp_opening import open_llamacpp  # noqa: PLC0415 - only when asked for

        async with open_llamacpp(
            settings, notice=notice, on_launch=on_launch, on_restart=on_restart, apart=apart
        ) as opened:
            yield opened
