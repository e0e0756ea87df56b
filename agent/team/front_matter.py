"""Front matter: YAML of a fixed shape, read strictly, with the line of everything that is wrong."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml

from agent.core.errors import TaskFileError

_KEYS = ("title", "files", "context", "test", "candidates")
_MOST_CHARACTERS = 65_536
"""The YAML reader takes about a second for this much; five keys need far less."""

_HIDDEN_ENDS = re.compile("[\r\x85\u2028\u2029]")
"""Ends of lines for YAML, and not for editors: lines would be counted differently."""

_QUOTES = "Put the value in quotes."
_TAG = "tag:yaml.org,2002:"
_KINDS = {
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "null": "nothing",
    "timestamp": "a date",
    "seq": "a list",
    "map": "a mapping",
    "str": "text",
}


@dataclass(frozen=True)
class FrontMatter:
    """The nodes of a task file, by key. Each reader raises TaskFileError for a wrong type."""

    source: str
    first_line: int
    """Line of the source on which the YAML begins."""

    nodes: dict[str, yaml.Node]

    def line(self, key: str) -> int:
        """The line on which the value of `key` begins."""
        return self._line(self.nodes[key])

    def text(self, key: str) -> str:
        """A value that must be there and must hold text."""
        if key not in self.nodes:
            raise TaskFileError(
                self.source, "is missing", line=1, key=key, fix=f"Add a line `{key}: ...`."
            )
        return self._text(self.nodes[key], key)

    def optional_text(self, key: str) -> str | None:
        """A text, or None when the key is not there."""
        return self._text(self.nodes[key], key) if key in self.nodes else None

    def texts(self, key: str) -> list[tuple[str, int]]:
        """The texts of a list, each with its line; empty when the key is not there."""
        node = self.nodes.get(key)
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            fix = f"Write a list: {key}: [path]"
            raise self._wrong(node, key, f"must be a list, not {_kind(node)}", fix)
        return [(self._text(item, key), self._line(item)) for item in node.value]

    def number(self, key: str, *, most: int) -> int | None:
        """A whole number from 1 to `most`, or None when the key is not there."""
        node = self.nodes.get(key)
        if node is None:
            return None
        fix = f"Write a whole number from 1 to {most}, without quotes."
        if node.tag != f"{_TAG}int" or not (node.value.isascii() and node.value.isdecimal()):
            raise self._wrong(node, key, f"must be a number, not {_kind(node)}", fix)
        digits = node.value  # with a leading 0 it would be octal for YAML
        if digits[0] == "0" or len(digits) > len(str(most)) or int(digits) > most:
            raise self._wrong(node, key, f"must be between 1 and {most}", fix)
        return int(digits)

    def _text(self, node: yaml.Node, key: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or node.tag != f"{_TAG}str":
            raise self._wrong(node, key, f"must be text, not {_kind(node)}", _QUOTES)
        value: str = node.value
        if not value.strip():
            raise self._wrong(node, key, "is empty", f"Give {key} a value, or leave it out.")
        # An escape such as "\0" or "\ud800" makes characters that no file name and no pipe takes.
        if any((ord(x) < 32 and x not in "\t\n") or 0xD800 <= ord(x) < 0xE000 for x in value):
            raise self._wrong(node, key, "has control characters", "Remove them.")
        return value

    def _wrong(self, node: yaml.Node, key: str, reason: str, fix: str) -> TaskFileError:
        return TaskFileError(self.source, reason, line=self._line(node), key=key, fix=fix)

    def _line(self, node: yaml.Node) -> int:
        return int(node.start_mark.line) + self.first_line


def read_front_matter(text: str, *, source: str, first_line: int) -> FrontMatter:
    """Compose the YAML and refuse what is no mapping of the known keys. Raises TaskFileError."""
    root = _compose(text, source, first_line)
    if root is None:
        return FrontMatter(source, first_line, {})
    if not isinstance(root, yaml.MappingNode):
        raise TaskFileError(
            source,
            f"the front matter is {_kind(root)}",
            line=int(root.start_mark.line) + first_line,
            fix="Write lines of the form `key: value`.",
        )
    nodes: dict[str, yaml.Node] = {}
    for key, line, value in _entries(root, first_line):
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.5)
            fix = f"Did you mean {near[0]}?" if near else f"Known keys: {', '.join(_KEYS)}."
            raise TaskFileError(source, "unknown key", line=line, key=key, fix=fix)
        if key in nodes:
            raise TaskFileError(source, "is there twice", line=line, key=key, fix="Remove one.")
        nodes[key] = value
    return FrontMatter(source, first_line, nodes)


def _compose(text: str, source: str, first_line: int) -> yaml.Node | None:
    if len(text) > _MOST_CHARACTERS:
        raise TaskFileError(
            source,
            f"the front matter is longer than {_MOST_CHARACTERS} characters",
            line=1,
            fix="The prose belongs below the second ---.",
        )
    if hidden := _HIDDEN_ENDS.search(text):
        line = text.count("\n", 0, hidden.start()) + first_line
        raise TaskFileError(source, "has control characters", line=line, fix="Remove them.")
    at = 0
    try:
        loader = yaml.SafeLoader(text)
        try:
            return loader.get_single_node()
        finally:
            at = loader.line
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = (mark.line if mark else 0) + first_line
        reason = f"no YAML: {error.problem or error.context}"
        fix = "Correct that line; a value with a colon in it needs quotes."
        raise TaskFileError(source, reason, line=line, fix=fix) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + first_line
        raise TaskFileError(source, "has control characters", line=line, fix=_QUOTES) from None
    except (ValueError, OverflowError) as error:  # such as "\UFFFFFFFF", which is no character
        reason = f"no YAML: {error}"
        raise TaskFileError(
            source, reason, line=at + first_line, fix="Correct that line."
        ) from None
    except RecursionError:
        raise TaskFileError(
            source, "is nested too deeply", line=first_line, fix="Lists hold texts, nothing else."
        ) from None


def _entries(root: yaml.MappingNode, first_line: int) -> Iterator[tuple[str, int, yaml.Node]]:
    pairs: Sequence[tuple[yaml.Node, yaml.Node]] = root.value
    for key, value in pairs:
        name = key.value if isinstance(key, yaml.ScalarNode) else _kind(key)
        yield name, int(key.start_mark.line) + first_line, value


def _kind(node: yaml.Node) -> str:
    return _KINDS.get(node.tag.removeprefix(_TAG), f"a value of type {node.tag}")
