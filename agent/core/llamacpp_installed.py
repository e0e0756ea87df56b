"""The releases of llama.cpp that `turbo server install` has put on this machine.

One folder each below the data folder, named by tag and variant. It holds what the release brings,
and the file of `_RECORD`, which is written before the folder gets its name: a folder without it is
none of ours.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.core.config import data_dir

_RECORD = "turbo-release.json"


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A release on this machine."""

    folder: Path
    tag: str
    variant: str
    program: Path
    """Its llama-server."""

    @property
    def name(self) -> str:
        """Tag and variant, as ``b9828-cpu``."""
        return self.folder.name


@dataclass(frozen=True, kw_only=True)
class Record:
    """What an installation writes down about itself."""

    tag: str
    variant: str
    program: str
    """The llama-server, seen from the folder."""
    archives: dict[str, str]
    """Names of the archives that it came in, with their SHA-256 digests."""

    def write(self, folder: Path) -> None:
        """Put it into the folder. Raises OSError."""
        text = json.dumps(asdict(self), indent=1)
        (folder / _RECORD).write_text(text + "\n", encoding="utf-8")


def releases_folder() -> Path:
    """Where installed releases lie; it need not exist."""
    return data_dir() / "servers"


def installed_releases() -> list[Installed]:
    """All of them, the last installed first."""
    found: list[tuple[float, Installed]] = []
    for record in releases_folder().glob(f"[!.]*/{_RECORD}"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            data = json.loads(record.read_bytes())
            program = record.parent / str(data["program"])
            each = Installed(
                folder=record.parent,
                tag=str(data["tag"]),
                variant=str(data["variant"]),
                program=program,
            )
            if program.is_file():
                found.append((record.stat().st_mtime, each))
    return [each for _, each in sorted(found, key=lambda x: x[0], reverse=True)]


def make_first(release: Installed) -> None:
    """Let it count as the last installed."""
    with contextlib.suppress(OSError):
        (release.folder / _RECORD).touch()
