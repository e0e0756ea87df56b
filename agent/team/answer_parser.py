"""The whole new content of one file, found in what a small model answered.

Tolerant about everything around the content (prose, labels, fence lengths, repeated headers, a
missing last fence) and exact about the content: nothing is repaired, and an answer that leaves
parts out is refused.
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
import warnings
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from agent.core.errors import EditError
from agent.team.fences import Block, find_blocks

_LABELS = {
    ".py": "python py python3 pycon cython",
    ".pyi": "python py python3 pyi",
    ".js": "javascript js jsx node mjs",
    ".jsx": "javascript js jsx",
    ".ts": "typescript ts tsx",
    ".tsx": "typescript ts tsx",
    ".rs": "rust rs",
    ".go": "go golang",
    ".java": "java",
    ".c": "c h",
    ".h": "c h cpp c++",
    ".cpp": "cpp c++ cc cxx",
    ".rb": "ruby rb",
    ".sh": "bash sh shell zsh",
    ".md": "markdown md",
    ".toml": "toml",
    ".yaml": "yaml yml",
    ".yml": "yaml yml",
    ".json": "json jsonc",
}
"""Labels of the blocks that can hold a file with that suffix; with any other suffix all can."""

_MARKDOWN = (".md", ".markdown", ".mdx")
_MAY_BE_EMPTY = ("__init__.py", "py.typed", ".gitkeep")
_MOST_PARSED = 1_000_000
"""Characters that are parsed in one answer to learn where a block of Python ends."""
_LEAST_PARSED = 200
"""Characters that take as long as it takes to parse nothing."""

_MOST_HEADERS = 3
_MOST_ANSWER = 2_000_000

_SEARCH_MARKER = re.compile(r"[ \t]*<{5,9}[ \t]*SEARCH\b")
_LEFT_OUT = re.compile(
    r"\s*(?:#|//|/\*|<!--|--|;|\{/\*)\s*(?:"
    r"(?:\.{3}|\u2026).{0,60}\b(?:rest|existing|remaining|unchanged|same|other|previous)\b"
    r"|(?:the )?(?:rest|remaining|existing|other)\b.{0,60}(?:\.{3}|\u2026|unchanged|as before|same)"
    r").*",
    re.IGNORECASE,
)


def parse_whole_file(answer: str, *, path: str, previous: str | None, complete: bool = True) -> str:
    """The new content of `path`, with the line ends and the last newline that `previous` has.

    `previous` is the content so far, None for a new file; `complete` says that the model stopped by
    itself. Raises EditError when the answer holds no usable content.
    """
    lines = answer_lines(answer)
    parses = _budgeted_parse()
    blocks = find_blocks(
        lines,
        complete=parses if path.endswith((".py", ".pyi")) else lambda _: True,
        greedy=path.endswith(_MARKDOWN),
    )
    old = _lines(previous) if previous is not None else []
    if blocks:
        content = _from_blocks(blocks, path, old, complete=complete)
    else:
        content = _without_headers(lines, path, _first(old))
        if not complete:
            raise EditError(f"{path}: the answer was cut before it ended")
        if not _looks_like_code(content, path, old, parses):
            raise EditError(f"{path}: the answer has no code block")
    _refuse_parts(content, path, old)
    return _in_style_of(previous, content)


def answer_lines(answer: str) -> list[str]:
    """The lines of an answer, without CR and without the thoughts that may come first.

    Raises EditError when it is longer than any answer that was asked for.
    """
    if len(answer) > _MOST_ANSWER:
        raise EditError(f"the answer is longer than {_MOST_ANSWER} characters")
    if answer.lstrip().startswith("<think>"):
        answer = answer.partition("</think>")[2] or answer
    return _lines(answer)


def _lines(text: str) -> list[str]:
    return text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")


def is_header(line: str, path: str) -> bool:
    """`line` is nothing but a title that names `path`, as `### path`, `// path` or `File: path`."""
    if len(line) > len(path) + 60:
        return False
    title = line.strip().strip("#/*-;%<!>`\"' \t").removesuffix(":").strip("*`\"' ")
    return re.sub(r"(?i)^(?:file|filename|path)\s*:\s*[*`\"' ]*", "", title) == path.strip("/")


def _from_blocks(
    blocks: Sequence[Block], path: str, old: Sequence[str], *, complete: bool
) -> list[str]:
    pool = [block for block in blocks if _fits(block, path)]
    if not pool and len(blocks) == 1 and blocks[0].language in ("", "text", "plaintext", "code"):
        pool = list(blocks)
    if not pool:
        found = ", ".join(dict.fromkeys(block.language for block in blocks))
        raise EditError(f"{path}: the answer has no code block for this file, only {found}")
    own, before = _first(old), _stripped(old)
    pairs = [(_without_headers(block.lines, path, own), block) for block in pool]
    # some models repeat the file as it is before they write it as it shall be
    pairs = [pair for pair in pairs if pair[0] != before] or pairs
    pairs = [pair for pair in pairs if _names(pair[1], path)] or pairs
    content, block = max(pairs, key=lambda pair: sum(len(line) for line in pair[0]))
    if not block.closed and not complete:
        raise EditError(f"{path}: the answer was cut before its code block ended")
    if path.endswith(_MARKDOWN) and not complete:
        raise EditError(f"{path}: the answer was cut, perhaps inside the file")
    if not content and PurePosixPath(path).name not in _MAY_BE_EMPTY:
        raise EditError(f"{path}: the code block is empty")
    return content


def _fits(block: Block, path: str) -> bool:
    labels = _LABELS.get(PurePosixPath(path).suffix, "").split()
    language = block.language
    if language in ("diff", "patch"):
        return False
    return not labels or language in labels or not language or language == path.lower()


def _names(block: Block, path: str) -> bool:
    first = _first(block.lines)
    words = re.split(r"[\s:=\"'`*()<>,]+", f"{block.label} {block.before[:500]}")
    return path in (word.rstrip(".") for word in words) or is_header(first, path)


def _first(lines: Sequence[str]) -> str:
    """The first line with text; empty without any."""
    return next((line for line in lines if line.strip()), "")


def _without_headers(lines: Sequence[str], path: str, own: str) -> list[str]:
    """`lines` without blank lines around them and without titles; `own` is the file's first line,
    which is no title."""
    content = _stripped(lines)
    for _ in range(_MOST_HEADERS):
        if content and is_header(content[0], path) and content[0].rstrip() != own.rstrip():
            content = _stripped(content[1:])
    return content


def _stripped(lines: Sequence[str]) -> list[str]:
    full = [n for n, line in enumerate(lines) if line.strip()]
    return list(lines[full[0] : full[-1] + 1]) if full else []


def _looks_like_code(
    content: Sequence[str], path: str, old: Sequence[str], parses: Callable[[Sequence[str]], bool]
) -> bool:
    """An answer without any fence is taken only when it can hardly be prose."""
    text = "\n".join(content)
    match PurePosixPath(path).suffix:
        case ".py" | ".pyi":
            return parses(content) and not re.fullmatch(r"[\w\s.,!?'\"-]*", text)
        case ".json":
            return _loads(json.loads, text)
        case ".toml":
            return bool(text) and _loads(tomllib.loads, text)
        case ".md":
            return text.startswith("# ")
    known = {line for line in old if len(line.strip()) > 3}
    if known:
        return sum(line in known for line in content) * 3 >= len(known)
    ends = sum(line.rstrip().endswith(tuple("{}();,:>")) for line in content)
    return ends * 2 > len(content)


def _loads(load: Callable[[str], object], text: str) -> bool:
    try:
        load(text)
    except (ValueError, RecursionError):
        return False
    return True


def _budgeted_parse() -> Callable[[Sequence[str]], bool]:
    """A test for complete Python that parses `_MOST_PARSED` characters in all, then says no."""
    left = _MOST_PARSED

    def parses(lines: Sequence[str]) -> bool:
        nonlocal left
        left -= sum(map(len, lines)) + len(lines) + _LEAST_PARSED
        if left < 0:
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the model's code, of no use to anybody here
            try:
                return bool(ast.parse("\n".join(lines)).body)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                return False

    return parses


def _refuse_parts(content: Sequence[str], path: str, old: Sequence[str]) -> None:
    known = set(old)
    for line in content:
        short = line[:300]
        if _SEARCH_MARKER.match(short):
            raise EditError(f"{path}: the answer has search/replace blocks, not the whole file")
        if old and _LEFT_OUT.fullmatch(short) and line not in known:
            raise EditError(f"{path}: the answer leaves out parts of the file: {line.strip()}")
        if "\0" in line or not _encodes(line):
            raise EditError(f"{path}: the answer has characters that no text file holds")


def _encodes(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True


def _in_style_of(previous: str | None, content: Sequence[str]) -> str:
    if not content:
        return ""
    text = "\n".join(content)
    old = previous or ""
    if not old or old.endswith("\n"):
        text += "\n"
    if old.count("\r\n") * 2 > old.count("\n"):
        text = text.replace("\n", "\r\n")
    return "\ufeff" + text if old.startswith("\ufeff") else text
