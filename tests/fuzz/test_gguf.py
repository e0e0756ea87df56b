"""GGUF headers: read or refused, in memory that the file's own size bounds."""

from __future__ import annotations

import functools
import io
import struct
import tracemalloc
from pathlib import Path

from fakes.gguf_writer import BASIC, gguf, text, value
from hypothesis import note

from agent.core.config import embedded_model
from agent.core.errors import ModelError
from agent.core.gguf_info import read_gguf
from agent.core.gguf_reader import MalformedGguf, read_header
from fuzz.source import Source

_PER_BYTE = 48
"""Bytes of memory for a byte of the file: an array of bytes becomes Python integers."""
_BESIDES = 400_000

KEYS = (
    *(*BASIC, "general.alignment", "general.type", "llama.pooling_type", "llama.expert_used_count"),
    *("llama.attention.key_length", "llama.attention.causal", "mamba.block_count", "", "a" * 300),
)
NAMES = ("token_embd.weight", "blk.0.attn_q.weight", "output.weight", "norm", "", ".", "blk")
PIECES = (
    *(struct.pack("<Q", x) for x in (0, 1, 3, 9, 255, 1 << 16, 1 << 31, 1 << 63, 2**64 - 1)),
    *(b"GGUF", b"\0\0\0\0", b"\x09\0\0\0", b"\x08\0\0\0", b"\xff\xff\xff\xff", b"\0", b"\xff"),
)


def check(source: Source, folder: Path) -> None:
    """A file that was made by the rules and changed, or the embedded model's header, changed."""
    data = _embedded(source) if source.one_in(32) else _made(source)
    note(data)
    if source.one_in(3):
        _assert_bounded(data, len(data) + source.pick((0, 0, 1000, 1 << 40)))
    path = folder / source.pick(("x.gguf", "x-00001-of-00002.gguf"))
    path.write_bytes(data)
    try:
        info = read_gguf(path)
    except ModelError as error:
        str(error).encode()
        assert error.path == path
        return
    assert data.startswith(b"GGUF")
    assert info.file_size == len(data)
    for number in (info.parameters, info.layer_bytes, info.repacked_bytes, *info.key_values):
        assert type(number) is int
        assert number >= 0
    assert info.name.isprintable()
    assert info.architecture.isprintable()


def _made(source: Source) -> bytes:
    values = dict(BASIC)
    values["tokenizer.ggml.scores"] = [0.5] * source.pick((3, 300, 5000))
    for _ in range(source.below(4)):
        values[source.pick(KEYS)] = source.pick(
            (
                "llama",
                "mmproj",
                "\x1b[2J\n",
                True,
                False,
                0,
                32,
                1 << 31,
                0.5,
                [1, 2],
                ["a"],
                [],
                [0.1],
            )
        )
    tensors = [
        (
            source.pick(NAMES),
            [source.number() for _ in range(source.below(5))],
            source.below(45),
            source.number(),
        )
        for _ in range(source.below(4))
    ]
    data = gguf(values, tensors, version=source.pick((3, 2, 3, 1, 4)), data=source.below(4000))
    if source.one_in(3):
        return data
    if source.one_in(2):
        return _with_absurd_value(source)
    return source.mutated_bytes(data, PIECES)


def _with_absurd_value(source: Source) -> bytes:
    """A header that claims more than there is."""
    out = b"GGUF" + struct.pack("<I", 3)
    out += struct.pack("<QQ", source.number(), source.number())
    for _ in range(source.below(6)):
        out += source.pick((text(source.pick(KEYS)), struct.pack("<Q", source.number())))
        kind, inner = source.below(14), source.below(14)
        count = source.number()
        claims = struct.pack("<IIQ", 9, inner, count) if kind == 9 else struct.pack("<I", kind)
        filling = bytes([source.below(256)]) * source.pick((0, 1, 8, 64, 5000))
        out += source.pick((claims + filling, claims, value(source.pick((1, "a", True, 0.1)))))
    return out


@functools.cache
def _header_of_embedded() -> bytes:
    """All of it but the data of the tensors."""
    model = embedded_model().read_bytes()
    file = io.BytesIO(model)
    read_header(file, len(model))
    return model[: file.tell()]


def _embedded(source: Source) -> bytes:
    data = bytearray(_header_of_embedded())
    for _ in range(source.below(6)):
        # half of the changes go where counts and lengths are many, the first kilobytes
        at = source.below(len(data) if source.one_in(2) else 3000)
        piece = source.pick((*PIECES, bytes([source.below(256)])))
        data[at : at + len(piece)] = piece
    return bytes(data[: source.below(len(data) + 1)] if source.one_in(6) else data)


def _assert_bounded(data: bytes, size: int) -> None:
    """`size` is what the file system says; a file that shrinks meanwhile has less."""
    file = io.BytesIO(data)
    tracemalloc.start()
    try:
        header = read_header(file, size)
    except MalformedGguf as error:
        assert str(error)
    else:
        assert header.data_end >= 0
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak <= _PER_BYTE * len(data) + _BESIDES, (peak, len(data))


def test_any_file_is_read_or_refused_in_bounded_memory(explored) -> None:
    assert explored(check) >= 300
