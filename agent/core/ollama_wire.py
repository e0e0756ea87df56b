"""What Ollama sends, typed (docs/api.md and api/types.go of ollama/ollama, 0.34).

The parsers raise ValueError, KeyError, TypeError or AttributeError for anything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent.core.json_value import finite, read_json, shown, text, whole

_NANOSECONDS = 1e-9


@dataclass(frozen=True, slots=True)
class ChatPiece:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ChatEnd:
    """The last line of a chat."""

    text: str
    cut: bool
    """The token budget or the context ran out."""
    prompt: int
    """Tokens of the prompt, cached ones included (ollama #16428); releases before June 2026 may
    leave the cached ones out or, for a prompt that was all cached, send nothing: 0."""
    cached: int
    """`prompt_eval_cached_count` (ollama #17943); 0 where it is not sent."""
    predicted: int
    prefill_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class ChatError:
    """A failure in the middle of a stream."""

    message: str


def parse_chat(line: bytes) -> ChatPiece | ChatEnd | ChatError:
    """One line of a streamed /api/chat."""
    data = read_json(line)
    if "error" in data:
        return ChatError(shown(data["error"]))
    content = text(data["message"]["content"])
    if not data["done"]:
        return ChatPiece(content)
    return ChatEnd(
        text=content,
        cut=data.get("done_reason") == "length",
        prompt=whole(data.get("prompt_eval_count", 0)),
        cached=whole(data.get("prompt_eval_cached_count") or 0),
        predicted=whole(data.get("eval_count", 0)),
        prefill_s=finite(data.get("prompt_eval_duration", 0)) * _NANOSECONDS,
        decode_s=finite(data.get("eval_duration", 0)) * _NANOSECONDS,
    )


def parse_error(body: bytes) -> str:
    """The message of a refused request, or the start of whatever else was sent."""
    try:
        return shown(read_json(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")


def parse_trained_context(data: Any) -> int | None:
    """Longest context of the model that /api/show describes; None where it does not tell."""
    for key, value in data.get("model_info", {}).items():
        if key.endswith(".context_length"):
            return whole(value)
    return None


def parse_version(data: Any) -> tuple[int, ...]:
    """The release that /api/version names; a build of one's own says 0.0.0."""
    return tuple(int(part) for part in str(data["version"]).split("-")[0].split("."))


def parse_models(data: Any) -> list[str]:
    """Names of the models that /api/tags lists."""
    return [shown(model["name"]) for model in data["models"]]
