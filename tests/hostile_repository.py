"""A repository whose configuration names a program for everything that git runs programs for. Each
leaves a mark when it is run."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_HOOKS = (
    *("applypatch-msg", "commit-msg", "fsmonitor-watchman", "post-applypatch", "post-checkout"),
    *("post-commit", "post-index-change", "post-merge", "post-rewrite", "pre-applypatch"),
    *("pre-auto-gc", "pre-commit", "pre-merge-commit", "pre-push", "pre-rebase"),
    *("prepare-commit-msg", "push-to-checkout", "reference-transaction", "sendemail-validate"),
)
_PROGRAMS = {
    "core.alternateRefsCommand": "alternate-refs",
    "core.askPass": "ask-pass",
    "core.editor": "editor",
    "core.fsmonitor": "fsmonitor",
    "core.gitProxy": "proxy",
    "core.pager": "pager",
    "core.sshCommand": "ssh",
    "credential.helper": "!credential",
    "diff.evil.command": "diff-driver",
    "diff.evil.textconv": "textconv",
    "diff.external": "diff-external",
    "gc.recentObjectsHook": "recent-objects",
    "gpg.program": "gpg",
    "interactive.diffFilter": "diff-filter",
    "merge.evil.driver": "merge-driver",
    "pager.diff": "pager",
    "pager.log": "pager",
    "pager.status": "pager",
    "sequence.editor": "editor",
    "submodule.sub.update": "!submodule-update",
    "trailer.sign.command": "trailer",
    "uploadpack.packObjectsHook": "pack-objects",
    **{f"alias.{name}": f"!alias-{name}" for name in ("add", "commit", "status", "worktree")},
}
_VALUES = {
    "commit.gpgSign": "true",
    "core.hooksPath": ".githooks",
    "extensions.partialClone": "origin",
    "fetch.recurseSubmodules": "true",
    "filter.strict.required": "true",
    "gc.auto": "1",
    "log.showSignature": "true",
    "maintenance.auto": "true",
    "merge.verifySignatures": "true",
    "protocol.allow": "always",
    "protocol.ext.allow": "always",
    "remote.origin.promisor": "true",
    "status.submoduleSummary": "true",
    "submodule.recurse": "true",
    "user.useConfigOnly": "true",
}
_ATTRIBUTES = """*.dat filter=evil diff=evil merge=evil
*.strict filter=strict
*.inner filter=inner
*.global filter=global
*.py diff=evil merge=evil
"""
ASSETS = ("asset.dat", "asset.strict", "asset.inner", "asset.global")
"""Files that git keeps in capitals, and the checkout has in small letters."""


@dataclass(frozen=True)
class Hostile:
    """Where it is, and how a process must be started in it."""

    repository: Path
    marks: Path
    environment: dict[str, str]

    def ran(self) -> list[str]:
        """The programs that were run."""
        return sorted(path.name for path in self.marks.iterdir())

    def git(self, *arguments: str, check: bool = True) -> str:
        """git as the user has it, with all programs."""
        done = subprocess.run(
            ["git", "-C", str(self.repository), *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=check,
        )
        return done.stdout.strip()


def make_hostile(repository: Path, top: Path) -> Hostile:
    """Give a repository with a commit such a configuration; programs and marks go below `top`."""
    programs, marks = top / "programs", top / "marks"
    programs.mkdir(parents=True)
    marks.mkdir()

    def program(name: str, does: str = "") -> str:
        path = programs / name
        path.write_text(f"#!/bin/sh\ntouch {marks}/{name}\n{does}\n")
        path.chmod(0o755)
        return str(path)

    everywhere = top / "global.gitconfig"
    everywhere.touch()
    hostile = Hostile(
        repository, marks, {"GIT_CONFIG_GLOBAL": str(everywhere), "GIT_CONFIG_NOSYSTEM": "1"}
    )
    small, capital = "exec tr A-Z a-z", "exec tr a-z A-Z"
    for name in ("evil", "strict", "inner", "global"):
        place = {"global": ("--file", str(everywhere)), "inner": ("--file", str(top / "inner"))}
        for kind, does in (("smudge", small), ("clean", capital)):
            text = program(f"{kind}-{name}", does)
            hostile.git("config", *place.get(name, ()), f"filter.{name}.{kind}", text)
    hostile.git("config", f"includeIf.gitdir:{repository}/.git.path", str(top / "inner"))
    _add_submodule(hostile, top, program("submodule-fsmonitor"), program("submodule-clean"))
    (repository / ".gitattributes").write_text(_ATTRIBUTES)
    for name in ASSETS:
        (repository / name).write_text("small letters\n")
    hostile.git("add", "--all")
    gpg = program(
        "gpg", 'cat >&2; echo "[GNUPG:] SIG_CREATED x" >&2; echo "-----BEGIN PGP SIGNATURE-----"'
    )
    sign = ("-c", "user.name=u", "-c", "user.email=u@x", "-c", f"gpg.program={gpg}")
    hostile.git(*sign, "commit", "--quiet", "-S", "-m", "assets")

    for hook in _HOOKS:
        for folder in (repository / ".git" / "hooks", repository / ".githooks"):
            folder.mkdir(exist_ok=True)
            (folder / hook).symlink_to(program(f"hook-{hook}", "exit 1"))
    (repository / ".git" / "info" / "exclude").write_text(".githooks\n")
    for key, value in _VALUES.items():
        hostile.git("config", key, value)
    for name in ("evil", "strict"):
        hostile.git("config", f"filter.{name}.process", program(f"process-{name}"))
    # in linked worktrees only, where the list of the checkout would not have it
    linked = top / "linked"
    hostile.git("config", "--file", str(linked), "filter.linked.smudge", program("smudge-linked"))
    hostile.git("config", "--file", str(linked), "filter.evil.smudge", program("smudge-linked"))
    hostile.git("config", "includeIf.gitdir:**/worktrees/**.path", str(linked))
    hostile.git("config", "remote.origin.url", f"ext::{program('transport')} %S")
    for key, value in _PROGRAMS.items():
        bang = "!" * value.startswith("!")
        hostile.git("config", key, bang + program(value.removeprefix("!")))
    for name in ASSETS:  # git has to look into them
        os.utime(repository / name, (1, 1))
    for mark in marks.iterdir():
        mark.unlink()
    return hostile


def _add_submodule(hostile: Hostile, top: Path, fsmonitor: str, clean: str) -> None:
    source = top / "source"
    source.mkdir()
    inside = Hostile(source, hostile.marks, hostile.environment)
    identity = ("-c", "user.name=u", "-c", "user.email=u@x")
    inside.git("init", "--quiet")
    (source / "x.dat").write_text("x\n")
    (source / ".gitattributes").write_text("*.dat filter=own\n")
    inside.git("add", "--all")
    inside.git(*identity, "commit", "--quiet", "-m", "first")
    allow = ("-c", "protocol.file.allow=always")
    hostile.git(*allow, "submodule", "--quiet", "add", str(source), "sub")
    sub = Hostile(hostile.repository / "sub", hostile.marks, hostile.environment)
    sub.git("config", "filter.own.clean", clean)
    sub.git("config", "core.fsmonitor", fsmonitor)
    os.utime(sub.repository / "x.dat", (1, 1))
