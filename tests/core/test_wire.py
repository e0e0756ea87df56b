"""What servers send and should not: refused where it is read, not where it is used."""

from __future__ import annotations

import json

import pytest

from agent.core import llamacpp_wire, ollama_wire
from agent.core.json_value import finite, read_json, shown, text, whole

PIECE = {"content": "a", "stop": False, "tokens": [1], "tokens_predicted": 1}
TIMINGS = {"prompt_n": 4, "prompt_ms": 2.0, "predicted_ms": 1.0}
FINAL = {**PIECE, "stop": True, "stop_type": "eos", "timings": TIMINGS}
CHAT = {"message": {"content": "a"}, "done": True}


@pytest.mark.parametrize(
    "event",
    [
        {**PIECE, "content": None},
        {**PIECE, "content": "\ud800"},
        {**PIECE, "tokens": "abc"},
        {**PIECE, "tokens_predicted": float("inf")},
        {**FINAL, "timings": {**TIMINGS, "prompt_ms": 10**400}},
        {**FINAL, "timings": {**TIMINGS, "cache_n": float("nan")}},
        {"error": {"code": float("inf")}},
    ],
)
def test_an_event_that_llama_server_does_not_send_is_refused(event: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        llamacpp_wire.parse_event(json.dumps(event).encode())


@pytest.mark.parametrize(
    "line",
    [
        {**CHAT, "message": {"content": None}},
        {**CHAT, "message": {"content": "\udc00"}},
        {**CHAT, "eval_count": float("-inf")},
        {**CHAT, "eval_duration": float("nan")},
        {**CHAT, "eval_duration": "1" * 400},
    ],
)
def test_a_line_that_ollama_does_not_send_is_refused(line: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        ollama_wire.parse_chat(json.dumps(line).encode())


def test_a_message_of_half_characters_can_be_printed() -> None:
    body = b'{"error": {"code": 500, "message": "bad \\ud800"}}'
    assert llamacpp_wire.parse_failure(500, body).message == "bad ?"
    assert ollama_wire.parse_error(b'{"error": "bad \\ud800"}') == "bad ?"


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e308"])
def test_counters_that_cannot_be_reckoned_with_are_none(value: str) -> None:
    page = f"llamacpp:n_decode_total {value}\nllamacpp:n_busy_slots_per_decode {value}"
    assert llamacpp_wire.parse_metrics(page) is None


def test_json_that_is_nested_too_deeply_is_a_value_error() -> None:
    for wrong in ("[" * 100_000, b"[" * 100_000, '{"a":' * 100_000):
        with pytest.raises(ValueError, match="nested"):
            read_json(wrong)


def test_values_are_what_they_are_taken_for() -> None:
    assert (whole(4), whole(4.0), finite(4), text("\u00fc"), shown([1])) == (
        4,
        4,
        4,
        "\u00fc",
        "[1]",
    )
    for take, value in (
        *((whole, wrong) for wrong in (float("inf"), -1, 2**60, "4", True, None)),
        (finite, float("nan")),
        (text, "\ud800"),
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - each says it in words of its own
            take(value)
