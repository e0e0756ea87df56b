"""Descriptions that mean nothing: a planner that gets them right has copied, not recognised."""

from __future__ import annotations

from functools import cache
from random import Random

from tools.tiny_coder.compose import Function
from tools.tiny_coder.phrasing import choose
from tools.tiny_coder.templates import all_templates
from tools.tiny_coder.words import training_word, word_list

_MORE_VERBS = word_list("verbs")
_REPLACED = (0.3, 0.6, 0.9)


def scramble(random: Random, function: Function) -> str:
    """The function's description with many of its words exchanged for any other words.

    It still begins with a verb; arguments, numbers and quoted parts stay.
    """
    words = function.description.split(" ")
    share = random.choice(_REPLACED)
    changed = [words[0] if random.random() < 0.3 else random.choice(_verbs())]
    for word in words[1:]:
        kept = word in function.arguments or not (word.isalpha() and word.islower())
        changed.append(word if kept or random.random() > share else _any_word(random))
    draw = random.random()
    if draw < 0.2:
        place = random.randrange(1, len(changed) + 1)
        changed[place:place] = [_any_word(random) for _ in range(random.randint(1, 5))]
    elif draw < 0.4 and len(changed) > 5:
        place = random.randrange(1, len(changed) - 2)
        tail = changed[place:]
        random.shuffle(tail)
        changed[place:] = tail
    return " ".join(changed)


def _any_word(random: Random) -> str:
    return training_word(random) if random.random() < 0.15 else random.choice(_known_words())


@cache
def _verbs() -> list[str]:
    said = [text for template in all_templates() for text in template.descriptions]
    first = {choose(Random(0), text).split(" ")[0] for text in said}
    return sorted({verb for verb in first if verb.isalpha() and verb.islower()} | set(_MORE_VERBS))


@cache
def _known_words() -> list[str]:
    text = " ".join(said for template in all_templates() for said in template.descriptions)
    plain = text.replace("[", " ").replace("]", " ").replace("|", " ").split()
    return sorted({word for word in plain if word.isalpha() and word.islower()})
