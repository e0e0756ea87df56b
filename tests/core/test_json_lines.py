"""Files of JSON lines whose writer was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.core.json_lines import cut_half_line, read_objects


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (b'{"a": 1}\n', b'{"a": 1}\n'),
        (b'{"a": 1}\n{"b', b'{"a": 1}\n'),
        (b'{"b', b""),
        (b"x\n" + b"y" * 200_000, b"x\n"),
        (b"y" * 200_000, b""),
    ],
)
def test_only_a_half_line_at_the_end_goes(before: bytes, after: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(before)
    cut_half_line(path)
    assert path.read_bytes() == after


def test_no_file_is_fine(tmp_path: Path) -> None:
    cut_half_line(tmp_path / "none")


def test_a_line_that_is_nested_too_deeply_is_none(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"a": 1}\n' + b"[" * 100_000 + b'\n{"b": 2}\n')
    assert read_objects(path) == [{"a": 1}, {"b": 2}]
