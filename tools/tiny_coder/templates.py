"""The function templates of ``functions/*.yaml``: one idea, many ways to ask for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tools.tiny_coder.words import Split

_FOLDER = Path(__file__).parent / "functions"
Constants = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Template:
    """A function without names: argument roles, code and descriptions with ``{role}`` in them."""

    names: list[str]
    arguments: dict[str, str]
    """Role to kind of value (`values.draw`)."""
    code: str
    descriptions: list[str]
    held_out: list[str] = field(default_factory=list)
    """Descriptions that training never shows."""
    constants: dict[str, list[Any] | dict[str, list[Any]]] = field(default_factory=dict)
    """``[low, high]`` or ``{choice: [...]}``."""

    def descriptions_for(self, split: Split) -> list[str]:
        """What this split may say."""
        return self.held_out if split is Split.PARAPHRASE else self.descriptions

    def draw_constants(self, random: Random) -> Constants:
        """One value for each constant, all different."""
        while True:
            drawn = {
                name: random.choice(spec["choice"])
                if isinstance(spec, dict)
                else random.randint(*spec)
                for name, spec in self.constants.items()
            }
            if len(set(drawn.values())) == len(drawn):
                return drawn


@cache
def all_templates() -> tuple[Template, ...]:
    """Every template of the folder, in the order of the files."""
    entries = [
        entry
        for path in sorted(_FOLDER.glob("*.yaml"))
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))
    ]
    return tuple(Template(**entry) for entry in entries)
