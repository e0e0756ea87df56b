"""Prompt books: the shipped one, and random others with the same placeholders."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random

import yaml

from agent.core.prompts import PromptBook, Template

_SOURCE = Path(__file__).with_name("wordings.yaml")


@cache
def shipped_book() -> PromptBook:
    """The prompts of the product, byte for byte."""
    return PromptBook.load()


def draw_book(random: Random, exact: float) -> PromptBook:
    """The shipped book with probability `exact`, else one that says the same differently."""
    if random.random() < exact:
        return shipped_book()
    texts = {
        "system": _some(random, "system") or "You write Python.",
        "shared": _shared(random),
        "planner": f"{_opening(random, 'planner')}\n{{{{correction}}}}\n",
        "coder": f"{_opening(random, 'coder')}\n\n{_section(random, 'step')}\n\n{_answer(random)}",
        "repair": "\n\n".join(
            [
                _opening(random, "repair"),
                _section(random, "step"),
                _section(random, "evidence"),
                _answer(random),
            ]
        ),
        "reviewer": "\n\n".join(
            [_opening(random, "reviewer"), _section(random, "diff"), _section(random, "tests")]
        ),
        "answer_whole_file": _one(random, "answer_whole_file"),
    }
    return PromptBook({name: Template(name, text) for name, text in texts.items()})


def _shared(random: Random) -> str:
    repository, task = _one(random, "repository_heading"), _one(random, "task_heading")
    may_change = _one(random, "may_change")
    return f"{repository}\n{{{{repository}}}}\n\n{task}\n{{{{task}}}}\n\n{may_change}\n\n"


def _opening(random: Random, role: str) -> str:
    heading, words = _one(random, f"{role}_heading"), _some(random, role)
    return f"{heading}\n{words}".rstrip()


def _section(random: Random, name: str) -> str:
    return f"{_one(random, f'{name}_heading')}\n{{{{{name}}}}}"


def _answer(random: Random) -> str:
    return f"{_one(random, 'answer_heading')}\n{{{{answer_format}}}}\n"


def _one(random: Random, name: str) -> str:
    return random.choice(_wordings()[name])


def _some(random: Random, name: str) -> str:
    """None or a few of the sentences, in their own order most of the time."""
    pool = _wordings()[name]
    chosen = sorted(random.sample(range(len(pool)), random.choice([0, 0, 1, 1, 2, 3])))
    if random.random() < 0.3:
        random.shuffle(chosen)
    separator = "\n" if random.random() < 0.3 else " "
    return separator.join(pool[index] for index in chosen)


@cache
def _wordings() -> dict[str, list[str]]:
    wordings: dict[str, list[str]] = yaml.safe_load(_SOURCE.read_text(encoding="utf-8"))
    return wordings
