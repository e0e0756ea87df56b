"""Journals that somebody else wrote, or that were cut: whole lines are read, nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import note

from agent.core.json_lines import cut_half_line, read_objects
from fuzz.source import Source

VALUES = (1, -1.5, None, True, "a", "\u2028", "\ud800", "x\ny", [], {"a": [1]}, "\u00fc" * 50)
PIECES = (
    *(b"{", b"}", b"[", b"[" * 3000, b'{"a":' * 3000, b'"', b"\\", b"\n", b"\r", b"\r\n", b"\0"),
    *(b"NaN", b"1e999", b"9" * 5000, b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"null\n", b"[]\n"),
)


def check(source: Source, folder: Path) -> None:
    """Objects come back as they were written, and a half line goes away without harm."""
    objects = [
        {source.pick(("event", "a", "")): source.pick(VALUES)} for _ in range(source.below(6))
    ]
    written = "".join(json.dumps(value) + "\n" for value in objects).encode()
    path = folder / "journal.jsonl"
    if source.one_in(3):
        half = source.below(len(written) + 1)
        path.write_bytes(written[:half])
        note(written[:half])
        whole = written[:half].count(b"\n")
        assert read_objects(path)[:whole] == objects[:whole]
        cut_half_line(path)
        assert read_objects(path) == objects[:whole]
        return
    data = source.mutated_bytes(written, PIECES)
    note(data)
    path.write_bytes(data)
    assert all(isinstance(value, dict) for value in read_objects(path))
    cut_half_line(path)
    assert path.read_bytes() == data[: data.rfind(b"\n") + 1]


def test_whole_lines_are_read_and_half_ones_cut(explored) -> None:
    assert explored(check) >= 300
