"""Words for names that the model must copy and cannot remember.

Training names are mostly pseudo-words that occur once, so that the only way to be right is to
copy. The words of `UNSEEN` never occur in training: the split `Split.PARAPHRASE` is made of them.
"""

from __future__ import annotations

import builtins
import keyword
from collections import defaultdict
from enum import Enum
from random import Random


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


SEEN = """
apple river stone cloud table window garden silver copper orange yellow purple winter summer
forest valley mountain ocean island bridge castle harbor market basket bottle candle pencil paper
letter number color shape circle square corner middle center border margin header footer title
label badge token cookie session request response client server socket packet buffer stream cache
queue stack heap tree graph node edge path route link page post user group team member owner admin
guest order price cost total amount balance account invoice payment report record entry field
value item data info stats score rank level grade student teacher course lesson exam test sample
case result answer question reply message comment note event task job step plan goal rule policy
check filter helper tool util core main base extra common shared simple quick fast smart tiny small
big large long short deep wide high low left right front back upper lower inner outer first last
next prev old new clean dirty raw final temp dummy alpha beta gamma delta sigma omega north south
east west day week month year hour minute process handle build create make get set find fetch load
save store read write parse format convert compute calc apply run start stop open close push pop
move copy merge split join sort pick select choose collect gather scan walk trim pack wrap fold map
reduce count measure weigh adjust update refresh reset clear init
""".split()

UNSEEN = """
lantern meadow pebble thunder velvet walnut zebra falcon glacier hammock jasmine kettle lobster
marble nectar orchid pepper quartz raven saddle timber umbrella violin whisper yonder blanket
cactus dolphin ember feather goblet hazel ivory jungle kernel lagoon magnet needle oyster parcel
quiver ribbon salmon tunnel urchin vessel wagon yarn derive obtain produce evaluate transform
extract crunch resolve tweak shuffle digest render
""".split()

_MORE_ENGLISH = """
return letter average maximum palindrome reverse string because where through between another
example children different important government company question student country problem little
people system program during without however national business general available community
development experience information
""".split()

COMMON_MODULES = """
utils helpers tools common strings text_utils list_utils mathx numbers_util lib funcs string_utils
dict_utils textkit slug text stats
""".split()
FOLDERS = "src lib app pkg core src/utils tools project demo textkit".split()
UNSEEN_FOLDERS = ["engine", "source", "kit"]
_ALPHABET = "abcdefghijklmnoprstuvwxyz"


def _letter_chain() -> dict[str, list[str]]:
    chain: dict[str, list[str]] = defaultdict(list)
    for word in SEEN + _MORE_ENGLISH:
        framed = f"^^{word}$"
        for start in range(len(framed) - 2):
            chain[framed[start : start + 2]].append(framed[start + 2])
    return dict(chain)


_CHAIN = _letter_chain()


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


def training_word(random: Random) -> str:
    """A word for a training name: mostly invented, sometimes English."""
    draw = random.random()
    if draw < 0.7:
        return english_like(random)
    return syllables(random) if draw < 0.8 else random.choice(SEEN)


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
    if split.unseen_words:
        words, folder = (lambda: random.choice(UNSEEN)), random.choice(UNSEEN_FOLDERS + UNSEEN)
    else:
        words, folder = (lambda: _module_word(random)), _folder(random)
    stem = words()
    if random.random() < 0.25:
        stem += "_" + words()
    return f"{folder}/{stem}.py" if random.random() < 0.55 else f"{stem}.py"


def _module_word(random: Random) -> str:
    draw = random.random()
    if draw < 0.2:
        return random.choice(COMMON_MODULES)
    return random.choice(SEEN) if draw < 0.4 else training_word(random)


def _folder(random: Random) -> str:
    return random.choice(FOLDERS) if random.random() < 0.5 else training_word(random)
