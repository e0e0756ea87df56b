"""Small operations on English: alternatives, capitals and the third person."""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random

_ALTERNATIVE = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def choose(random: Random, text: str) -> str:
    """Replace each ``[a|b|c]``, inner ones first, by one of its alternatives."""
    while match := _ALTERNATIVE.search(text):
        chosen = random.choice(match[1].split("|"))
        text = text[: match.start()] + chosen + text[match.end() :]
    return re.sub(" +", " ", text).strip()


def fill(text: str, values: Mapping[str, object]) -> str:
    """Replace every ``{name}`` that has a value; other braces stay as they are."""
    return _PLACEHOLDER.sub(
        lambda match: str(values[match[1]]) if match[1] in values else match[0], text
    )


def capitalized(text: str) -> str:
    """The text with its first letter in upper case and the rest untouched."""
    return text[:1].upper() + text[1:]


def third_person(description: str) -> str:
    """``return x`` as ``returns x``: the first word is always a verb."""
    verb, _, rest = description.partition(" ")
    if re.search("[^aeiou]y$", verb):
        return f"{verb[:-1]}ies {rest}"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "o")) else "s") + f" {rest}"


def listed(names: list[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
