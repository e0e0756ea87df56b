"""Unpack a zip or tar archive into a folder, and nothing of it outside.

Not ``tarfile``'s own filter: it came with Python 3.11.4 only, and ``zipfile`` has none. Files get
mode 755 or 644. A link may name a file beside it, as libraries do with their versions; every other
one is refused, and links are made last, so that nothing can be written through them.
"""

from __future__ import annotations

import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from agent.core.errors import DownloadError

_MOST = 8 << 30
"""Bytes that an archive may unpack to; the largest release, CUDA with its libraries, has 2 GiB."""
_CHUNK = 1 << 20
_LONGEST_LINK = 4096
"""Bytes of what a link names; it stands in the archive like a file's content."""


@dataclass(frozen=True, kw_only=True)
class _Member:
    name: str
    executable: bool = False
    link: str | None = None
    """The file that a link names; None for a file."""
    content: IO[bytes] | None = None


def unpack(archive: Path, folder: Path, *, name: str) -> None:
    """Unpack `archive`, which errors call `name`, into the new `folder`.

    Raises DownloadError when it is no archive, is damaged or holds what it should not.
    """
    links: list[tuple[Path, str]] = []
    room = _MOST
    try:
        folder.mkdir()
        with _members(archive) as members:
            for member in members:
                path = folder / _inside(member.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                if member.link is not None:
                    links.append((path, _beside(member)))
                elif member.content is not None:
                    room = _write(member.content, path, room)
                    path.chmod(0o755 if member.executable else 0o644)
        for path, target in links:
            path.symlink_to(target)
    except _Refused as refused:
        raise DownloadError(
            f"{name} is refused: it holds {refused}.", fix="Nothing of it was kept."
        ) from None
    except (
        *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError),
        *(EOFError, NotImplementedError, RuntimeError),  # encrypted or strangely packed zips
        UnicodeDecodeError,  # names in a zip that are not in the form that it says
        MemoryError,  # of what a header asks for
    ) as error:
        reason = str(error) or type(error).__name__
        raise DownloadError(
            f"{name} cannot be unpacked: {reason}", fix="Try another one."
        ) from None
    except OSError as error:
        raise DownloadError(
            f"{name} cannot be unpacked into {folder}: {error.strerror or error}",
            fix="Make room on that disk, or make the folder writable.",
        ) from None


class _Refused(Exception):
    """What must not be in an archive."""


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[_Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            yield _of_zip(packed)
    else:
        # releases come as .tar.gz; the header of an xz file may ask for any amount of memory
        with tarfile.open(archive, "r:gz") as packed_tar:
            yield _of_tar(packed_tar)


def _of_zip(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        mode = info.external_attr >> 16
        if info.filename.endswith("/"):  # `is_dir` fails for an empty name before Python 3.12
            continue
        if stat.S_ISLNK(mode):
            with archive.open(info) as content:
                target = content.read(_LONGEST_LINK).decode(errors="replace")
            yield _Member(name=info.filename, link=target)
            continue
        with archive.open(info) as content:
            yield _Member(name=info.filename, executable=bool(mode & 0o100), content=content)


def _of_tar(archive: tarfile.TarFile) -> Iterator[_Member]:
    for info in archive:
        if info.isdir():
            continue
        if info.issym():
            yield _Member(name=info.name, link=info.linkname)
            continue
        if not (info.isreg() or info.islnk()):  # of a hard link the content is taken
            raise _Refused(f"{info.name!r}, which is neither file, folder nor link")
        try:
            content = archive.extractfile(info)
        except KeyError:
            raise _Refused(f"the link {info.name!r} to a file that is not in it") from None
        yield _Member(name=info.name, executable=bool(info.mode & 0o100), content=content)


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise _Refused(f"the path {name!r}")
    return path


def _beside(member: _Member) -> str:
    target = PurePosixPath(member.link or "")
    if len(target.parts) != 1 or target.parts[0] in ("/", "..") or "\0" in target.parts[0]:
        raise _Refused(f"the link {member.name!r} to {member.link!r}")
    return target.parts[0]


def _write(content: IO[bytes], path: Path, room: int) -> int:
    """Write one file; what is left of `room`, in bytes."""
    with path.open("xb") as file:
        while part := content.read(_CHUNK):
            room -= len(part)
            if room < 0:
                raise _Refused(f"more than {_MOST >> 30} GiB")
            file.write(part)
    return room
