"""The one seam through which everything passes that we keep or print of a run.

Journal, events, reports, logs and manifests are rewritten; prompts to a server on this machine, the
answers of a run that is not over, and commits are not: a resumed run needs the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from agent.core.secret_shapes import find_secrets

REDACTED = "[redacted]"
_LEAST = 8
"""Characters. A shorter value would stand in words that are no secret; a secret of that length is
guessed in any case."""
_LEAST_WORD = 12
"""Characters of a value of nothing but lower-case letters, which may be a word."""


class Redactor:
    """Puts `REDACTED` where a secret stands: a value that it was told of, as it is or escaped in
    JSON, or what has the form of one."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values: tuple[str, ...] = ()
        self.hide(values)

    def hide(self, values: Iterable[str]) -> None:
        """Take these for secrets, too. What is too short to tell from a word is left out."""
        told = {part for value in values for part in (value, *value.splitlines()) if _tells(part)}
        written = {json.dumps(value)[1:-1] for value in told}
        # a longer one first, since it may hold a shorter one
        self._values = tuple(sorted({*self._values, *told, *written}, key=len, reverse=True))

    def text(self, text: str) -> str:
        """`text` without its secrets."""
        if len(text) < _LEAST:
            return text
        for value in self._values:
            if value in text:
                text = text.replace(value, REDACTED)
        spans = sorted((found.start, found.end) for found in find_secrets(text))
        if not spans:
            return text
        parts, done = [], 0
        for start, end in spans:
            if start >= done:
                parts += [text[done:start], REDACTED]
            done = max(done, end)
        return "".join([*parts, text[done:]])

    def data(self, data: Any) -> Any:
        """JSON values without the secrets of their texts; keys stay."""
        if isinstance(data, str):
            return self.text(data)
        if isinstance(data, Mapping):
            return {key: self.data(value) for key, value in data.items()}
        if isinstance(data, (list, tuple)):
            return [self.data(each) for each in data]
        return data

    def finds(self, text: str) -> bool:
        """Whether `text` holds a secret."""
        return self.text(text) != text


def _tells(value: str) -> bool:
    plain = value.isalpha() and value.islower()
    return len(value) >= (_LEAST_WORD if plain else _LEAST)
