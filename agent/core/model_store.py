"""The models on this disk that were pulled: one cache for all that run here.

``models/OWNER/REPOSITORY/`` holds the files of a model under their published names, and a record
``NAME.json``, which is written last: what has none is not whole and no model. What is still on its
way is ``.NAME.DIGEST.part``. ``.NAME.lock`` is held alone by whoever fetches or removes the model,
and shared by whoever uses it, both for as long as they live (held_file.py).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.core.config import models_dir
from agent.core.errors import ModelError
from agent.core.gguf_names import whole_name
from agent.core.held_file import hold, is_used
from agent.core.model_digest import computed_digest

_RECORD, _PART, _LOCK = ".json", ".part", ".lock"
_DIGITS = 16
"""Of a digest, in the name of a file on its way."""
_LOOK_S = 0.25
"""Whoever looks whether a model is used holds it for a moment."""
_PATIENCE_S = 5.0
"""Whoever removes a model, or looks whether it may, is done sooner."""


class StoredFile(BaseModel):
    """A file of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    size: int
    sha256: str


class Record(BaseModel):
    """What was pulled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: str
    commit: str
    quantisation: str
    licence: str
    files: tuple[StoredFile, ...]


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """A whole model in the cache."""

    record: Record
    folder: Path
    name: str
    """Of its file, without part and ending."""
    used_at: float
    """When it was used or fetched last, in seconds since the epoch."""
    fault: str = ""
    """Why it is no whole model (model_remains.py); empty for one that is."""
    unfinished: bool = False
    """That is because its pull is not finished."""

    @property
    def path(self) -> Path:
        """The file that a server opens."""
        files = self.record.files
        return self.folder / (files[0].name if files else f"{self.name}.gguf")

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.record.files)

    @property
    def asked_as(self) -> str:
        """By what it can be named."""
        return f"{self.record.repository}:{self.record.quantisation or self.name}"

    def is_of(self, repository: str) -> bool:
        """Whether it was pulled from there, however that is spelled."""
        return self.record.repository.lower() == repository.lower()

    def is_called(self, wanted: str) -> bool:
        """Whether that is its quantisation or the name of its file."""
        names = (self.name, self.path.name, f"{self.name}.gguf")
        return wanted in names or wanted.upper() == self.record.quantisation

    @property
    def in_use(self) -> bool:
        """Whether somebody uses or changes it just now."""
        try:
            return is_used(lock_of(self.folder, self.name))
        except OSError:
            return False


def stored_models() -> list[StoredModel]:
    """All of them, the last used first."""
    found = []
    for path in models_dir().glob(f"*/*/*{_RECORD}"):
        model = _read(path)
        if model is not None:
            found.append(model)
    return sorted(found, key=lambda each: (-each.used_at, each.name))


def named(
    models: Sequence[StoredModel], repository: str, wanted: str, usual: str
) -> list[StoredModel]:
    """Those of a repository in the quantisation, or of the file name, that is wanted. When none is
    named: the usual ones, else all."""
    there = [each for each in models if each.is_of(repository)]
    exact = [each for each in there if wanted in (each.name, each.path.name)]
    called = exact or [each for each in there if each.is_called(wanted or usual)]
    return called if wanted else called or there


def find_stored(repository: str, wanted: str) -> StoredModel | None:
    """The whole model of a repository in that quantisation, or of that file name."""
    return next(iter(named(stored_models(), repository, wanted, wanted)), None)


def model_of(path: Path) -> StoredModel | None:
    """The model that a file belongs to; None for one that was not pulled."""
    path = path.resolve()
    if path.parent.parent.parent != models_dir().resolve():
        return None
    return _read(path.parent / f"{whole_name(path.name)}{_RECORD}")


@contextmanager
def using(path: Path) -> Iterator[None]:
    """Keep the model of this file while the block lasts, and note that it was used. Files that
    were not pulled are nobody's but the user's.

    Raises ModelError when it is being removed.
    """
    model = model_of(path)
    if model is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            lock = lock_of(model.folder, model.name)
            ours = stack.enter_context(hold(lock, patience_s=_PATIENCE_S, shared=True))
        except OSError:
            ours = True  # a cache that cannot be written: nobody can remove anything either
        if not ours or not path.is_file():
            raise ModelError(
                path, "is being removed from the cache", fix=f"turbo models pull {model.asked_as}"
            )
        with contextlib.suppress(OSError):
            os.utime(model.folder / f"{model.name}{_RECORD}")
        yield


@contextmanager
def changing(folder: Path, name: str, *, patience_s: float = _LOOK_S) -> Iterator[bool]:
    """Have a model for ourselves; False when somebody uses or changes it after `patience_s`."""
    with hold(lock_of(folder, name), patience_s=patience_s) as ours:
        yield ours


def remove(model: StoredModel) -> bool:
    """Remove a model, its record first; False, and nothing happens, while somebody uses it.

    Raises OSError.
    """
    with changing(model.folder, model.name) as ours:
        if ours:
            (model.folder / f"{model.name}{_RECORD}").unlink(missing_ok=True)
            for file in model.record.files:
                (model.folder / file.name).unlink(missing_ok=True)
            lock_of(model.folder, model.name).unlink(missing_ok=True)
    if ours:
        for folder in (model.folder, model.folder.parent):
            with contextlib.suppress(OSError):  # others lie there
                folder.rmdir()
    return ours


def broken_files(model: StoredModel) -> list[Path]:
    """Files of a model that are not what was published; every byte is read. Takes the time of
    reading them, so the model is used meanwhile.

    Raises ModelError when it is being removed.
    """
    with using(model.path):
        paths = [(model.folder / file.name, file.sha256) for file in model.record.files]
        return [path for path, published in paths if computed_digest(path) != published]


def write_record(folder: Path, name: str, record: Record) -> StoredModel:
    """Declare a model whole. Raises OSError."""
    path = folder / f"{name}{_RECORD}"
    unfinished = folder / f".{name}{_RECORD}"
    unfinished.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)
    return StoredModel(record=record, folder=folder, name=name, used_at=path.stat().st_mtime)


def folder_of(repository: str) -> Path:
    """Where the models of a repository lie; it may not exist yet."""
    owner, _, name = repository.partition("/")
    return models_dir() / owner / name


def lock_of(folder: Path, name: str) -> Path:
    """The file that is held by whoever has to do with a model."""
    return folder / f".{name}{_LOCK}"


def part_of(folder: Path, name: str, sha256: str) -> Path:
    """Where a file of a model is kept until it is whole."""
    return folder / f".{name}.{sha256[:_DIGITS]}{_PART}"


def unfinished_parts() -> Iterator[tuple[Path, str]]:
    """Files on their way, or given up, each with the name of its model."""
    for path in sorted(models_dir().glob(f"*/*/.*{_PART}")):
        yield path, path.name[1 : -len(_PART) - _DIGITS - 1]


def is_ours(folder: Path, name: str) -> bool:
    """Whether a model of that name was pulled into the folder, or was about to be."""
    return lock_of(folder, name).exists()


def read_record(folder: Path, name: str) -> Record | None:
    """The record of a model; None where there is none that can be read."""
    try:
        record = Record.model_validate_json((folder / f"{name}{_RECORD}").read_bytes())
    except (OSError, ValidationError):
        return None
    return record if record.files else None


def fault_of(record: Record | None, folder: Path, name: str) -> str:
    """Why the files of a model are not those of its record; empty when they are, by their size."""
    if record is None:
        path = folder / f"{name}{_RECORD}"
        return f"its record {path.name} {'cannot be read' if path.exists() else 'is missing'}"
    for file in record.files:
        try:
            size = (folder / file.name).stat().st_size
        except OSError:
            return f"{file.name} is missing"
        if size != file.size:
            return f"{file.name} has {size:,} bytes of {file.size:,}"
    return ""


def _read(path: Path) -> StoredModel | None:
    """The model of a record; None when the record or one of the files is not what it should be."""
    folder, name = path.parent, path.name.removesuffix(_RECORD)
    record = read_record(folder, name)
    if record is None or fault_of(record, folder, name):
        return None
    try:
        used_at = path.stat().st_mtime
    except OSError:
        return None
    return StoredModel(record=record, folder=folder, name=name, used_at=used_at)
