"""Archives from the internet: unpacked into their folder, or refused."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

from hypothesis import note

from agent.core.errors import DownloadError
from agent.core.unpack import unpack
from fuzz.source import Source

NAMES = (
    *(
        "a",
        "b/c",
        "bin/llama-server",
        "lib.so",
        "lib.so.1",
        "../x",
        "/x",
        "a/../../x",
        "..",
        ".",
        "",
    ),
    *("./a", "a/", "b//c", "\\x", "C:\\x", "a\0b", "x" * 300, "\u00fc", "link", "link/x", "\udcff"),
)
TYPES = (
    *(tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE),
    *(tarfile.CHRTYPE, tarfile.REGTYPE, tarfile.GNUTYPE_SPARSE, tarfile.CONTTYPE, b"Z"),
)
PIECES = (b"\0" * 512, b"PK\x05\x06", b"PK\x01\x02", b"\xff" * 8, b"ustar", b"\x1f\x8b", b"9" * 11)


def check(source: Source, folder: Path) -> None:
    """Members of all kinds with names of all kinds, in archives that may be damaged."""
    members = source.several(lambda: source.pick(NAMES), 4)
    data = _tar(source, members) if source.one_in(2) else _zip(source, members)
    if source.one_in(3):
        data = source.mutated_bytes(data, PIECES)
    note((members, data))
    archive, target = folder / "archive", folder / "out"
    archive.write_bytes(data)
    try:
        unpack(archive, target, name="a")
    except DownloadError as error:
        assert error.fix
    finally:
        there = {path.name for path in folder.iterdir()}
        _assert_tame(target)
        shutil.rmtree(target, ignore_errors=True)
    assert there <= {"archive", "out"}
    assert archive.read_bytes() == data


def _tar(source: Source, names: list[str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=source.pick((1, 2, 0))) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.type = source.pick(TYPES)
            info.linkname = source.pick(NAMES)
            info.mode = source.pick((0o644, 0o4755, 0, 0o777))
            content = b"x" * source.below(20)
            info.size = len(content) if source.one_in(2) else 0
            try:
                archive.addfile(info, io.BytesIO(content))
            except (ValueError, UnicodeError):
                continue  # such a name cannot be written in this format
    return out.getvalue()


def _zip(source: Source, names: list[str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in dict.fromkeys(name.partition("\0")[0] or "x" for name in names):
            info = zipfile.ZipInfo(name)
            mode = source.pick((0o100644, 0o120777, 0o100755, 0o010644, 0o040755, 0))
            info.external_attr = mode << 16
            info.compress_type = source.pick((0, 8))
            try:
                archive.writestr(info, source.pick(NAMES).encode(errors="surrogateescape"))
            except UnicodeError:
                continue
    return out.getvalue()


def _assert_tame(folder: Path) -> None:
    """Links lead to files beside them, and nothing is privileged or a device."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink():
                assert path.readlink().parts[0] not in ("/", "..")
                assert len(path.readlink().parts) == 1
            else:
                assert path.is_file() or path.is_dir()
                assert not path.is_file() or path.stat().st_mode & 0o7777 in (0o755, 0o644)


def test_an_archive_stays_in_its_folder(explored) -> None:
    assert explored(check) >= 300
