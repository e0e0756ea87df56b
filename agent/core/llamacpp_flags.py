"""What a llama-server binary says of itself, and the cache of it.

Flags differ between versions of llama.cpp, so the launch plan uses only those that ``--help``
names. Asking costs two processes; the answer is kept until the binary or a library of llama.cpp
beside it changes. That of a script is not kept: what it starts may change behind it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from agent.core.answer_cache import remember, remembered

_FLAG = r"-{1,2}[A-Za-z][\w.-]*"
_HEAD = re.compile(rf"{_FLAG}(?:,\s+{_FLAG})*")
_VERSION = re.compile(r"^version:\s*([^\s(]+)", re.MULTILINE)
_TRACE = re.compile(r"^\s+- 4: trace\b", re.MULTILINE)
_COMMIT = re.compile(r"^version:.*?(?:commit\s+|\()([0-9a-f]{7,40})\)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The answers to ``--version`` and ``--help``."""

    version: str
    """As the binary prints it; empty when it prints none."""
    commit: str
    """Commit of llama.cpp, abbreviated; empty when unknown."""
    flags: frozenset[str]
    """Every spelling of every flag, except those that are refused as removed."""
    traces: bool = False
    """Its verbosity has a level between info and debug, which tells the buffers of each device;
    other builds tell them with their info."""


def parse_probe(version: str, usage: str) -> Probe:
    """Read the outputs of ``--version`` and ``--help``."""
    number = _VERSION.search(version)
    commit = _COMMIT.search(version)
    return Probe(
        version=number.group(1) if number else "",
        commit=commit.group(1) if commit else "",
        flags=_flags(usage),
        traces=bool(_TRACE.search(usage)),
    )


def stamp(binary: Path, *parts: Path) -> str:
    """Changes when the binary does, one of the other `parts` that it needs, or a library of
    llama.cpp beside it: the executable of newer builds is a stub of a few kilobytes that stays the
    same when the libraries are replaced.

    Raises OSError when one of them cannot be looked at.
    """
    real = binary.resolve()
    own = {real, *parts, *real.parent.glob("libllama*"), *real.parent.glob("libggml*")}
    marks = []
    for path in sorted(own):
        about = path.stat()
        marks.append(f"{path}|{about.st_size}|{about.st_mtime_ns}")
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()


def load_probe(binary: Path, mark: str, cache: Path) -> Probe | None:
    """The kept answers for the binary of this stamp; None when there are none or they are
    unreadable."""
    try:
        data = remembered(cache, str(binary)) or {}
        if data["stamp"] != mark:
            return None
        flags = data["flags"]
        if not isinstance(flags, list) or not all(isinstance(x, str) for x in flags):
            return None
        return Probe(
            version=str(data["version"]),
            commit=str(data["commit"]),
            flags=frozenset(flags),
            traces=bool(data["traces"]),
        )
    except KeyError:
        return None


def save_probe(binary: Path, mark: str, probe: Probe, cache: Path) -> None:
    """Keep the answers, unless the binary is a script."""
    if _is_script(binary):
        return
    data = {
        "stamp": mark,
        "version": probe.version,
        "commit": probe.commit,
        "flags": sorted(probe.flags),
        "traces": probe.traces,
    }
    remember(cache, str(binary), data)


def _is_script(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


def _flags(usage: str) -> frozenset[str]:
    found: set[str] = set()
    current: set[str] = set()
    for line in usage.splitlines():
        head = _HEAD.match(line)
        if head:
            current = set(re.findall(_FLAG, head.group()))
            found |= current
        if "argument has been removed" in line:
            found -= current
    return frozenset(found)
