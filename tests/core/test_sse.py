from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import BackendError
from agent.core.sse import EventReader, LineReader

STREAM = (
    ": ping\n\n"
    'data: {"content": "für 見"}\r\n\r\n'
    "event: message\nid: 7\ndata:no space\n\n"
    "data: one\ndata: two\n\n"
    'error: {"code": 500}\n\n'
    "data\n\n"
    "data: never finished"
).encode()
EVENTS = ['{"content": "für 見"}', "no space", "one\ntwo", '{"code": 500}']


@given(st.lists(st.integers(0, len(STREAM)), max_size=40).map(sorted))
def test_events_do_not_depend_on_how_the_bytes_are_cut(cuts: list[int]) -> None:
    reader = EventReader()
    found: list[bytes] = []
    for start, stop in zip([0, *cuts], [*cuts, len(STREAM)], strict=True):
        found += reader.feed(STREAM[start:stop])
    assert [event.decode() for event in found] == EVENTS


def test_an_event_is_given_out_as_soon_as_it_is_complete() -> None:
    reader = EventReader()
    assert reader.feed(b"data: a\n") == []
    assert reader.feed(b"\n") == [b"a"]


@pytest.mark.parametrize("data", [b"x" * 101, b"x" * 101 + b"\n"])
def test_an_endless_line_is_refused(data: bytes) -> None:
    with pytest.raises(BackendError, match="more than 100 bytes"):
        LineReader(max_line=100).feed(data)


def test_lines_lose_their_ends_only() -> None:
    reader = LineReader()
    assert reader.feed(b" a\r\n\nb\r") == [b" a", b""]
    assert reader.feed(b"\nc") == [b"b"]


def test_an_endless_event_of_short_lines_is_refused() -> None:
    reader = EventReader(max_line=100)
    for _ in range(10):
        assert reader.feed(b"data: more\n") == []
    with pytest.raises(BackendError, match="more than 100 bytes"):
        reader.feed(b"data: more\n")


def test_a_long_line_in_single_bytes_costs_no_more_than_its_length() -> None:
    reader = LineReader()
    for _ in range(1_000_000):
        assert reader.feed(b"x") == []
    assert reader.feed(b"\n") == [b"x" * 1_000_000]
