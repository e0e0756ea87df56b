"""What a run was made of: whoever wants the same answers again must have the same of all this."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

import agent
from agent.core.backend_manager import Opened
from agent.core.config import Settings
from agent.core.errors import UsageError, WorkspaceError
from agent.core.http_errors import without_password
from agent.core.redaction import Redactor
from agent.core.workspace import Workspace
from agent.team.runs import MANIFEST, TASK
from agent.team.task_file import Task

_OWN_TO_A_START = ("--port", "--api-key-file", "--slot-save-path", "--model")
"""Flags whose values say where something is, not what is computed."""


class Manifest(BaseModel):
    """One run. With the journal's ``answered`` events (role, seed, digests of prompt and answer)
    it tells whether another run did the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    base: str
    """The commit that it started from."""
    task: Task
    settings: dict[str, Any]
    """All but keys, tokens and passwords in addresses, as JSON values."""
    engine: dict[str, Any]
    """Backend, slots, context, and for a server of ours its build, argv and model digest. Empty
    until the server is ready."""
    versions: dict[str, str]
    replay_of: str = ""
    """The run that this one repeated, if any."""
    apply: bool = False
    """Whether an accepted commit is applied to the current branch."""
    resumable: bool = True
    """Whether it may go on when it was killed: its repository stays."""

    @classmethod
    def of(
        cls,
        task: Task,
        settings: Settings,
        workspace: Workspace,
        *,
        replay_of: str = "",
        apply: bool = False,
        resumable: bool = True,
    ) -> Manifest:
        """The manifest of a run that is about to begin."""
        return cls(
            run=workspace.run,
            replay_of=replay_of,
            apply=apply,
            resumable=resumable and not replay_of,
            base=workspace.base,
            task=task,
            settings=_kept(settings),
            engine={},
            versions={
                "turbo": agent.__version__,
                "python": platform.python_version(),
                "system": _system(),
            },
        )

    def on(self, opened: Opened) -> Manifest:
        """The same with the engine that is ready."""
        backend = opened.backend
        served = {"backend": backend.name, "slots": backend.slots, "context": backend.context}
        return self.model_copy(update={"engine": served | dict(opened.engine)})

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of the run in `folder`. Raises UsageError where there is none to be had."""
        path = folder / MANIFEST
        try:
            manifest = cls.model_validate_json(path.read_bytes())
            if not (folder / TASK).exists():
                return manifest
            path = folder / TASK
            return manifest.model_copy(update={"task": Task.model_validate_json(path.read_bytes())})
        except OSError as error:
            raise UsageError(
                f"{path} cannot be read: {error.strerror}",
                fix="A run that was killed as it began has none; choose another, or type: "
                f"turbo runs discard {folder.name}",
            ) from None
        except ValidationError as error:
            raise UsageError(
                f"{path} is no manifest of this version: {error.errors()[0]['msg']}",
                fix=f"Use the version that wrote it, or type: turbo runs discard {folder.name}",
            ) from None

    def write(self, folder: Path, redactor: Redactor) -> None:
        """Write it into the folder of the run, in one step, as `redactor` leaves it. A task that
        holds a secret lies beside it as it is until the run is over: a run that goes on must ask
        the same. Raises WorkspaceError."""
        kept = redactor.data(self.model_dump(mode="json"))
        if kept["task"] != self.task.model_dump(mode="json"):
            _write(folder / TASK, self.task.model_dump_json())
        _write(folder / MANIFEST, json.dumps(kept, indent=1) + "\n")

    def differences(self, other: Manifest) -> list[str]:
        """What the engine and the versions of `other` have that this one has not, a line each."""
        mine, theirs = _facts(self), _facts(other)
        return [
            f"{name}: {mine.get(name, 'none')}, now {theirs.get(name, 'none')}"
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
        ]


def _write(path: Path, text: str) -> None:
    unnamed = path.with_name(f".{path.name}")
    try:
        unnamed.unlink(missing_ok=True)
        handle = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        unnamed.replace(path)
    except OSError as error:
        raise WorkspaceError(
            f"cannot write {path}: {error.strerror}", fix="Make room or give the rights for it."
        ) from None


def _kept(settings: Settings) -> dict[str, Any]:
    values = settings.model_dump(mode="json", exclude={"llamacpp_api_key", "hf_token"})
    addresses = (name for name in values if name.endswith("_url") or name == "ollama_local")
    shown = {name: without_password(values[name]) for name in addresses if values[name]}
    return values | shown


def _system() -> str:
    """As ``platform.platform`` has it, which starts a program to tell the processor, too."""
    parts = (platform.system(), platform.release(), platform.machine(), *platform.libc_ver())
    return "-".join(filter(None, parts))


def _facts(manifest: Manifest) -> dict[str, str]:
    engine = {k: v for k, v in manifest.engine.items() if k not in ("model", "url")}
    argv = [str(word) for word in engine.pop("argv", [])][1:]
    flags = [
        word
        for index, word in enumerate(argv)
        if word not in _OWN_TO_A_START and (index == 0 or argv[index - 1] not in _OWN_TO_A_START)
    ]
    facts = {**engine, **manifest.versions}
    if flags:
        facts["flags"] = " ".join(flags)
    return {name: str(value) for name, value in facts.items()}
