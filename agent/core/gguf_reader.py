"""Read the structure of a GGUF header: values, tensors, and where the data must end.

Every count and length is compared with the bytes that are left before it is used, so that a
damaged or hostile file costs a bounded amount of time and memory.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

Value = int | float | bool | str | tuple[int | float, ...]

_MAX_KEYS = 100_000
_MAX_TENSORS = 1_000_000
_MAX_STRINGS = 8_000_000
"""Of one array; vocabularies have up to 300,000, their merges twice as many."""
_KEPT_STRING = 65_536
"""Bytes; a longer text (a chat template) is passed over."""
_KEPT_ARRAY = 4_096
"""Elements; a longer array is passed over."""
_KEPT_BYTES = 4 << 20
"""Of all texts and arrays together; what follows is passed over. They take many times as much in
memory, and no model has a tenth of it."""
_GROUP = 64
"""Bytes of a tensor's name, the most that ggml takes."""

_STRING, _ARRAY = 8, 9
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""GGUFValueType -> struct code."""

# fmt: off
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 40), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
    40: (64, 36), 41: (128, 18),
}
# fmt: on
"""GGMLQuantizationType -> (elements of a block, bytes of a block), GGML_QUANT_SIZES of gguf-py."""

_REPACKED = {2, 10, 12, 20}
"""Q4_0, Q2_K, Q4_K and IQ4_NL (ggml-cpu/repack.cpp)."""


class MalformedGguf(ValueError):
    """The file begins like GGUF and goes on differently; the text says how."""


class ForeignGguf(MalformedGguf):
    """The file may be whole, but is of a kind that is not read here."""


@dataclass(frozen=True, kw_only=True)
class GgufHeader:
    """The parts of a header that somebody asks for."""

    version: int
    values: dict[str, Value]
    """Scalars, short texts and short arrays of numbers, by key."""
    parameters: int
    """Elements of all tensors."""
    tensor_bytes: dict[str, int]
    """Bytes of tensors by the first part of their names: ``blk``, ``token_embd``, ``output``..."""
    repacked: int
    """Bytes of tensors in layers that CPU builds copy into another order at the start."""
    vocabulary: int
    """Tokens that the embedding holds; 0 when there is none."""
    data_end: int
    """Bytes that the file must have at least; tensors of unknown types count as empty."""


def read_header(file: BinaryIO, size: int) -> GgufHeader:
    """Read from the start of `file`, which has `size` bytes. Raises MalformedGguf."""
    reader = _Reader(file, size)
    reader.skip(4)
    version = reader.number("I")
    if version not in (2, 3):
        turned = int.from_bytes(version.to_bytes(4, "little"), "big")
        if turned in (2, 3):
            raise ForeignGguf("a GGUF file for big-endian machines")
        raise ForeignGguf(f"GGUF version {version}; only 2 and 3 can be read")
    tensors = reader.count("Q", at_least=24, limit=_MAX_TENSORS, what="tensors")
    keys = reader.count("Q", at_least=13, limit=_MAX_KEYS, what="metadata keys")
    values: dict[str, Value] = {}
    for _ in range(keys):
        key = reader.text()
        value = reader.value(reader.number("I"))
        if value is not None and key is not None:
            values[key] = value
    parameters = vocabulary = repacked = 0
    sizes: dict[str, int] = {}
    last = 0
    for _ in range(tensors):
        name = reader.text() or ""
        shape = [reader.number("Q") for _ in range(reader.dimensions())]
        kind = reader.number("I")
        block, width = _BLOCKS.get(kind, (1, 0))
        offset = reader.number("Q")
        elements = math.prod(shape)
        parameters += elements
        last = max(last, offset + elements // block * width)
        group = name[:_GROUP].split(".", 1)[0]
        sizes[group] = sizes.get(group, 0) + elements // block * width
        if group == "blk" and kind in _REPACKED:
            repacked += elements // block * width
        if name == "token_embd.weight" and len(shape) > 1:
            vocabulary = shape[1]
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
        raise MalformedGguf(f"general.alignment is {alignment!r}")
    start = -(-reader.position // alignment) * alignment
    # A file without tensors ends with its header, without padding.
    return GgufHeader(
        version=version,
        values=values,
        parameters=parameters,
        tensor_bytes=sizes,
        repacked=repacked,
        vocabulary=vocabulary,
        data_end=start + last if tensors else reader.position,
    )


class _Reader:
    """A position in the file and the bytes that are left behind it."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._room = _KEPT_BYTES
        self.position = 0

    def _left(self) -> int:
        return self._size - self.position

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        data = self._file.read(length) if length <= self._left() else b""
        if len(data) < length:
            self._cut()
        self.position += length
        return data

    def skip(self, length: int) -> None:
        """Pass over `length` bytes."""
        if length > self._left():
            self._cut()
        self._file.seek(length, 1)
        self.position += length

    def _cut(self) -> NoReturn:
        raise MalformedGguf(f"cut off inside its header, after {self._size:,} bytes")

    def number(self, code: str) -> int:
        """An integer of struct code `code`."""
        return int.from_bytes(self.take(struct.calcsize(code)), "little")

    def count(self, code: str, *, at_least: int, limit: int, what: str) -> int:
        """How many things follow, each of `at_least` bytes."""
        count = self.number(code)
        if count > limit:
            raise MalformedGguf(f"damaged: it claims {count:,} {what}")
        if count * at_least > self._left():
            self._cut()
        return count

    def _fits(self, size: int) -> bool:
        """Whether so many bytes may be kept besides what is kept already."""
        self._room -= size
        return self._room >= 0

    def dimensions(self) -> int:
        """Of a tensor; ggml has four at most."""
        count = self.number("I")
        if count > 8:
            raise MalformedGguf(f"damaged: a tensor with {count:,} dimensions")
        return count

    def text(self) -> str | None:
        """A string; None when it is too long to be kept."""
        length = self.number("Q")
        if length > _KEPT_STRING or not self._fits(length):
            self.skip(length)
            return None
        return self.take(length).decode(errors="replace")

    def value(self, kind: int) -> Value | None:
        """A value of GGUFValueType `kind`; None when nobody needs it."""
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._array()
        code = _SCALARS.get(kind)
        if code is None:
            raise MalformedGguf(f"damaged: a value of unknown type {kind}")
        result: int | float | bool = struct.unpack("<" + code, self.take(struct.calcsize(code)))[0]
        return result

    def _array(self) -> Value | None:
        kind = self.number("I")
        if kind == _STRING:
            count = self.count("Q", at_least=8, limit=_MAX_STRINGS, what="texts in one array")
            for _ in range(count):
                self.skip(int.from_bytes(self.take(8), "little"))
            return None
        code = _SCALARS.get(kind)
        if code is None:
            raise MalformedGguf(f"damaged: an array of unknown type {kind}")
        width = struct.calcsize("<" + code)
        count = self.count("Q", at_least=width, limit=self._size, what="numbers in one array")
        if count > _KEPT_ARRAY or not self._fits(count * width):
            self.skip(count * width)
            return None
        return tuple(struct.unpack(f"<{count}{code}", self.take(count * width)))
