"""Files that judge the work or that run programs: the team changes them only when told to.

Whoever may change the tests, or how and where they run, decides what is green. So a plan may touch
such a file only when the task's `files` names it. By names alone, and rather too many than too few:
naming a file in `files` is easy.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath

_TEST_FOLDER = re.compile(
    r"(?:(?:unit|integration|functional|acceptance|system|android|e2e|regression)[-_]?)?tests?"
    r"|__(?:tests|mocks|snapshots)__|specs?|testdata|e2e|cypress"
)
_TEST_STEM = re.compile(r"tests?|spec|conftest|(?:test|spec)_.+|.+[._-](?:tests?|specs?|unittest)")
_TEST_CLASS = re.compile(r"Tests?[A-Z]\w*|\w+(?:Tests?|TestCase)")
_CLASS_SUFFIXES = (".java", ".kt", ".cs", ".php", ".swift", ".scala", ".groovy")
_PROSE = (".md", ".rst", ".txt", ".adoc")

_RUNNER = re.compile(
    r"\.?pytest\.(?:ini|toml)|tox\.ini|setup\.(?:cfg|py)|pyproject\.toml|noxfile\.py|package\.json"
    r"|(?:jest|vitest|vite|babel|playwright|cypress|karma|ava|wdio|prettier|eslint)\.con(?:f|fig)\..+"
    r"|(?:jest|vitest)[.-]setup\..+|setuptests\..+|bunfig\.toml|deno\.jsonc?|rakefile|phpunit\.xml.*"
    r"|(?:gnu)?makefile|justfile|taskfile\.ya?ml|cargo\.toml|build\.rs|go\.(?:mod|work)|pom\.xml"
    r"|cmakelists\.txt|meson\.build|(?:build|workspace|module)\.bazel|gemfile"
    r"|(?:build|settings)\.gradle(?:\.kts)?|sitecustomize\.py|usercustomize\.py|.+\.pth"
)
_CI = re.compile(
    r"appveyor\.ya?ml|azure-pipelines.*\.ya?ml|bitbucket-pipelines\.ya?ml|jenkinsfile.*"
    r"|cloudbuild\.ya?ml|buildspec\.ya?ml|codecov\.ya?ml|renovate\.json5?"
)
_HOOKS = re.compile(r"lefthook(?:-local)?\..+|turbo\.toml|.+\.code-workspace")
_FOREIGN = re.compile(r"node_modules|venv|site-packages|.+\.(?:dist-info|egg-info|egg|egg-link)")
"""Parts of paths. Whoever is on the path of imports with a ``.dist-info`` is installed: pytest
loads the plugins that it names."""

_RUN_BY_TESTS = frozenset(
    {
        *("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "py", "coverage", "hypothesis"),
        *("xdist", "nose", "nose2", "tox", "nox", "attr", "attrs", "typing_extensions", "pip"),
        *(
            "setuptools",
            "pkg_resources",
            "pygments",
            "exceptiongroup",
            "tomli",
            "colorama",
            "anyio",
        ),
        *("sniffio", "idna", "trio", "execnet", "sortedcontainers", "importlib_metadata", "zipp"),
        *("six", "mock", "faker", "_hypothesis_pytestplugin", "hypothesmith", "psutil", "rich"),
    }
)
"""Modules that test commands and plugins of pytest import, besides those of Python."""
_MODULES = (".py", ".pyc", ".pyd", ".so")


def is_test(path: str) -> bool:
    """Whether a file is a test, or something that tests read, by the usual conventions."""
    place = PurePosixPath(path)
    if any(_TEST_FOLDER.fullmatch(part.casefold()) for part in place.parts[:-1]):
        return True
    if place.suffix.casefold() in _PROSE or not place.suffix:
        return False
    if place.suffix.casefold() in _CLASS_SUFFIXES and _TEST_CLASS.fullmatch(place.stem):
        return True
    return _TEST_STEM.fullmatch(place.stem.casefold()) is not None


def why_guarded(path: str, tracked: Collection[str], programs: Iterable[str]) -> str | None:
    """What keeps `path` from being changed unless the task's `files` names it; None when nothing.

    `tracked` are the files of the base commit, `programs` the paths that git's configuration names.
    """
    # Disks of macOS and Windows ignore case, and so do many programs.
    place = PurePosixPath(path.casefold())
    for known in map(PurePosixPath, map(str.casefold, programs)):
        if place == known or known in place.parents:
            return "is named by git's configuration"
    if _HOOKS.fullmatch(place.name):
        return "configures what git, editors, package managers or turbo run"
    if _CI.fullmatch(place.name):
        return "is configuration of CI"
    if _RUNNER.fullmatch(place.name):
        return "says how tests and tools run"
    if any(_FOREIGN.fullmatch(part) for part in place.parts):
        return "is what installed packages consist of"
    if any(part.startswith(".") for part in place.parts):
        return "has a name with a dot at its begin, as what configures programs has"
    if place.parts[0] == "tasks" and place.suffix == ".md":
        return "is a task file"
    if is_test(path):
        return "is a test"
    if path not in tracked and _shadows(place, {other.casefold() for other in tracked}):
        return "would be imported instead of a module that tests need"
    return None


def _shadows(place: PurePosixPath, tracked: Collection[str]) -> bool:
    """Whether a new file is found before a module of Python, of a test runner or of the repository:
    tests run with its `src` and the repository first on the path of imports, and some runners put
    the repository before that."""
    if place.suffix not in _MODULES:
        return False
    in_src = place.parts[0] == "src" and len(place.parts) > 1
    inside = place.parts[1:] if in_src else place.parts
    first = inside[0].split(".")[0]
    here, there = ("src/", "") if in_src else ("", "src/")
    becomes_package = len(inside) == 2 and inside[1].startswith("__init__.")
    if not becomes_package and _is_module(f"{here}{first}/", tracked):
        return False
    if first in _RUN_BY_TESTS or first in sys.stdlib_module_names or first.startswith("pytest_"):
        return True
    return _is_module(f"{there}{first}/", tracked) or f"{there}{first}.py" in tracked


def _is_module(folder: str, tracked: Collection[str]) -> bool:
    """Whether Python can import something of a folder."""
    return any(path.startswith(folder) and path.endswith(_MODULES) for path in tracked)
