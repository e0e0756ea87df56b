"""What every git command of ours is told, so that it runs no program that the repository, or the
user's configuration, names for people: hooks, filters, monitors, signers, transports, maintenance.
"""

from __future__ import annotations

from collections.abc import Sequence

IDENTITY = {
    "GIT_AUTHOR_NAME": "Turbo Local Coder",
    "GIT_AUTHOR_EMAIL": "turbo-local-coder@localhost",
    "GIT_COMMITTER_NAME": "Turbo Local Coder",
    "GIT_COMMITTER_EMAIL": "turbo-local-coder@localhost",
}
"""Author and committer of all that we commit, whatever user.name says or does not say."""

ENVIRONMENT = {
    **IDENTITY,
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    # A partial clone fetches what is missing by a program that its configuration names: git 2.44
    # heeds the first of these, every git the second, which beats protocol.allow.
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "LC_ALL": "C",
}

OPTIONS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=",  # before git 2.36 this is the name of a program, and none is an empty one
    "core.quotePath=false",
    # several runs and the user's own git may write at the same time: wait, ms, instead of failing
    "core.filesRefLockTimeout=2000",
    "core.packedRefsTimeout=2000",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
    "commit.gpgSign=false",
    "core.safecrlf=false",
    "merge.verifySignatures=false",
    "submodule.recurse=false",
    "worktree.useRelativePaths=false",
    "i18n.commitEncoding=UTF-8",
)
"""For ``git -c``. Filters have names of their own: see `filters_off`."""

FILTER_NAMES = ("config", "--null", "--name-only", "--get-regexp", r"^filter\.")
"""The git command that lists what is configured of filters; exit code 1 where nothing is."""


def filters_off(listed: str) -> list[str]:
    """Options for ``git -c`` that turn off every filter in `listed`, the output of FILTER_NAMES.

    Raises ValueError with the name of a filter that git cannot be told about: one with a ``=``.
    """
    keys = (name for name in listed.split("\0") if name)
    names = dict.fromkeys(key.split(".", 1)[1].rpartition(".")[0] for key in keys)
    if unnameable := [name for name in names if "=" in name]:
        raise ValueError(unnameable[0])
    # An empty program is none; a filter that is required and has none would fail.
    told = ("clean=", "smudge=", "process=", "required=false")
    return [f"filter.{name}.{setting}" for name in names if name for setting in told]


FILTER = ("filter",)
CONVERSIONS = (*FILTER, "working-tree-encoding", "ident")
"""Attributes that make what git keeps of a file another text than the one in the worktree."""


def conversions_of(output: str) -> dict[str, tuple[str, str]]:
    """From the output of ``git check-attr -z`` the paths that have one of CONVERSIONS, and that
    attribute with its value.

    A filter counts whether or not it is configured here: elsewhere it is."""
    fields = output.split("\0")
    told = zip(fields[::3], fields[1::3], fields[2::3], strict=False)
    return {path: (name, value) for path, name, value in told if _converts(name, value)}


def _converts(name: str, value: str) -> bool:
    as_it_is = name == "working-tree-encoding" and value.casefold() in ("utf-8", "utf8")
    return value not in ("unspecified", "unset") and not as_it_is


def why_not_converted(paths: dict[str, tuple[str, str]]) -> str:
    """Why the first of `paths`, which `conversions_of` found, cannot be written by us."""
    path, (name, value) = next(iter(paths.items()))
    if name == "filter":
        return f"{path!r} is kept by git through the filter {value}, which is not run here"
    attribute = name if value == "set" else f"{name}={value}"
    return f"{path!r} has the git attribute {attribute}: git would keep another text than is tested"


def in_portions(paths: Sequence[str], most: int = 500) -> list[Sequence[str]]:
    """`paths` in parts that fit on a command line."""
    return [paths[at : at + most] for at in range(0, len(paths), most)]
