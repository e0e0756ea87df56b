"""SHA-256 of model files, computed once per file: hashing gigabytes takes seconds."""

from __future__ import annotations

import hashlib
from pathlib import Path

from agent.core.answer_cache import remember, remembered


def model_digest(path: Path, cache: Path) -> str:
    """The digest of the file as hexadecimal text; a remembered one while the file is the same.

    Raises OSError when the file cannot be read.
    """
    about = path.stat()
    identity = f"{path.resolve()}|{about.st_size}|{about.st_mtime_ns}|{about.st_ino}"
    known = remembered(cache, identity)
    if known is not None and isinstance(known.get("sha256"), str):
        return str(known["sha256"])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    remember(cache, identity, {"sha256": digest})
    return digest
