"""What lies in the model cache and is no whole model: files of pulls that are not finished, and
models that were whole once. Nobody runs on them, but they take room and can be removed."""

from __future__ import annotations

import contextlib
from pathlib import Path

from agent.core.config import models_dir
from agent.core.gguf_names import GgufName, whole_name
from agent.core.model_store import (
    Record,
    StoredFile,
    StoredModel,
    fault_of,
    is_ours,
    read_record,
    unfinished_parts,
)


def remains() -> list[StoredModel]:
    """All of them, each with its `fault`; the sizes are those of what is there."""
    parts: dict[tuple[Path, str], list[Path]] = {}
    for path, name in unfinished_parts():
        parts.setdefault((path.parent, name), []).append(path)
    found = []
    for folder, name in sorted({*parts, *_named()}):
        model = _remains_of(folder, name, parts.get((folder, name), []))
        if model is not None:
            found.append(model)
    return found


def _named() -> set[tuple[Path, str]]:
    """Folder and name of all that a record or a model file has."""
    found = set()
    for path in models_dir().glob("*/*/[!.]*"):
        if path.suffix in (".json", ".gguf"):
            found.add((path.parent, whole_name(path.name.removesuffix(".json"))))
    return found


def _remains_of(folder: Path, name: str, parts: list[Path]) -> StoredModel | None:
    record = read_record(folder, name)
    fault = fault_of(record, folder, name)
    if not fault and not parts:
        return None
    # What has no record may be the user's own file; what was pulled was locked for that.
    ours = record is not None or is_ours(folder, name)
    placed = sorted(x for x in folder.glob("*.gguf") if whole_name(x.name) == name) if ours else []
    if record is not None:
        placed = [folder / file.name for file in record.files]
    if not fault:
        placed = []  # a whole model, of which another edition was being pulled
    unfinished = bool(parts) and (record is None or not fault)
    if not parts and not ours:
        return None
    sizes = {path: _size(path) for path in (*placed, *parts)}
    model = StoredModel(
        record=Record(
            repository=f"{folder.parent.name}/{folder.name}",
            commit=record.commit if record else "",
            quantisation=GgufName.of(name).quantisation,
            licence=record.licence if record else "",
            files=tuple(StoredFile(name=x.name, size=y, sha256="") for x, y in sizes.items()),
        ),
        folder=folder,
        name=name,
        used_at=max((_time(path) for path in (folder, *sizes) if path.exists()), default=0.0),
        fault=fault or "its pull is not finished",
        unfinished=unfinished,
    )
    # A pull places the files a moment before it writes the record.
    return None if model.in_use and not parts and record is None else model


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _time(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0
