"""What llama-server sends, typed.

Written for llama.cpp b10434 (tools/server/README.md and server-task.cpp there); fields that older
builds lack have a stand-in. The parsers raise ValueError, KeyError, TypeError or AttributeError
for anything that llama-server does not send.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from agent.core.backend_manager import Decodes

_MOST = 2**53
"""Nothing that is counted comes to that; above it JSON's numbers are not exact."""


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
        context=_count(data["default_generation_settings"]["n_ctx"]),
        slots=_count(data["total_slots"]),
        model=str(data.get("model_alias") or data["model_path"]),
        bos=str(data.get("bos_token") or ""),
    )


def parse_metrics(text: str) -> Decodes | None:
    """The reply of /metrics; None where it lacks what is wanted."""
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    values = {name: value for name, _, value in lines}
    try:
        batches = float(values["llamacpp:n_decode_total"])
        busy = float(values["llamacpp:n_busy_slots_per_decode"])
    except (KeyError, ValueError):
        return None
    known = 0 <= batches < _MOST and 0 <= busy < _MOST
    return Decodes(batches=int(batches), busy=batches * busy) if known else None


def parse_event(payload: bytes) -> Event | Failure:
    """One event of a streamed /completion."""
    data = json.loads(payload)
    if "error" in data:
        return _failure(0, data["error"])
    if "stop" not in data and "code" in data:
        return _failure(0, data)
    if data["stop"]:
        timings = data["timings"]
        return Final(
            text=_text(data["content"]),
            cut=data["stop_type"] == "limit",
            cached=_count(timings["cache_n"]) if "cache_n" in timings else None,
            computed=_count(timings["prompt_n"]),
            predicted=_count(data["tokens_predicted"]),
            prefill_s=_number(timings["prompt_ms"]) / 1000,
            decode_s=_number(timings["predicted_ms"]) / 1000,
            drafted=_count(timings.get("draft_n", 0)),
            accepted=_count(timings.get("draft_n_accepted", 0)),
        )
    if "prompt_progress" in data:
        progress = data["prompt_progress"]
        return Prefill(*(_count(progress[name]) for name in ("total", "cache", "processed")))
    tokens = parse_tokens(data.get("tokens", []))
    return Piece(_text(data["content"]), tokens, _count(data["tokens_predicted"]))


def parse_tokens(data: Any) -> list[int]:
    """A list of token ids."""
    if not isinstance(data, list) or not all(type(x) is int for x in data):
        raise ValueError("no list of tokens")
    return data


def _count(value: Any) -> int:
    return int(_number(value))


def _number(value: Any) -> float:
    """How much there is of something: JSON also has infinity, and less than nothing."""
    if type(value) not in (int, float) or not 0 <= value < _MOST:
        raise ValueError(f"{value!r} is no amount")
    number: float = value
    return number


def _text(value: Any) -> str:
    """Text that can be sent and written on: JSON also has halves of characters."""
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} instead of text")
    value.encode()
    return value


def parse_failure(status: int, body: bytes) -> Failure:
    """The body of a refused request; a proxy in between may have sent any other one."""
    try:
        return _failure(status, json.loads(body)["error"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Failure(status, "", body[:200].decode(errors="replace"))


def _failure(status: int, error: Any) -> Failure:
    return Failure(
        code=_count(error.get("code", status)),
        kind=str(error.get("type", "")),
        message=str(error.get("message", error)),
        prompt=_count(error.get("n_prompt_tokens", 0)),
        context=_count(error.get("n_ctx", 0)),
    )
