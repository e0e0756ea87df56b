"""Facts of a model are read once per file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fakes.gguf_writer import BASIC, gguf

from agent.core.errors import ModelError
from agent.core.gguf_info import read_gguf
from agent.core.known_models import facts_of


def test_a_known_file_is_not_read_again(tmp_path: Path) -> None:
    path, cache = tmp_path / "m.gguf", tmp_path / "cache"
    path.write_bytes(gguf())
    about = path.stat()
    first = facts_of(path, cache)
    assert first == read_gguf(path)
    # The same size and time, so nobody looks into it: other bytes are not seen.
    with path.open("r+b") as file:
        file.write(b"XXXX")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert facts_of(path, cache) == first
    path.write_bytes(gguf({**BASIC, "llama.block_count": 3}))
    assert facts_of(path, cache).block_count == 3


@pytest.mark.parametrize("content", ["", "[]", '{"name": "x"}', "wrong types"])
def test_a_damaged_note_is_read_again(tmp_path: Path, content: str) -> None:
    path, cache = tmp_path / "m.gguf", tmp_path / "cache"
    path.write_bytes(gguf())
    first = facts_of(path, cache)
    for note in cache.iterdir():
        wrong = note.read_text().replace('"block_count": 2', '"block_count": "2"')
        note.write_text(wrong if content == "wrong types" else content)
    assert facts_of(path, cache) == first


def test_what_is_wrong_with_a_file_is_told_each_time(tmp_path: Path) -> None:
    path, cache = tmp_path / "m-00001-of-00002.gguf", tmp_path / "cache"
    path.write_bytes(gguf())
    other = tmp_path / "m-00002-of-00002.gguf"
    other.write_bytes(gguf())
    assert facts_of(path, cache).model_size == 2 * path.stat().st_size
    other.unlink()
    with pytest.raises(ModelError, match="is missing"):
        facts_of(path, cache)
    with pytest.raises(ModelError, match="no such file"):
        facts_of(tmp_path / "none.gguf", cache)
