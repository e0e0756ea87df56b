"""Other words for the same thing: one more step from the phrasings that somebody wrote down."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from random import Random

import yaml

_SOURCE = Path(__file__).with_suffix(".yaml")
_CHANGED = 0.35
"""Share of the places where a word has synonyms that are changed."""


def vary(random: Random, description: str) -> str:
    """The description with some phrases replaced by synonyms; placeholders stay."""
    for kind, beginning in (("verbs", r"(?:^|(?<=, )|(?<=and )|(?<=then ))"), ("phrases", r"\b")):
        table = _synonyms(kind)
        longest_first = sorted(table, key=len, reverse=True)
        pattern = re.compile(beginning + "(" + "|".join(map(re.escape, longest_first)) + r")\b")

        def replaced(match: re.Match[str], table: dict[str, list[str]] = table) -> str:
            found = match[1]
            return random.choice(table[found]) if random.random() < _CHANGED else found

        description = pattern.sub(replaced, description)
    return description


@cache
def _synonyms(kind: str) -> dict[str, list[str]]:
    groups: list[list[str]] = yaml.safe_load(_SOURCE.read_text(encoding="utf-8"))[kind]
    return {phrase: group for group in groups for phrase in group}
