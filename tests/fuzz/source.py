"""Choices out of a string of bytes.

Hypothesis draws and shrinks bytes about ten times as fast as nested strategies, and hundreds of
thousands of inputs have to be made. Where the bytes have ended every choice is the first one, so
that what is listed first should be the plainest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")

STRANGE = tuple(
    "\0\r\n\t\v\x1b\x1c\x7f\x85\xa0 \u00e9\u0130\u0301\u0316\u0663\u2028\u200c\u202e\ufeff"
    "\uff0e\ud800\udc00\U0001f600"
)
"""Characters that readers of text have stumbled over somewhere."""

NUMBERS = (0, 1, 2, 3, 8, 32, 127, 255, 256, 4096, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1)
HUGE = (2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1)

_MOST = 60_000
"""Characters up to which a part is repeated: enough to feel what grows with the square."""
_CHANGES = 5


class Source:
    """Gives out the bytes one choice after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __repr__(self) -> str:
        return f"Source({self._data.rstrip(bytes(1))!r})"

    def below(self, count: int) -> int:
        """A number from 0 on that is smaller than `count`."""
        width = 1 if count <= 256 else 2 if count <= 65_536 else 8
        drawn = self._data[self._at : self._at + width]
        self._at += width
        return int.from_bytes(drawn, "big") % count

    def one_in(self, count: int) -> bool:
        """True once in so many times."""
        return self.below(count) == count - 1

    def pick(self, items: Sequence[Item]) -> Item:
        """One of `items`."""
        return items[self.below(len(items))]

    def several(self, make: Callable[[], Item], most: int) -> list[Item]:
        """Up to `most` things."""
        return [make() for _ in range(self.below(most + 1))]

    def text(self, pieces: Sequence[str], most: int) -> str:
        """Up to `most` of `pieces` in a row, strange characters among them now and then."""
        return "".join(self.several(lambda: self.piece(pieces), most))

    def piece(self, pieces: Sequence[str]) -> str:
        """One of `pieces`, or a strange character."""
        return self.pick(STRANGE) if self.one_in(24) else self.pick(pieces)

    def number(self) -> int:
        """Whole and not negative, often at an edge."""
        kind = self.below(4)
        if kind == 3:
            return self.pick(HUGE)
        return self.below(100) if kind == 0 else max(0, self.pick(NUMBERS) + self.below(3) - 1)

    def mutated(self, text: str, pieces: Sequence[str]) -> str:
        """`text` with a few parts removed, doubled, moved, replaced, cut off or repeated."""
        for _ in range(self.below(_CHANGES)):
            start = self.below(len(text) + 1)
            stop = min(len(text), start + self.pick((1, 1, 2, 4, 12, 50)))
            before, part, after = text[:start], text[start:stop], text[stop:]
            match self.below(8):
                case 0:
                    text = before + after
                case 1:
                    text = before + self.piece(pieces) + after
                case 2:
                    text = before + part + self.piece(pieces) + part + after
                case 3:
                    text = before + self.pick(STRANGE) + part + after
                case 4:
                    text = part + before + after
                case 5:
                    text = before + part
                case 6:
                    text = before + self.piece(pieces) + part + after
                case _:
                    text = before + self.repeated(part or self.piece(pieces)) + after
        return text

    def repeated(self, part: str) -> str:
        """`part` again and again; rarely thousands of times."""
        times = 1 << (self.below(14) if self.one_in(8) else self.below(5))
        return part * min(times, _MOST // max(1, len(part)))

    def mutated_bytes(self, data: bytes, pieces: Sequence[bytes]) -> bytes:
        """The same for bytes."""
        text = self.mutated(data.decode("latin-1"), [piece.decode("latin-1") for piece in pieces])
        return text.encode("latin-1", errors="replace")

    def parts(self, data: bytes) -> list[bytes]:
        """`data` cut into pieces, as a network might."""
        cuts = sorted(self.below(len(data) + 1) for _ in range(self.below(12)))
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
