"""Saved prefixes on disk: what a slot's KV cache held after a prompt's first tokens.

The server writes and reads the files; this module names them, decides which of them may be
trusted, and bounds the space that they take. A file is named by everything that it depends on:
the KV layout of the server (model, build, flags; see `kv_layout`) and the token ids. It is trusted
once a note beside it, written last, has its size and digest. A crash or a full disk therefore
leaves files that nobody trusts, and they are removed later. Nothing here is an error to the user:
a prefix that is not there is computed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from agent.core.json_value import read_json, whole

_STATE, _NOTE, _UNFINISHED = ".kv", ".json", "new-"
_ABANDONED_AFTER_S = 3600.0
"""A file without its note may still be under way in another process, but not for that long."""
_FEW_PASSING = 8
"""Prefixes of the moment that are kept at the same time; candidates of one step share one."""


@dataclass(frozen=True)
class SavedPrefix:
    """One trusted entry, as `turbo prefixes list` shows it."""

    name: str
    tokens: int
    size: int
    """Bytes on disk."""
    model: str
    """File name of the model, for people."""
    used_at: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class _Note:
    """What lies beside a saved state, and vouches for it."""

    tokens: int
    size: int
    digest: str
    model: str

    @classmethod
    def read(cls, path: Path) -> _Note | None:
        try:
            data = read_json(path.read_bytes())
            return cls(
                tokens=whole(data["tokens"]),
                size=whole(data["size"]),
                digest=str(data["digest"]),
                model=str(data["model"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


class PrefixBank:
    """The prefixes of one folder that fit one KV layout."""

    def __init__(self, folder: Path, *, layout: str, model: str, max_bytes: int) -> None:
        self.folder = folder
        self.layout = layout
        self._model = model
        self._max_bytes = max_bytes
        self._numbers = count()
        self._checked: set[str] = set()
        self._passing: dict[str, None] = {}

    def name_of(self, ids: Sequence[int]) -> str:
        """The entry of a prefix of these token ids under this layout."""
        digest = hashlib.blake2b(self.layout.encode(), digest_size=16)
        digest.update(array("q", ids).tobytes())
        return digest.hexdigest()

    def file_of(self, name: str) -> str:
        """The file name under which a server restores the entry."""
        return f"{name}{_STATE}"

    def has(self, name: str) -> bool:
        """Whether the entry is there and whole. Reads the whole file the first time."""
        note = _Note.read(self.folder / f"{name}{_NOTE}")
        if note is None:
            return False
        state = self.folder / self.file_of(name)
        try:
            if state.stat().st_size != note.size:
                raise ValueError("another size than noted")
            if name not in self._checked and _digest(state) != note.digest:
                raise ValueError("another content than noted")
        except (OSError, ValueError):
            self.discard(name)
            return False
        self._checked.add(name)
        with contextlib.suppress(OSError):
            os.utime(self.folder / f"{name}{_NOTE}")  # the last use, for `prune`
        return True

    def new_file(self) -> str:
        """A file name into which a server may save; not trusted until `keep`."""
        return f"{_UNFINISHED}{os.getpid()}-{next(self._numbers)}{_STATE}"

    def keep(self, name: str, file: str, *, tokens: int, size: int, passing: bool) -> bool:
        """Trust what a server saved in `file` as the entry `name`; False when that failed.

        `size` is the number of bytes that the server says it wrote. A `passing` entry is removed
        with the bank, a lasting one serves the next server too.
        """
        saved = self.folder / file
        try:
            if saved.stat().st_size != size:
                raise OSError("not all of it is there")
            note = _Note(tokens, size, _digest(saved), self._model)
            unfinished = self.folder / f"{file}{_NOTE}"
            unfinished.write_text(json.dumps(asdict(note)), encoding="utf-8")
            saved.replace(self.folder / self.file_of(name))
            unfinished.replace(self.folder / f"{name}{_NOTE}")
        except OSError:
            self.drop_file(file)
            return False
        self._checked.add(name)
        if passing:
            self._passing[name] = None
            for old in list(self._passing)[:-_FEW_PASSING]:
                self.discard(old)
        else:
            prune(self.folder, self._max_bytes, keep=name)
        return True

    def discard(self, name: str) -> None:
        """Remove an entry; its note first, so that nobody trusts what is left."""
        self._checked.discard(name)
        self._passing.pop(name, None)
        _remove(self.folder, name)

    def drop_file(self, file: str) -> None:
        """Remove what `new_file` named, unless it was kept."""
        for path in (self.folder / file, self.folder / f"{file}{_NOTE}"):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the passing entries."""
        for name in list(self._passing):
            self.discard(name)


def saved_prefixes(folder: Path) -> list[SavedPrefix]:
    """All entries of a folder whatever their layout, the last used first."""
    found = []
    for path in _notes(folder):
        note = _Note.read(path)
        with contextlib.suppress(OSError):
            used_at = path.stat().st_mtime
            size = (folder / f"{path.stem}{_STATE}").stat().st_size
            if note is not None:
                entry = SavedPrefix(path.stem, note.tokens, size, note.model, used_at)
                found.append(entry)
    return sorted(found, key=lambda entry: entry.used_at, reverse=True)


def prune(folder: Path, max_bytes: int, *, keep: str = "") -> list[SavedPrefix]:
    """Remove the entries that were used least recently until the rest has at most `max_bytes`,
    and what crashes left behind; the removed entries. `keep` stays whatever its size."""
    total, removed = 0, []
    for entry in saved_prefixes(folder):
        total += entry.size
        if total > max_bytes and entry.name != keep:
            total -= entry.size
            _remove(folder, entry.name)
            removed.append(entry)
    known = {path.stem for path in _notes(folder)}
    long_ago = time.time() - _ABANDONED_AFTER_S
    for path in _files(folder):
        whole = path.name.removesuffix(_NOTE).removesuffix(_STATE) in known
        with contextlib.suppress(OSError):
            if not whole and path.stat().st_mtime < long_ago:
                path.unlink()
    return removed


def _files(folder: Path) -> Iterator[Path]:
    yield from (path for path in folder.glob("*") if path.suffix in (_STATE, _NOTE))


def _notes(folder: Path) -> Iterator[Path]:
    for path in folder.glob(f"*{_NOTE}"):
        if path.is_file() and not path.name.startswith(_UNFINISHED):  # reading a FIFO never ends
            yield path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _remove(folder: Path, name: str) -> None:
    for ending in (_NOTE, _STATE):
        with contextlib.suppress(OSError):
            (folder / f"{name}{ending}").unlink(missing_ok=True)
