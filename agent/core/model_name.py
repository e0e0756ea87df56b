"""What `--model` and LLAMACPP_MODEL_PATH may name: a file, a model of the catalogue, or a
repository of the hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

USUAL = "Q4_K_M"
"""The quantisation that is taken when nobody names one: half the size of Q8_0 and little worse."""

_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME = re.compile(rf"(?P<name>{_WORD})(?::(?P<wanted>{_WORD}))?")
_REPOSITORY = re.compile(rf"(?P<name>{_WORD}/{_WORD})(?::(?P<wanted>{_WORD}))?")


@dataclass(frozen=True, kw_only=True)
class ModelName:
    """A model that is no path."""

    name: str
    """Of the catalogue, or owner/repository."""
    wanted: str = ""
    """A quantisation, or the name of a file; empty: whichever is usual."""

    @property
    def is_repository(self) -> bool:
        """It names a repository of the hub."""
        return "/" in self.name

    def __str__(self) -> str:
        return f"{self.name}:{self.wanted}" if self.wanted else self.name


def parse_name(text: str) -> ModelName | None:
    """The name that `text` is; None when it can only be a path."""
    if text.startswith((".", "~")) or (text.endswith(".gguf") and ":" not in text):
        return None
    found = _NAME.fullmatch(text) or _REPOSITORY.fullmatch(text)
    return ModelName(name=found["name"], wanted=found["wanted"] or "") if found else None


def name_in(path: Path) -> ModelName | None:
    """The name that a setting of type Path holds; None when it is a path: one of a file that is
    there, or one that can be no name."""
    try:
        there = path.exists()
    except OSError:  # too long for a file
        there = False
    return None if there else parse_name(str(path))
