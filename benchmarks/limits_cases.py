"""What `limits.py` lets a run meet: repositories, task files, test suites and servers out of all
proportion, each built on the repository of the demo."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1 << 20
TASK = "tasks/add-slugify.md"
_PROSE = (
    "Add a function `slugify(text)` to `textkit/slug.py` that converts text to lowercase and joins "
    "its words with hyphens."
)
_BOMB = "\n".join(
    [
        "a: &a [x, x, x, x, x, x, x, x, x, x]",
        *(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]"
            for old, new in zip("abcdefghi", "bcdefghij", strict=True)
        ),
    ]
)

Build = Callable[[Path], None]
"""Writes files into the folder of the demo's repository, before they are committed."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing out of proportion, and what is to come of it."""

    name: str
    build: Build = lambda folder: None
    after: Build = lambda folder: None
    """The same after the commit."""
    arguments: tuple[str, ...] = (TASK,)
    settings: dict[str, str] = field(default_factory=dict)
    endless_stdin: bool = False
    answers: bytes | None = None
    """What a server between sends for ever instead of an answer; None: nothing is between."""
    outcome: str = "accepted"
    """A part of the last status and its reason."""
    extra_s: float = 0.0
    """Wall seconds that the case may take by its nature: a deadline of its own, many tasks."""
    checkouts: int = 0
    """Worktrees of the whole repository that the run makes and removes."""


def task(*head: str, prose: str = _PROSE, test: str = "pytest -q") -> str:
    """A task file like the demo's, with further lines of front matter."""
    lines = ["---", "title: Add a slugify helper", "files: [textkit/slug.py]", f"test: {test}"]
    return "\n".join([*lines, *head, "---", prose, ""])


