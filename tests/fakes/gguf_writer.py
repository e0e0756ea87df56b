"""Writes small GGUF files, right or wrong on purpose."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

BASIC: dict[str, object] = {
    "general.architecture": "llama",
    "general.name": "Small",
    "llama.context_length": 2048,
    "llama.block_count": 2,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "tokenizer.ggml.tokens": ["a", "b", "c"],
    "tokenizer.ggml.scores": [0.5] * 5000,
}

F32, Q8_0 = 0, 8
TENSORS = (("token_embd.weight", (64, 32), Q8_0, 0), ("norm", (64,), F32, 2176))
"""Name, shape, type and offset; the second ends at 2176 + 256 = 2432 bytes."""
DATA = 2432


def gguf(
    values: Mapping[str, object] = BASIC,
    tensors: Sequence[tuple[str, Sequence[int], int, int]] = TENSORS,
    *,
    version: int = 3,
    data: int = DATA,
) -> bytes:
    """A file with these values and tensors and `data` bytes of tensor data."""
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values))
    out += b"".join(text(key) + value(content) for key, content in values.items())
    for name, shape, kind, offset in tensors:
        out += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return out + b"\0" * (-len(out) % 32) + b"\0" * data


def text(content: str) -> bytes:
    return struct.pack("<Q", len(content.encode())) + content.encode()


def value(content: object) -> bytes:
    if isinstance(content, bool):
        return struct.pack("<I?", 7, content)
    if isinstance(content, int):
        return struct.pack("<II", 4, content)
    if isinstance(content, float):
        return struct.pack("<If", 6, content)
    if isinstance(content, str):
        return struct.pack("<I", 8) + text(content)
    assert isinstance(content, list)
    if content and isinstance(content[0], str):
        return struct.pack("<IIQ", 9, 8, len(content)) + b"".join(text(x) for x in content)
    code, kind = ("f", 6) if content and isinstance(content[0], float) else ("I", 4)
    return struct.pack(f"<IIQ{len(content)}{code}", 9, kind, len(content), *content)
