"""Words for names that the model must copy and cannot remember.

Training names are mostly pseudo-words that occur once, so that the only way to be right is to
copy. The words of `UNSEEN` never occur in training: the split `Split.PARAPHRASE` is made of them.
"""

from __future__ import annotations

import builtins
import keyword
from collections import defaultdict
from enum import Enum
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import yaml


class Split(Enum):
    """Which part of the task space a function is drawn from."""

    TRAIN = "train"
    FAMILY = "in family"
    """Training descriptions and compositions with fresh names and constants."""
    COMPOSITION = "unseen composition"
    """Two primitives in a row that training never showed in a row."""
    PARAPHRASE = "unseen paraphrase and words"
    """Held-out descriptions, sentences and words."""

    @property
    def unseen_words(self) -> bool:
        """Whether names and paths come from `UNSEEN`."""
        return self in (Split.COMPOSITION, Split.PARAPHRASE)


def word_list(name: str) -> list[str]:
    """The words of one entry of ``words.yaml``."""
    text: str = _document()[name]
    return text.split()


def word_table(name: str) -> dict[str, list[str]]:
    """The words of one entry that is a table."""
    return {key: text.split() for key, text in _document()[name].items()}


@cache
def _document() -> dict[str, Any]:
    source = Path(__file__).with_suffix(".yaml")
    document: dict[str, Any] = yaml.safe_load(source.read_text(encoding="utf-8"))
    return document


SEEN = word_list("seen")
UNSEEN = word_list("unseen")
_MODULES = word_list("modules")
_FOLDERS = word_list("folders")
_UNSEEN_FOLDERS = word_list("unseen_folders")
_ALPHABET = "abcdefghijklmnoprstuvwxyz"


def _letter_chain() -> dict[str, list[str]]:
    chain: dict[str, list[str]] = defaultdict(list)
    for word in SEEN + word_list("more_english"):
        framed = f"^^{word}$"
        for start in range(len(framed) - 2):
            chain[framed[start : start + 2]].append(framed[start + 2])
    return dict(chain)


_CHAIN = _letter_chain()
_PARTS = word_list("parts")
_ENGLISH = [
    word
    for word in dict.fromkeys(
        SEEN
        + word_list("more_english")
        + word_list("verbs")
        + [name for names in word_table("arguments").values() for name in names]
        + _MODULES
        + _FOLDERS
    )
    if len(word) > 2 and word.isalpha() and word not in UNSEEN
]


def is_free_name(word: str) -> bool:
    """Whether a word may name something in Python without hiding a builtin."""
    return not keyword.iskeyword(word) and not hasattr(builtins, word)


def english_like(random: Random) -> str:
    """A pseudo-word whose letters follow each other as they do in English."""
    while True:
        framed = "^^"
        while framed[-1] != "$" and len(framed) < 13:
            followers = _CHAIN.get(framed[-2:])
            usual = followers and random.random() < 0.93
            framed += random.choice(followers if usual and followers else _ALPHABET)
        word = framed[2:].rstrip("$")
        if 3 <= len(word) <= 9 and word not in UNSEEN and is_free_name(word):
            return word


def syllables(random: Random) -> str:
    """A pseudo-word of two or three open syllables."""
    while True:
        count = random.choice([2, 2, 3])
        word = "".join(
            random.choice("bcdfghjklmnprstvwz")
            + random.choice("aeiou")
            + random.choice(["", "", "n", "r", "s", "l"])
            for _ in range(count)
        )
        if word not in UNSEEN and is_free_name(word):
            return word


def pieced(random: Random) -> str:
    """A pseudo-word joined from parts of words, so that every token occurs in names: one that does
    not is never copied rightly."""
    while True:
        joined = "".join(_part(random) for _ in range(random.choice([1, 2, 2, 3])))
        if 3 <= len(joined) <= 12 and joined not in UNSEEN and is_free_name(joined):
            return joined


def _part(random: Random) -> str:
    if random.random() < 0.4:
        return random.choice(_PARTS)
    word = random.choice(_ENGLISH)
    start = random.randrange(max(1, len(word) - 2))
    return word[start : start + random.randint(2, 6)]


def training_word(random: Random) -> str:
    """A word for a training name: mostly invented, sometimes English."""
    draw = random.random()
    if draw < 0.45:
        return english_like(random)
    if draw < 0.75:
        return pieced(random)
    return syllables(random) if draw < 0.82 else random.choice(SEEN)


_PREFIXES = ["get_", "my_", "compute_", "find_", "make_", "do_", "calc_"]
_SUFFIXES = ["_of", "_in", "2", "_v2", "_fn"]


def function_name(random: Random, split: Split, meaningful: list[str]) -> str:
    """A function name: one of the `meaningful` ones, altered perhaps, or random words."""
    if split.unseen_words:
        return "_".join(random.choice(UNSEEN) for _ in range(random.choice([1, 2, 2, 2, 3])))
    if random.random() < 0.38:
        name = random.choice(meaningful)
        draw = random.random()
        if draw < 0.25:
            return random.choice([*_PREFIXES, training_word(random) + "_"]) + name
        if draw < 0.4:
            return name + random.choice([*_SUFFIXES, "_" + training_word(random)])
        return name
    name = "_".join(training_word(random) for _ in range(random.choice([1, 2, 2, 3])))
    return name if random.random() < 0.96 else f"{name}{random.randint(1, 9)}"


def module_path(random: Random, split: Split) -> str:
    """The path of a Python file, in a folder more often than not."""
    stem = _module_word(random, split)
    if random.random() < 0.25:
        stem += "_" + _module_word(random, split)
    folder = _folder(random, split)
    return f"{folder}/{stem}.py" if random.random() < 0.55 else f"{stem}.py"


def _module_word(random: Random, split: Split) -> str:
    if split.unseen_words:
        return random.choice(UNSEEN)
    draw = random.random()
    if draw < 0.2:
        return random.choice(_MODULES)
    return random.choice(SEEN) if draw < 0.4 else training_word(random)


def _folder(random: Random, split: Split) -> str:
    if split.unseen_words:
        return random.choice(_UNSEEN_FOLDERS + UNSEEN)
    return random.choice(_FOLDERS) if random.random() < 0.5 else training_word(random)
