"""Task files: what the user wants, as Markdown with YAML front matter.

::

    ---
    title: Add a slugify helper        # required
    files: [textkit/slug.py]           # may be changed or created; default: the planner decides
    context: [textkit/__init__.py]     # further files to show
    test: pytest -q tests/test_slug.py # default: detected
    candidates: 4                      # default: from the settings
    ---
    What is wanted, in prose.

Whatever is wrong in one is a TaskFileError that names file, line and key. The YAML is only composed
into nodes, never constructed into objects: nodes know their lines, and nothing in them can run.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from agent.core.errors import TaskFileError
from agent.core.regular_file import read_regular
from agent.core.repository_path import tidy_path, why_refused
from agent.team.front_matter import FrontMatter, read_front_matter

MOST_BYTES = 1_000_000
"""Largest task file. What is longer is no task for a small model, and probably no task at all."""

MOST_CANDIDATES = 32
_SLUG_CHARACTERS = 40
_TITLE_CHARACTERS = 72

_BINARY = re.compile("[\0\ud800-\udfff]")
_EXAMPLE = "A task file starts with ---, lines like `title: Add a helper`, and --- again."


class Task(BaseModel):
    """One wish of the user."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(min_length=1)
    """One line."""

    body: str = Field(min_length=1)
    """The prose, without blank lines around it, with LF line ends."""

    files: tuple[str, ...] = ()
    """Paths that the team may change or create; empty: the planner decides."""

    context: tuple[str, ...] = ()
    """Paths of further files that the prompts show."""

    test: str | None = None
    """The test command as the user wrote it; None: detected."""

    candidates: int | None = Field(default=None, ge=1, le=MOST_CANDIDATES)
    """Answers per step; None: as the settings say."""

    source: str
    """The file, for messages; ``-`` for standard input, ``--task`` for prose."""

    lines: tuple[tuple[str, int], ...] = Field(default=(), repr=False)
    """Where each path and the test command stand in the source, for messages of later checks."""

    @property
    def prose(self) -> str:
        """Title and body as every prompt shows them."""
        return f"{self.title}\n\n{self.body}"

    @property
    def may_change(self) -> str:
        """The paths that may change, as every prompt shows them."""
        return ", ".join(self.files) or "any"

    @property
    def slug(self) -> str:
        """The title for branch names: a-z, 0-9 and single hyphens, at most 40 characters."""
        plain = unicodedata.normalize("NFKD", self.title).encode("ascii", "ignore").decode()
        words = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
        return words[:_SLUG_CHARACTERS].rstrip("-") or "task"


def find_tasks(root: Path) -> list[Path]:
    """The task files of a repository, ``tasks/*.md`` but for a README, by name."""
    found = (path for path in (root / "tasks").glob("*.md") if path.stem.lower() != "readme")
    return sorted(path for path in found if path.is_file())


def read_task(path: Path) -> Task:
    """Read and parse one task file. Raises TaskFileError."""
    source = str(path)
    try:
        data = read_regular(path, MOST_BYTES)
    except FileNotFoundError:
        raise TaskFileError(
            source, "no such file", fix="Name a task file, or give --task and the wish in prose."
        ) from None
    except IsADirectoryError:
        raise TaskFileError(
            source, "is a folder", fix="Name the task files in it: tasks/*.md"
        ) from None
    except (OSError, ValueError) as error:
        raise TaskFileError(
            source, f"cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(data) > MOST_BYTES:
            raise too_large(source) from None
        line = data.count(b"\n", 0, error.start) + 1
        raise TaskFileError(
            source, "is not UTF-8", line=line, fix="Save the file with the encoding UTF-8."
        ) from None
    return parse_task(text, source=source)


def parse_task(text: str, *, source: str) -> Task:
    """Parse the text of a task file. A byte order mark and CRLF are fine. Raises TaskFileError."""
    if len(text) > MOST_BYTES:
        raise too_large(source)
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    _refuse_binary(text, source)
    head, body = _split(text, source)
    front = read_front_matter(head, source=source, first_line=2)
    body = body.strip()
    if not body:
        line = head.count("\n") + 3
        fix = "Write below the front matter what is wanted."
        raise TaskFileError(source, "the task says nothing", line=line, fix=fix)
    return _build(front, body, source)


def task_from_prose(prose: str, *, source: str = "--task") -> Task:
    """A task that is nothing but prose, titled by the first line with words in it.

    Raises TaskFileError.
    """
    _refuse_binary(prose, source)
    body = prose.replace("\r\n", "\n").strip()
    lines = (" ".join(line.lstrip("# ").split()) for line in body.split("\n"))
    first = next(filter(None, lines), "")
    if not first:
        raise TaskFileError(source, "says nothing", fix="Write what is wanted.")
    title = textwrap.shorten(first, _TITLE_CHARACTERS, placeholder="...")
    if title == "...":  # one word, longer than a title may be
        title = first[:_TITLE_CHARACTERS]
    return Task(title=title, body=body, source=source)


def check_paths(task: Task, root: Path) -> None:
    """Refuse paths that are not of the repository, and context that is not there.

    Raises TaskFileError that names the line of the path.
    """
    for key, paths in (("files", task.files), ("context", task.context)):
        for path in paths:
            reason = why_refused(path, root)
            fix = "Write the path of a file, relative to the root of the repository."
            if reason is None and key == "context" and not (root / path).is_file():
                reason = "does not exist"
                fix = "Correct the path; a file that is to be created belongs under files."
            if reason is not None:
                line = dict(task.lines).get(f"{key} {path}", 0)
                raise TaskFileError(task.source, f"{path!r} {reason}", line=line, key=key, fix=fix)


def _split(text: str, source: str) -> tuple[str, str]:
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        raise TaskFileError(source, "has no front matter", line=1, fix=_EXAMPLE)
    for number, line in enumerate(lines[1:], 1):
        if line.rstrip() == "---":
            return "\n".join(lines[1:number]), "\n".join(lines[number + 1 :])
    raise TaskFileError(source, "the front matter has no end", line=1, fix=_EXAMPLE)


def _build(front: FrontMatter, body: str, source: str) -> Task:
    files, context = front.texts("files"), front.texts("context")
    if "files" in front.nodes and not files:
        fix = "Leave the key out to let the planner decide."
        line = front.line("files")
        raise TaskFileError(source, "is an empty list", line=line, key="files", fix=fix)
    places = [
        (f"{key} {tidy_path(path)}", line)
        for key, found in (("files", files), ("context", context))
        for path, line in found
    ]
    if "test" in front.nodes:
        places.append(("test", front.line("test")))
    return Task(
        title=" ".join(front.text("title").split()),
        body=body,
        files=tuple(dict.fromkeys(tidy_path(path) for path, _ in files)),
        context=tuple(dict.fromkeys(tidy_path(path) for path, _ in context)),
        test=front.optional_text("test"),
        candidates=front.number("candidates", most=MOST_CANDIDATES),
        source=source,
        lines=tuple(places),
    )


def _refuse_binary(text: str, source: str) -> None:
    if match := _BINARY.search(text):
        line = text.count("\n", 0, match.start()) + 1
        raise TaskFileError(source, "is no text", line=line, fix="Save the file as UTF-8 text.")


def too_large(source: str) -> TaskFileError:
    """The error for a task of more than `MOST_BYTES`."""
    return TaskFileError(
        source,
        f"is larger than {MOST_BYTES} bytes",
        fix="Name large files under context instead of pasting them.",
    )