def _write(name: str, text: str | bytes) -> Build:
    def write(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    return write


def _both(*builds: Build) -> Build:
    def build(folder: Path) -> None:
        for each in builds:
            each(folder)

    return build


def _many(count: int, name: str, text: str = "value = {number}\n") -> Build:
    """`count` files; `name` and `text` may use `number` and `folder`, one per hundred files."""

    def write(folder: Path) -> None:
        made: set[Path] = set()
        for number in range(count):
            path = folder / name.format(number=number, folder=number // 100)
            if path.parent not in made:
                path.parent.mkdir(parents=True, exist_ok=True)
                made.add(path.parent)
            path.write_text(text.format(number=number))

    return write


def _large(name: str, size: int) -> Build:
    line = b"x = 'a line of a file that is far too large to be shown to anybody'\n"

    def write(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            for _ in range(size // len(line)):
                file.write(line)

    return write


def _deep(name: str, levels: int) -> Build:
    """A folder in a folder, `levels` times: too deep for what recurses, not for the system."""

    def write(folder: Path) -> None:
        path = str(folder / name)
        Path(path).mkdir()
        for _ in range(levels):
            path += "/d"
            Path(path).mkdir()
        Path(path, "leaf.py").write_text("x = 1\n")

    return write


def _piece(text: str) -> bytes:
    data = {"content": text, "tokens": [1], "stop": False, "tokens_predicted": 1}
    return b"data: " + json.dumps(data).encode() + b"\n\n"


_SUITE = "tests/test_noise.py"
_DEEP_SUITE = """import os


def test_leaves_a_deep_folder():
    for _ in range(10_000):
        os.mkdir("d")
        os.chdir("d")
"""

CASES = (
    Case(name="the demo as it is"),
    Case(name="50,000 files", build=_many(50_000, "many/d{folder}/f{number}.py"), checkouts=4),
    Case(name="50,000 files in one folder", build=_many(50_000, "many/f{number}.py"), checkouts=4),
    Case(
        name="5,000 files of a name in the prose",
        build=_both(
            _many(5_000, "many/d{number}/helper.py"),
            _write(TASK, task(prose=f"{_PROSE}\n\nNo helper is needed.")),
        ),
        checkouts=4,
    ),
    Case(
        name="100,000 untracked files",
        after=_many(100_000, "build/d{folder}/f{number}.o"),
    ),
    Case(
        name="a .gitignore of 1 MB",
        build=_write(".gitignore", "".join(f"*.x{n}y\n" for n in range(100_000))),
        after=_many(2_000, "build/d{folder}/f{number}.o"),
    ),
    Case(
        name="a file of 100 MB in the prose",
        build=_both(
            _large("large.py", 100 * MIB),
            _write(TASK, task(prose=f"{_PROSE}\n\nLeave large.py as it is.")),
        ),
    ),
    Case(
        name="a file of 100 MB as context",
        build=_both(
            _large("large.py", 100 * MIB),
            _write(TASK, task("context: [large.py]")),
        ),
        outcome="large.py is larger than",
    ),
    Case(
        name="a line of 10 MB in a source file",
        build=_both(
            _write("textkit/long.py", "x = '" + "y" * 10 * MIB + "'\n"),
            _write(TASK, task(prose=f"{_PROSE}\n\nLeave textkit/long.py as it is.")),
        ),
    ),
    Case(
        name="a line of 10 MB in test output",
        build=_write(
            _SUITE,
            'def test_noise(capfd):\n    with capfd.disabled():\n        print("0" * 10_000_000)\n',
        ),
    ),
    Case(
        name="10 MB of blank lines, red",
        build=_write(TASK, task(test="sh -c 'yes \"\" | head -c 10000000; exit 1'")),
        settings={"TURBO_ROUNDS": "1", "TURBO_PLANS": "1"},
        outcome="failed",
    ),
    Case(
        name="tests that print for ever",
        build=_write(TASK, task(test="yes this is printed for ever and ever")),
        settings={"TURBO_ROUNDS": "1", "TURBO_PLANS": "1"},
        outcome="failed",
        extra_s=30,
    ),
    Case(
        name="tests that leave 10,000 folders deep",
        build=_write(_SUITE, _DEEP_SUITE),
        settings={"TURBO_ROUNDS": "1"},
        extra_s=15,
    ),
    Case(
        name="1,500 folders deep",
        build=_both(_deep("deep", 1_500), _write(TASK, task(test="pytest -q tests"))),
        checkouts=4,
    ),
    Case(
        name="a task file of 100 MB",
        after=_large("tasks/large.md", 100 * MIB),
        arguments=("tasks/large.md",),
        outcome="is larger than",
    ),
    Case(
        name="a line of 10 MB in a task file",
        after=_write("tasks/long.md", task(prose="x" * 10 * MIB)),
        arguments=("tasks/long.md",),
        outcome="is larger than",
    ),
    Case(
        name="standard input without end",
        arguments=("-",),
        endless_stdin=True,
        outcome="is larger than",
    ),
    Case(
        name="a YAML bomb",
        after=_write("tasks/bomb.md", f"---\n{_BOMB}\n---\nBoom.\n"),
        arguments=("tasks/bomb.md",),
        outcome="unknown key",
    ),
    Case(
        name="20,000 paths in a task file",
        after=_write("tasks/many.md", task(f"context: [{','.join(['a'] * 20_000)}]")),
        arguments=("tasks/many.md",),
        outcome="context",
    ),
    Case(
        name="1,000 task files, planned",
        build=_many(
            1_000,
            "tasks/task-{number}.md",
            task(prose=_PROSE + " This is task {number}."),
        ),
        arguments=("--all", "--dry-run"),
        outcome="",
        extra_s=300,
    ),
    Case(
        name="a server that sends a line without end",
        answers=b"data: " + b"a" * 65_536,
        outcome="The server sent",
    ),
    Case(
        name="a server whose answer never ends",
        answers=b"".join(_piece(f"word{n} ") for n in range(1_000)),
        outcome="",
    ),
)
