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
    r"\.?pytest\.ini|tox\.ini|setup\.cfg|pyproject\.toml|noxfile\.py|\.coveragerc|package\.json"
    r"|(?:jest|vitest|vite|babel|playwright|cypress|karma|ava|wdio|prettier|eslint)\.con(?:f|fig)\..+"
    r"|\.(?:mocharc|prettierrc|eslintrc|babelrc|swcrc)(?:\..+)?|\.rspec|rakefile|phpunit\.xml.*"
    r"|(?:gnu)?makefile|justfile|taskfile\.ya?ml|cargo\.toml|pom\.xml"
    r"|(?:build|settings)\.gradle(?:\.kts)?|sitecustomize\.py|usercustomize\.py|.+\.pth"
)
_CI = re.compile(
    r"\.gitlab-ci\.ya?ml|\.travis\.ya?ml|\.?appveyor\.ya?ml|azure-pipelines.*\.ya?ml"
    r"|bitbucket-pipelines\.ya?ml|jenkinsfile.*|\.drone\.ya?ml|\.cirrus\.(?:ya?ml|star)"
    r"|\.woodpecker\.ya?ml|cloudbuild\.ya?ml|buildspec\.ya?ml|codecov\.ya?ml|\.?renovate\.json5?"
)
_CI_FOLDERS = frozenset((".github", ".gitlab", ".circleci", ".buildkite", ".woodpecker", ".ci"))
_HOOKS = re.compile(
    r"\.gitattributes|\.gitconfig|\.lfsconfig|\.pre-commit-config\.ya?ml|\.?lefthook(?:-local)?\..+"
    r"|\.lintstagedrc(?:\..+)?|\.envrc|\.npmrc|\.yarnrc(?:\.yml)?|\.pnp\..+|turbo\.toml|\.env"
)
_HOOK_FOLDERS = frozenset(
    (".githooks", ".git-hooks", ".husky", ".vscode", ".idea", ".devcontainer")
)
_FOREIGN_FOLDERS = frozenset(("node_modules", ".venv", "venv", "site-packages", ".yarn", ".tox"))

_RUN_BY_TESTS = frozenset(
    {
        *("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "py", "coverage", "hypothesis"),
        *("xdist", "nose", "nose2", "tox", "nox", "attr", "typing_extensions", "pip", "setuptools"),
    }
)
"""Modules that test commands import, besides those of Python."""


def is_test(path: str) -> bool:
    """Whether a file is a test, or something that tests read, by the usual conventions."""
    place = PurePosixPath(path)
    if any(_TEST_FOLDER.fullmatch(part.casefold()) for part in place.parts[:-1]):
        return True
    if place.suffix.casefold() in _PROSE or not place.suffix:
        return False
    if place.suffix in _CLASS_SUFFIXES and _TEST_CLASS.fullmatch(place.stem):
        return True
    return _TEST_STEM.fullmatch(place.stem.casefold()) is not None


def why_guarded(path: str, tracked: Collection[str], programs: Iterable[str]) -> str | None:
    """What keeps `path` from being changed unless the task's `files` names it; None when nothing.

    `tracked` are the files of the base commit, `programs` the paths that git's configuration names.
    """
    place = PurePosixPath(path)
    name = place.name.casefold()
    folders = {part.casefold() for part in place.parts[:-1]}
    for known in programs:
        if place == PurePosixPath(known) or PurePosixPath(known) in place.parents:
            return "is named by git's configuration"
    if _HOOKS.fullmatch(name) or folders & _HOOK_FOLDERS:
        return "configures what git, editors, package managers or turbo run"
    if _CI.fullmatch(name) or folders & _CI_FOLDERS:
        return "is configuration of CI"
    if _RUNNER.fullmatch(name):
        return "says how tests and tools run"
    if folders & _FOREIGN_FOLDERS:
        return "is in a folder of installed packages"
    if place.parts[0] == "tasks" and place.suffix == ".md":
        return "is a task file"
    if is_test(path):
        return "is a test"
    if path not in tracked and _shadows(place, tracked):
        return "would be imported instead of a module that tests need"
    return None


def _shadows(place: PurePosixPath, tracked: Collection[str]) -> bool:
    """Whether a new file is found before a module of Python or of a test runner: tests run with the
    repository, and its `src`, first on the path of imports."""
    if place.suffix not in (".py", ".so", ".pyc"):
        return False
    top = 1 if place.parts[0] == "src" and len(place.parts) > 1 else 0
    first = place.parts[top].split(".")[0]
    if first not in _RUN_BY_TESTS and first not in sys.stdlib_module_names:
        return False
    package = "/".join(place.parts[: top + 1])
    return not any(other.startswith(f"{package}/") for other in tracked)
