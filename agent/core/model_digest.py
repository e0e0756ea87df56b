"""SHA-256 of model files, computed once per file: hashing gigabytes takes seconds."""

from __future__ import annotations

import hashlib
from pathlib import Path

from agent.core.answer_cache import remember, remembered


def model_digest(path: Path, cache: Path) -> str:
    """The digest of the file as hexadecimal text; a remembered one while the file is the same.

    Raises OSError when the file cannot be read.
    """
    known = remembered(cache, _identity(path))
    if known is not None and isinstance(known.get("sha256"), str):
        return str(known["sha256"])
    digest = computed_digest(path)
    know_digest(path, cache, digest)
    return digest


def computed_digest(path: Path) -> str:
    """The digest of what is in the file now. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def know_digest(path: Path, cache: Path, sha256: str) -> None:
    """Keep a digest that was found out otherwise. Raises OSError when there is no such file."""
    remember(cache, _identity(path), {"sha256": sha256})


def _identity(path: Path) -> str:
    about = path.stat()
    return f"{path.resolve()}|{about.st_size}|{about.st_mtime_ns}|{about.st_ino}"
