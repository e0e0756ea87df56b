"""What llama-server sends, typed.

Written for llama.cpp b10434 (tools/server/README.md and server-task.cpp there); fields that older
builds lack have a stand-in. The parsers raise ValueError, KeyError, TypeError or AttributeError
for anything that llama-server does not send.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from agent.core.backend_manager import Decodes
from agent.core.json_value import finite, read_json, shown, text, whole


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
    drafted: int = 0
    """Tokens that speculation guessed; 0 without it."""
    accepted: int = 0
    """Those of them that were right."""


Event = Prefill | Piece | Final


@dataclass(frozen=True, slots=True)
class Failure:
    """An error object (server-common.cpp, format_error_response)."""

    code: int
    """HTTP status, also in the middle of a stream."""
    kind: str
    message: str
    prompt: int = 0
    """Tokens of the refused prompt, for `exceed_context_size_error`."""
    context: int = 0


def parse_props(data: Any) -> Served:
    """The reply of /props."""
    return Served(
        context=whole(data["default_generation_settings"]["n_ctx"]),
        slots=whole(data["total_slots"]),
        model=shown(data.get("model_alias") or data["model_path"]),
        bos=text(data.get("bos_token") or ""),
    )


def parse_metrics(page: str) -> Decodes | None:
    """The reply of /metrics; None where it lacks what is wanted."""
    lines = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
    values = {name: value for name, _, value in lines}
    try:
        batches = float(values["llamacpp:n_decode_total"])
        busy = float(values["llamacpp:n_busy_slots_per_decode"])
    except (KeyError, ValueError):
        return None
    if not math.isfinite(batches * busy):
        return None
    return Decodes(batches=int(batches), busy=batches * busy)


def parse_event(payload: bytes) -> Event | Failure:
    """One event of a streamed /completion."""
    data = read_json(payload)
    if "error" in data:
        return _failure(0, data["error"])
    if "stop" not in data and "code" in data:
        return _failure(0, data)
    if data["stop"]:
        timings = data["timings"]
        cached = timings.get("cache_n")
        return Final(
            text=text(data["content"]),
            cut=data["stop_type"] == "limit",
            cached=None if cached is None else whole(cached),
            computed=whole(timings["prompt_n"]),
            predicted=whole(data["tokens_predicted"]),
            prefill_s=finite(timings["prompt_ms"]) / 1000,
            decode_s=finite(timings["predicted_ms"]) / 1000,
            drafted=whole(timings.get("draft_n", 0)),
            accepted=whole(timings.get("draft_n_accepted", 0)),
        )
    if "prompt_progress" in data:
        progress = data["prompt_progress"]
        counts = (whole(progress[key]) for key in ("total", "cache", "processed"))
        return Prefill(*counts)
    tokens = [whole(token) for token in data.get("tokens", [])]
    return Piece(text(data["content"]), tokens, whole(data["tokens_predicted"]))


def parse_failure(status: int, body: bytes) -> Failure:
    """The body of a refused request; a proxy in between may have sent any other one."""
    try:
        return _failure(status, read_json(body)["error"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return Failure(status, "", body[:200].decode(errors="replace"))


def _failure(status: int, error: Any) -> Failure:
    return Failure(
        code=whole(error.get("code", status)),
        kind=shown(error.get("type", "")),
        message=shown(error.get("message", error)),
        prompt=whole(error.get("n_prompt_tokens", 0)),
        context=whole(error.get("n_ctx", 0)),
    )
