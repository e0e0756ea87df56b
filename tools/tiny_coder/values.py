"""Random arguments for the functions: the inputs of the tests that define what is right."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from tools.tiny_coder.words import word_list

Hints = list[Any]
Previous = list[Any]
Maker = Callable[[Random, Previous, Hints], Any]

_WORDS = word_list("values")
_LOWER = [word.lower() for word in _WORDS]
_KEYS = ["a", "b", "c", "tea", "cat", "sun", "red"]


def phrase(random: Random, previous: Previous, hints: Hints) -> str:
    """A few words, sometimes with digits, capitals or a final mark."""
    text = " ".join(random.choice(_WORDS) for _ in range(random.choice([1, 2, 2, 3, 3, 4])))
    draw = random.random()
    if draw < 0.15:
        return text + str(random.randint(1, 99))
    if draw < 0.25:
        return text.upper()
    return text + random.choice("!?.") if draw < 0.33 else text


def numbers(random: Random, low: int, high: int, hints: Hints = []) -> list[int]:  # noqa: B006
    """Integers, about half of them near a hint (a constant of the function)."""
    found = []
    for _ in range(random.randint(low, high)):
        if hints and random.random() < 0.55:
            factor = random.choice([1, 1, 2, 3])
            found.append(random.choice(hints) * factor + random.choice([-1, 0, 0, 1]))
        else:
            spread = random.choice([(-9, 20), (0, 9), (-5, 30)])
            found.append(random.randint(*spread))
    return found


def _near_hint(random: Random, hints: Hints, low: int, high: int) -> int:
    if hints and random.random() < 0.55:
        return int(random.choice(hints) * random.randint(0, 4) + random.choice([0, 0, 0, 1, -1]))
    return random.randint(low, high)


def _anagram(random: Random, previous: Previous, hints: Hints) -> str:
    word = str(previous[0])
    letters = list(word)
    random.shuffle(letters)
    mixed = "".join(letters)
    return random.choice([mixed, mixed, word + "a", word[1:], "cat", word[:-1] + "z"])


def _integer(random: Random, previous: Previous, hints: Hints) -> int:
    if previous and isinstance(previous[0], list) and previous[0] and random.random() < 0.5:
        return int(random.choice(previous[0]))
    return _near_hint(random, hints, -20, 60)


def _character(random: Random, previous: Previous, hints: Hints) -> str:
    if previous and isinstance(previous[0], str) and previous[0] and random.random() < 0.7:
        return random.choice(previous[0])
    return random.choice("aeost-*")


def _strings(random: Random, previous: Previous, hints: Hints) -> list[str]:
    special = [hint for hint in hints if isinstance(hint, str)] * 3
    return [random.choice(_LOWER + special) for _ in range(random.randint(0, 5))]


def _mapping(random: Random, least: int, hints: Hints) -> dict[str, int]:
    keys = random.sample(_KEYS, random.randint(least, 4))
    return dict(zip(keys, numbers(random, len(keys), len(keys), hints), strict=True))


def _matrix(random: Random, previous: Previous, hints: Hints) -> list[list[int]]:
    rows, columns = random.randint(1, 3), random.randint(1, 3)
    return [[random.randint(0, 9) for _ in range(columns)] for _ in range(rows)]


def _one_of(*choices: Any) -> Maker:
    return lambda random, previous, hints: random.choice(choices)


def _between(low: int, high: int) -> Maker:
    return lambda random, previous, hints: random.randint(low, high)


def _sortish(random: Random, previous: Previous, hints: Hints) -> list[int]:
    found = numbers(random, 0, 5)
    return found if random.random() < 0.4 else sorted(found)


_MAKERS: dict[str, Maker] = {
    "str": phrase,
    "csv": lambda r, p, h: ",".join(r.choice(_WORDS) for _ in range(r.randint(1, 4))),
    "lowstr": lambda r, p, h: " ".join(
        r.choice(["a", "b", "tea", "sun", "cat", "red", "dog"]) for _ in range(r.randint(1, 5))
    ),
    "spaced": _one_of(
        "", " ", "   ", "a  b", " hi  there ", "one two  three", "  x", "abc", "a b c ", "\t",
        "no  way   out",
    ),
    "lines": _one_of("a", "a\nb", "x\ny\nz", "", "one\ntwo\n", "p\n\nq", "1\n2\n3\n4"),
    "query": lambda r, p, h: "&".join(
        f"{key}={r.randint(1, 30)}" for key in r.sample("abcxyz", r.randint(1, 3))
    ),
    "pal": _one_of(
        "level", "Level", "noon", "abc", "", "a", "ab", "Abba", "abba", "kayak", "xyx", "Xyx",
        "hello", "aab", "RaceCar",
    ),
    "word": _one_of(
        *_LOWER, "aab", "level", "banana", "abc", "cab", "eve", "ice", "area", "tree", "listen", "a"
    ),
    "anag": _anagram,
    "like": lambda r, p, h: p[0][: r.randint(0, len(p[0]))] + r.choice(["", "x", "ing", "er"]),
    "same": lambda r, p, h: "".join(c if r.random() < 0.6 else r.choice("abcdez") for c in p[0]),
    "runs": lambda r, p, h: "".join(
        r.choice("abcx") * r.randint(1, 4) for _ in range(r.randint(0, 4))
    ),
    "snake": lambda r, p, h: "_".join(r.choice(_LOWER) for _ in range(r.randint(1, 4))),
    "camel": lambda r, p, h: r.choice(_LOWER)
    + "".join(r.choice(_LOWER).capitalize() for _ in range(r.randint(0, 3))),
    "binstr": lambda r, p, h: f"{r.randint(0, 60):b}",
    "name": _one_of("Ann", "Bob", "Eve", "Zoe", "Max", "Tom Lee"),
    "char": _character,
    "int": _integer,
    "zint": _one_of(0, 1, 2, 4, 5, -2),
    "low": _between(-10, 20),
    "high": lambda r, p, h: p[1] + r.randint(1, 30),
    "sint": _between(-5, 6),
    "nat": lambda r, p, h: abs(_near_hint(r, h, 0, 30)),
    "nat2": _between(2, 90),
    "small": _between(0, 6),
    "pos": _between(1, 12),
    "chunk": _between(1, 4),
    "big": lambda r, p, h: r.randint(*r.choice([(0, 9), (10, 99), (100, 9999)])),
    "year": _one_of(1900, 2000, 2001, 2004, 2023, 2024, 2100, 1996, 1999, 2400),
    "rom": _one_of(1, 4, 9, 14, 40, 90, 400, 49, 1994, 2024, 3, 58, 600, 27, 2949, 88),
    "mins": lambda r, p, h: r.choice([0, 5, 59, 60, 61, 90, 125, 600, r.randint(0, 800)]),
    "pct": lambda r, p, h: r.choice([0, 100] + [hint + d for hint in h for d in (-1, 0, 1)] * 2),
    "sq": _one_of(0, 1, 2, 4, 8, 9, 15, 16, 25, 26, 49, 50, 99, 100),
    "pow2": _one_of(0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 64, 100),
    "ints": lambda r, p, h: numbers(r, 0, 6, h),
    "ints1": lambda r, p, h: numbers(r, 1, 6, h),
    "ints2": lambda r, p, h: numbers(r, 2, 6, h),
    "dups": lambda r, p, h: [r.randint(0, 5) for _ in range(r.randint(0, 6))],
    "dups1": lambda r, p, h: [r.randint(0, 4) for _ in range(r.randint(1, 7))],
    "dups2": lambda r, p, h: [1, 9] + [r.randint(0, 12) for _ in range(r.randint(1, 5))],
    "same_ints": _one_of([], [3], [2, 2, 2], [1, 2], [5, 5, 4], [7, 7], [0, 0, 0, 1]),
    "sortish": _sortish,
    "sorted": lambda r, p, h: sorted(set(numbers(r, 0, 7))),
    "nones": lambda r, p, h: [r.choice([None, 0, 1, 5, None]) for _ in range(r.randint(0, 6))],
    "strs": _strings,
    "strs1": lambda r, p, h: [r.choice(_LOWER) for _ in range(r.randint(1, 5))],
    "keys": lambda r, p, h: r.sample(["a", "b", "c", "tea", "cat"], r.randint(0, 3)),
    "dict": lambda r, p, h: _mapping(r, 0, h),
    "dict1": lambda r, p, h: _mapping(r, 1, h),
    "matrix": _matrix,
    "nested": lambda r, p, h: [
        [r.randint(0, 9) for _ in range(r.randint(0, 3))] for _ in range(r.randint(0, 3))
    ],
}  # fmt: skip


def draw(random: Random, kind: str, previous: Previous, hints: Hints) -> Any:
    """A value of that kind; `previous` holds the arguments already drawn for the same call."""
    return _MAKERS[kind](random, previous, hints)
