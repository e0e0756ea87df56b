"""What of the repository a prompt shows.

Every prompt of a run begins with the same bytes: the list of files, then the files that matter.
Files that the task names are always shown whole. Files that the test command names and files
that the prose mentions follow while the budget lasts. Nothing is cut in the middle. What is done
per file of the repository is cheap, and what is read and counted is bounded: there may be hundreds
of thousands of files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from agent.core.errors import NotText

_FENCE_LANGUAGE = {
    ".py": "python", ".js": "javascript", ".ts": "typescript", ".rs": "rust", ".go": "go",
    ".java": "java", ".c": "c", ".h": "c", ".cpp": "cpp", ".rb": "ruby", ".sh": "bash",
    ".md": "markdown", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".json": "json",
}  # fmt: skip
_MOST_LISTED = 60
"""Files that are listed one by one; more are listed by folder."""
_LONGEST_LISTED = 200
"""Characters of a name in the list; a plan cannot name a longer one."""
_MOST_WANTED = 64
"""Files that are read to see whether they still fit into the budget: a prose may mention a name
that ten thousand files have."""
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{2,}")
_PATH = re.compile(r"[\w./@+-]+")
_LONGEST_PATH = 400
_SHORT_PROSE = 20_000
"""Characters of a prose in which also paths with blanks or brackets are looked for, one by one."""


@dataclass(frozen=True)
class RepositoryView:
    """The repository part of the prompts of one run."""

    text: str
    shown: Mapping[str, str | None]
    """Files shown whole, by path; None for one that does not exist yet."""
    left_out: tuple[str, ...]
    """Relevant files for which the budget did not suffice."""


async def view_repository(
    files: Sequence[str],
    *,
    named: Sequence[str],
    wanted: Sequence[str],
    budget: int,
    read: Callable[[str], Awaitable[str | None]],
    count_tokens: Callable[[str], Awaitable[int]],
) -> RepositoryView:
    """Choose and render. `named` are shown whatever they cost, `wanted` in their order while
    the whole stays within `budget` tokens.

    Raises NotText, as `read` does, for a named file that is no text; such wanted ones are skipped.
    """
    listing = list_files(files)
    shown: dict[str, str | None] = {path: await read(path) for path in dict.fromkeys(named)}
    text = render_repository(listing, shown)
    left_out = []
    for path in dict.fromkeys(wanted):
        if path in shown:
            continue
        try:
            content = await read(path)
        except NotText:
            continue
        if content is None:
            continue
        # a token is rarely more than a handful of bytes: do not count what cannot fit
        if len(content) <= 12 * budget:
            longer = render_repository(listing, {**shown, path: content})
            if await count_tokens(longer) <= budget:
                shown[path], text = content, longer
                continue
        left_out.append(path)
    return RepositoryView(text=text, shown=shown, left_out=tuple(left_out))


def relevant_files(files: Sequence[str], *, prose: str, test_command: Sequence[str]) -> list[str]:
    """Files worth showing, best first: those that the test command names, those that the prose
    names by path, then those whose name is a word of the prose. At most `_MOST_WANTED`."""
    tracked = set(files)
    words_of_test = (word.split("::")[0] for part in test_command for word in part.split())
    in_test = [path for path in words_of_test if path in tracked]
    paths = _paths(prose)
    words = {word.lower() for word in _WORD.findall(prose)}
    by_path, by_name = [], []
    for path in files:
        stem, dot, suffix = path.rpartition("/")[2].rpartition(".")
        odd = len(prose) <= _SHORT_PROSE and not _PATH.fullmatch(path)
        if path in paths or (odd and path in prose):
            by_path.append(path)
        if stem.lower().removeprefix("test_") in words and f"{dot}{suffix}" in _FENCE_LANGUAGE:
            by_name.append(path)
    return list(dict.fromkeys([*in_test, *by_path, *by_name]))[:_MOST_WANTED]


def _paths(prose: str) -> set[str]:
    """What in a prose may be a path, and each end of it: the prose may name more folders than the
    repository has."""
    found = set()
    for word in _PATH.findall(prose):
        for path in (word.rstrip("."), word.strip("./")):
            if len(path) <= _LONGEST_PATH:
                parts = path.split("/")
                found |= {"/".join(parts[at:]) for at in range(len(parts))}
    return found


def list_files(files: Sequence[str]) -> list[str]:
    """The file list of a prompt: every path, or for large repositories the files at the top and
    each folder with how many files it holds. Names that are too long for a prompt are left out."""
    if len(files) <= _MOST_LISTED:
        return [path for path in files if len(path) <= _LONGEST_LISTED]
    depth = 3
    while depth > 1 and len(_folders(files, depth)) > _MOST_LISTED:
        depth -= 1
    top = [path for path in files if "/" not in path][:_MOST_LISTED]
    folders = sorted(x for x in _folders(files, depth).items() if len(x[0]) <= _LONGEST_LISTED)
    lines = [f"{name}/ ({count} files)" for name, count in folders[:_MOST_LISTED]]
    hidden = len(folders) - _MOST_LISTED
    return top + lines + ([f"... and {hidden} more folders"] if hidden > 0 else [])


def _folders(files: Sequence[str], depth: int) -> Counter[str]:
    above = (path.rpartition("/")[0] for path in files)
    return Counter("/".join(folder.split("/", depth)[:depth]) for folder in above if folder)


def render_file(path: str, content: str | None) -> str:
    """One file as a prompt shows it, with LF line ends; `content` None means that it does not
    exist yet."""
    if content is None:
        return f"### {path}\n(new file)"
    language = _FENCE_LANGUAGE.get(PurePosixPath(path).suffix, "")
    return f"### {path}\n{fenced(_with_lf(content), language)}"


def looks_the_same(one: str | None, other: str | None) -> bool:
    """Whether a prompt shows the two alike: git may check a file out with other line ends than
    it keeps."""
    if one is None or other is None:
        return one is other
    return _with_lf(one) == _with_lf(other)


def _with_lf(text: str) -> str:
    return text.replace("\r\n", "\n")


def fenced(text: str, language: str) -> str:
    """`text` in a code fence that is longer than any fence inside it."""
    fence = "```"
    while fence in text:
        fence += "`"
    body = text if text.endswith("\n") or not text else text + "\n"
    return f"{fence}{language}\n{body}{fence}"


def render_repository(listing: Sequence[str], shown: Mapping[str, str | None]) -> str:
    """The repository part of every prompt: the file list, then the files that matter."""
    parts = ["\n".join(listing)] if listing else []
    parts += [render_file(path, content) for path, content in shown.items()]
    return "\n\n".join(parts)


def render_step(path: str, action: str, instruction: str, files: Mapping[str, str | None]) -> str:
    """One step of the plan, with files that the repository part does not show as they are now."""
    parts = [f"{path} ({action})\n{instruction}"]
    parts += [render_file(name, content) for name, content in files.items()]
    return "\n\n".join(parts)
