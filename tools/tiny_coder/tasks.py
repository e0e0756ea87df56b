"""Task titles and bodies: the words with which a person asks for a function."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import yaml

from tools.tiny_coder.compose import Function
from tools.tiny_coder.phrasing import fill, third_person
from tools.tiny_coder.words import Split

_SOURCE = Path(__file__).with_name("sentences.yaml")


@dataclass(frozen=True)
class TaskText:
    """What stands under the task heading of a prompt."""

    title: str
    body: str
    path_named: bool
    """False when only the ``May change`` line can tell the path."""

    @property
    def text(self) -> str:
        """Title and body as a prompt shows them."""
        return f"{self.title}\n\n{self.body}"


def describe_task(
    random: Random,
    split: Split,
    function: Function,
    path: str,
    *,
    fix: bool = False,
    may_omit_path: bool = False,
) -> TaskText:
    """Ask for one function; `may_omit_path` allows sentences that do not name the file."""
    pool, path_named = _sentence_pool(random, split, function, fix, may_omit_path)
    values = {**function.wording(), "path": path, "descs": third_person(function.description)}
    body = fill(random.choice(pool), values)
    title = fill(random.choice(_title_pool(random, split, fix)), values)
    extra = "" if split.unseen_words else _extra(random, function)
    return TaskText(title, body + extra, path_named or path in title)


def describe_two(
    random: Random, first: Function, first_path: str, second: Function, second_path: str
) -> TaskText:
    """Ask for two functions in one task (training only)."""
    parts = [
        describe_task(random, Split.TRAIN, function, path)
        for function, path in ((first, first_path), (second, second_path))
    ]
    names = {"name": first.name, "other": second.name}
    title = fill(random.choice(_sentences()["titles_for_two"]), names)
    body = random.choice(_sentences()["joiners"]).join(part.body for part in parts)
    return TaskText(title, body, path_named=True)


def _sentence_pool(
    random: Random, split: Split, function: Function, fix: bool, may_omit_path: bool
) -> tuple[list[str], bool]:
    sentences = _sentences()
    if fix:
        return sentences["fix"], True
    if not function.arguments_named:
        return sentences["without_arguments"], True
    omitted = may_omit_path and random.random() < 0.5
    held = split is Split.PARAPHRASE or (split is Split.COMPOSITION and random.random() < 0.5)
    name = ("held_out_" if held else "") + ("without_path" if omitted else "with_path")
    return sentences[name], not omitted


def _title_pool(random: Random, split: Split, fix: bool) -> list[str]:
    if fix:
        return _sentences()["titles_for_fix"]
    held = split is Split.PARAPHRASE and random.random() < 0.5
    return _sentences()["titles_held_out" if held else "titles"]


def _extra(random: Random, function: Function) -> str:
    draw = random.random()
    if draw < 0.1 and function.cases:
        case = random.choice(function.cases)
        shown = {"call": case.call(function.name), "expected": repr(case.expected)}
        return random.choice(" \n") + fill(random.choice(_sentences()["examples"]), shown)
    if draw < 0.25:
        return random.choice(" \n") + random.choice(_sentences()["asides"])
    return ""


@cache
def _sentences() -> dict[str, list[str]]:
    sentences: dict[str, list[str]] = yaml.safe_load(_SOURCE.read_text(encoding="utf-8"))
    return sentences
