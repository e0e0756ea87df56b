"""What servers stream: cut anywhere it reads the same, and anything is an event or a failure."""

from __future__ import annotations

import json
import math
from pathlib import Path

from hypothesis import note

from agent.core import llamacpp_wire as llamacpp
from agent.core import ollama_wire as ollama
from agent.core.errors import BackendError
from agent.core.sse import EventReader, LineReader
from fuzz.source import Source

_LINE = 2000
"""Longest line that the readers under test take."""

TEXTS = (
    '"a"',
    '"f\\u00fcr"',
    '"\\ud800"',
    '""',
    "null",
    "[]",
    "{}",
    "true",
    "[1, 2]",
    "-1",
    "1e999",
)
COUNTS = ("7", "0", "1.5", "null", "-1", "1e999", "NaN", "-Infinity", '"7"', "9" * 400, "9" * 5000)
EVENTS = (
    '{"content": T, "stop": false, "tokens": [C, 2], "tokens_predicted": C}',
    '{"content": T, "stop": false, "tokens": T, "tokens_predicted": C}',
    '{"content": "", "stop": false, "prompt_progress": {"total": C, "cache": C, "processed": C}}',
    '{"content": T, "stop": true, "stop_type": T, "tokens_predicted": C, "timings": '
    '{"cache_n": C, "prompt_n": C, "prompt_ms": C, "predicted_ms": C, "draft_n": C}}',
    '{"error": {"code": C, "type": T, "message": T, "n_prompt_tokens": C, "n_ctx": C}}',
    '{"code": C, "message": T}',
    '{"error": T}',
    "[" * 3000,
    '{"message": {"role": "assistant", "content": T}, "done": false}',
    '{"message": {"content": T}, "done": true, "done_reason": T, "prompt_eval_count": C, '
    '"prompt_eval_cached_count": C, "eval_count": C, "prompt_eval_duration": C, '
    '"eval_duration": C}',
    '{"model_info": {"a.context_length": C}, "models": [{"name": T}], "version": T}',
    '{"default_generation_settings": {"n_ctx": C}, "total_slots": C, "model_alias": T}',
    "T",
    "C",
)
PIECES = (
    *(
        b"data: ",
        b"data:",
        b"error: ",
        b"data",
        b": ping\n\n",
        b"\n",
        b"\r\n",
        b"\r",
        b"\n\n",
        b":",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b'"',
        b"\\",
        b"\xff",
        b"\xc3",
        b"\xef\xbb\xbf",
        b"\0",
        b"1e999",
        b"event: x\n",
    ),
)
UNKNOWN = (ValueError, KeyError, TypeError, AttributeError)
"""What the parsers may raise: `http_errors.understanding` makes a BackendError of it."""


def check(source: Source, folder: Path) -> None:
    """Bytes as a server, or something in between, may send them."""
    payloads = source.several(lambda: _payload(source), 4)
    body = b"".join(
        source.pick((b"data: ", b"data:", b"error: "))
        + payload
        + source.pick((b"\n\n", b"\r\n\r\n", b"\n", b"\n: ping\n\n"))
        for payload in payloads
    )
    body = source.mutated_bytes(body, PIECES)
    parts = source.parts(body)
    note(parts)
    _check_cuts(body, parts)
    if source.one_in(8):
        _check_cuts(body, [body[n : n + 1] for n in range(len(body))])
    for payload in payloads:
        note(payload)
        changed = source.mutated_bytes(payload, PIECES) if source.one_in(2) else payload
        _check_llamacpp(changed)
        _check_ollama(changed)


def _payload(source: Source) -> bytes:
    form = source.pick(EVENTS)
    return "".join(
        source.pick(TEXTS) if x == "T" else source.pick(COUNTS) if x == "C" else x for x in form
    ).encode()


def _check_cuts(body: bytes, parts: list[bytes]) -> None:
    for reader in (LineReader, EventReader):
        assert _read(reader(max_line=_LINE), parts) == _read(reader(max_line=_LINE), [body])


def _read(reader: LineReader | EventReader, parts: list[bytes]) -> list[bytes] | str:
    """What is read, or why nothing is: which of the lines before an endless one were given out
    depends on the cuts, and the stream is given up anyway."""
    found = []
    try:
        for part in parts:
            found += reader.feed(part)
    except BackendError as error:
        return error.message
    return found


def _check_llamacpp(payload: bytes) -> None:
    try:
        event = llamacpp.parse_event(payload)
    except UNKNOWN:
        pass
    else:
        _assert_typed(event)
    failure = llamacpp.parse_failure(500, payload)
    assert isinstance(failure.code, int)
    failure.message.encode()
    failure.kind.encode()
    decodes = llamacpp.parse_metrics(
        "# HELP\nllamacpp:n_decode_total 4\nllamacpp:n_busy_slots_per_decode "
        + payload.decode(errors="replace")
    )
    assert decodes is None or decodes.batches == 4
    decodes = llamacpp.parse_metrics(
        "llamacpp:n_busy_slots_per_decode 1.5\nllamacpp:n_decode_total "
        + payload.decode(errors="replace")
    )
    assert decodes is None or type(decodes.batches) is int
    try:
        served = llamacpp.parse_props(json.loads(payload))
    except (*UNKNOWN, RecursionError):  # the latter is of this file, not of the product
        return
    assert isinstance(served.context, int)


def _assert_typed(event: llamacpp.Event | llamacpp.Failure) -> None:
    """Nothing is handed on that would fail where nobody expects it any more."""
    match event:
        case llamacpp.Prefill():
            numbers = [event.total, event.cached, event.done]
        case llamacpp.Piece():
            event.text.encode()
            numbers = [*event.tokens, event.predicted]
        case llamacpp.Final():
            event.text.encode()
            numbers = [event.computed, event.predicted, event.drafted, event.accepted]
            if event.cached is not None:
                numbers.append(event.cached)
            for seconds in (event.prefill_s, event.decode_s):
                assert math.isfinite(seconds)
        case llamacpp.Failure():
            event.message.encode()
            event.kind.encode()
            numbers = [event.code, event.prompt, event.context]
    assert all(type(number) is int for number in numbers)


def _check_ollama(payload: bytes) -> None:
    try:
        event = ollama.parse_chat(payload)
    except UNKNOWN:
        pass
    else:
        match event:
            case ollama.ChatError():
                event.message.encode()
            case ollama.ChatPiece():
                event.text.encode()
            case ollama.ChatEnd():
                event.text.encode()
                assert all(
                    type(number) is int for number in (event.prompt, event.cached, event.predicted)
                )
                assert math.isfinite(event.prefill_s)
                assert math.isfinite(event.decode_s)
    ollama.parse_error(payload).encode()
    try:
        data = json.loads(payload)
    except (*UNKNOWN, RecursionError):
        return
    for parse in (ollama.parse_trained_context, ollama.parse_version, ollama.parse_models):
        try:
            parse(data)
        except UNKNOWN:
            continue


def test_streams_read_the_same_however_they_are_cut(explored) -> None:
    assert explored(check) >= 300
