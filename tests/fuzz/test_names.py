"""Names of models, and the notes beside saved prefixes, as somebody else may have written them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hypothesis import note

from agent.core.gguf_names import GgufName, whole_name
from agent.core.model_name import parse_name
from agent.core.prefix_bank import PrefixBank, saved_prefixes
from fuzz.source import Source

PIECES = (
    *("qwen2.5", "coder", "-", ".", "_", "1.5b", "q8_0", "Q4_K_M", "-00001-of-00003", ".gguf", "/"),
    *(
        ":",
        "..",
        "~",
        "owner",
        "00002",
        "-of-",
        "iq4_nl",
        "f16",
        "mxfp4",
        " ",
        "\\",
        "C:",
        "https://",
    ),
)
NOTES = (
    *('{"tokens": 4, "size": 1, "digest": "a", "model": "m"}', "{}", "[]", "null", '"a"', "{"),
    *('{"tokens": 1e999, "size": 1, "digest": "a", "model": "m"}', "[" * 3000, '{"tokens": NaN}'),
    *('{"tokens": "9", "size": [], "digest": 1, "model": null}', '{"tokens": 1e400, "size": -1}'),
)


def check(source: Source, folder: Path) -> None:
    """Any text is a name with safe parts or none, any note is trusted for a reason or not."""
    text = source.mutated(source.text(PIECES, 8), PIECES)
    note(text[:2000])
    name = parse_name(text)
    if name is not None:
        assert str(name) == text
        assert re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name.name, re.ASCII)
        assert not name.name.startswith((".", "-"))
        assert "/" not in name.wanted
        assert not name.wanted.startswith(".")
    parts = GgufName.of(text)
    assert parts.family in text
    assert parts.quantisation.lower() in text.lower()
    assert whole_name(text) in text
    if source.one_in(4):
        _check_note(source, folder)


def _check_note(source: Source, folder: Path) -> None:
    written = source.mutated(source.pick(NOTES), ("{", "}", '"', "1e999", "NaN", "9" * 5000, "[]"))
    note(written[:2000])
    (folder / "a.json").write_bytes(written.encode(errors="surrogatepass"))
    (folder / "a.kv").write_bytes(b"x")
    for entry in saved_prefixes(folder):
        assert type(entry.tokens) is int
        json.dumps(entry.model)
    bank = PrefixBank(folder, layout="l", model="m", max_bytes=10)
    assert not bank.has("a")  # no note here has the right digest


def test_names_and_notes_are_read_or_left_alone(explored) -> None:
    assert explored(check) >= 300
