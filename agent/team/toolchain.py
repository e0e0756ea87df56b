"""What the repository itself configures: its test command, its linters and formatters, its tools.

Everything is read from files; nothing of the repository runs here.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from agent.core.config import command_environment
from agent.core.regular_file import MOST_BYTES, read_regular
from agent.core.toolchain_paths import PYTHONS

_PYTEST = ("pytest", "-q", "--tb=short", "--color=no", "-p", "no:cacheprovider")
"""The script and not ``python -m pytest``: whichever `pytest` PATH has comes with its interpreter,
while the `python` that PATH has first may lack it. `run_tests` makes the repository importable."""

_MOST_FILES = 20_000
_PRETTIER = (".js", ".jsx", ".mjs", ".cjs", ".ts", ".tsx", ".css", ".scss", ".html", ".vue")


def detect_test_command(root: Path) -> tuple[str, ...] | None:
    """How the tests of this repository are run; None when nothing tells."""
    if _has_pytest(root):
        return _PYTEST
    script = _table(_json(root / "package.json"), "scripts").get("test")
    if isinstance(script, str) and script and "no test specified" not in script:
        return ("npm", "test", "--silent")
    if (root / "Cargo.toml").is_file():
        return ("cargo", "test", "--quiet")
    if (root / "go.mod").is_file():
        return ("go", "test", "./...")
    makefiles = (root / name for name in ("GNUmakefile", "makefile", "Makefile"))
    if any(re.search(r"(?m)^test[ \t]*:(?!=)", _text(path)) for path in makefiles):
        return ("make", "test")
    return None


def lint_commands(
    root: Path, paths: Sequence[str], *, checkout: Path | None = None
) -> list[tuple[str, ...]]:
    """Fixers, then formatters, that the repository at `root` configures, for `paths` alone.

    A tool that is not found is left out: the tests judge, not the style. A formatter runs only
    where it is configured as one, else the first edit of a file would rewrite all of it.
    `checkout` is where the user's tools are installed.
    """
    existing = [path for path in paths if (root / path).is_file()]
    project = _toml(root / "pyproject.toml")
    hooks = _text(root / ".pre-commit-config.yaml")
    tool = _table(project, "tool")
    ruff = {**_table(tool, "ruff"), **_toml(root / "ruff.toml"), **_toml(root / ".ruff.toml")}
    own_file = any((root / name).is_file() for name in ("ruff.toml", ".ruff.toml"))
    wanted: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    if "ruff" in tool or own_file:
        wanted.append((("ruff", "check", "--fix", "--quiet", "--no-cache"), (".py", ".pyi")))
    if "format" in ruff or "id: ruff-format" in hooks:
        wanted.append((("ruff", "format", "--quiet", "--no-cache"), (".py", ".pyi")))
    elif "black" in tool:
        wanted.append((("black", "--quiet"), (".py", ".pyi")))
    if any(root.glob(".prettierrc*")) or "prettier" in _json(root / "package.json"):
        wanted.append((("prettier", "--write", "--log-level", "warn"), _PRETTIER))
    if (root / "go.mod").is_file():
        wanted.append((("gofmt", "-w"), (".go",)))
    if (root / "rustfmt.toml").is_file() or (root / ".rustfmt.toml").is_file():
        wanted.append((("rustfmt",), (".rs",)))
    search = command_environment(tools=tool_folders(checkout or root))["PATH"]
    commands = []
    for (name, *options), suffixes in wanted:
        # "./" keeps a path that begins with a hyphen from being an option
        files = [f"./{path}" for path in existing if PurePosixPath(path).suffix in suffixes]
        program = shutil.which(name, path=search)
        if files and program:
            commands.append((program, *options, *files))
    return commands


def tool_folders(checkout: Path) -> tuple[Path, ...]:
    """Where the user's checkout keeps tools of its own: virtual environments, node_modules.

    A sandbox will show them. A link of that name may come with a clone and lead to any folder, so
    that what it leads to must be what it is called.
    """
    names = (".venv/bin", "venv/bin", ".venv/Scripts", "venv/Scripts")
    found = [checkout / name for name in names]
    folders = [x for x in found if any((x / python).is_file() for python in PYTHONS)]
    modules = node_modules(checkout)
    if modules is not None and (modules / ".bin").resolve().parent == modules.resolve():
        folders.append(modules / ".bin")
    return tuple(folder for folder in folders if folder.is_dir())


def node_modules(checkout: Path) -> Path | None:
    """The checkout's packages of Node; None when there are none."""
    folder = checkout / "node_modules"
    return folder if folder.resolve().name == "node_modules" and folder.is_dir() else None


def _has_pytest(root: Path) -> bool:
    if "pytest" in _table(_toml(root / "pyproject.toml"), "tool"):
        return True
    if any((root / name).is_file() for name in ("pytest.ini", ".pytest.ini", "conftest.py")):
        return True
    if "[tool:pytest]" in _text(root / "setup.cfg") or "[pytest]" in _text(root / "tox.ini"):
        return True
    if any(root.glob("test_*.py")):
        return True
    below = (name for folder in ("tests", "test") for name in _names_below(root / folder))
    return any(
        name.endswith("_test.py") or (name.startswith("test_") and name.endswith(".py"))
        for name in itertools.islice(below, _MOST_FILES)
    )


def _names_below(folder: Path) -> Iterator[str]:
    """Names of files below `folder`, which may be deeper than a recursion goes."""
    folders = [str(folder)]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    yield entry.name


def _text(path: Path) -> str:
    """The beginning of a file; empty when it cannot be read: then it configures nothing."""
    try:
        return read_regular(path)[:MOST_BYTES].decode("utf-8", errors="replace")
    except OSError:
        return ""


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(path))
    except (ValueError, RecursionError):  # also a number that is too long for Python
        return {}


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(_text(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _table(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}
