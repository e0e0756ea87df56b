"""Archives are unpacked whole, or refused."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import unpack as unpacking
from agent.core.errors import DownloadError
from agent.core.unpack import unpack


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "", mode: int = 0o644):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def zipped(path: Path, *members: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


def test_files_of_a_tar_keep_their_bits_and_links(tmp_path: Path) -> None:
    archive = tar(
        tmp_path / "a",
        (entry("top", tarfile.DIRTYPE, mode=0o700), b""),
        (entry("top/libx.so", tarfile.SYMTYPE, link="libx.so.0"), b""),
        (entry("top/libx.so.0"), b"library"),
        (entry("top/tool", mode=0o4775), b"program"),
        (entry("top/same", tarfile.LNKTYPE, link="top/libx.so.0"), b""),
    )
    unpack(archive, tmp_path / "out", name="a.tar.gz")
    top = tmp_path / "out" / "top"
    assert (top / "libx.so").readlink() == Path("libx.so.0")
    assert (top / "libx.so").read_bytes() == (top / "same").read_bytes() == b"library"
    assert (top / "tool").stat().st_mode & 0o7777 == 0o755
    assert not os.access(top / "libx.so.0", os.X_OK)


def test_files_of_a_zip_keep_their_bits(tmp_path: Path) -> None:
    archive = zipped(
        tmp_path / "a",
        ("build/bin/tool", b"program", 0o100755),
        ("build/bin/lib", b"library", 0o100644),
        ("build/bin/link", b"lib", 0o120777),
        ("build/empty/", b"", 0o040755),
    )
    unpack(archive, tmp_path / "out", name="a.zip")
    folder = tmp_path / "out" / "build" / "bin"
    assert os.access(folder / "tool", os.X_OK)
    assert not os.access(folder / "lib", os.X_OK)
    assert (folder / "link").readlink() == Path("lib")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: tar(path, (entry("../evil"), b"x")),
        lambda path: tar(path, (entry("/evil"), b"x")),
        lambda path: tar(path, (entry("a/../../evil"), b"x")),
        lambda path: tar(path, (entry("link", tarfile.SYMTYPE, link="../evil"), b"")),
        lambda path: tar(path, (entry("link", tarfile.SYMTYPE, link="/etc/passwd"), b"")),
        lambda path: tar(path, (entry("link", tarfile.SYMTYPE, link=".."), b"")),
        lambda path: tar(path, (entry("link", tarfile.SYMTYPE, link="."), b"")),
        lambda path: tar(path, (entry("link", tarfile.LNKTYPE, link="/etc/passwd"), b"")),
        lambda path: tar(path, (entry("pipe", tarfile.FIFOTYPE), b"")),
        lambda path: tar(path, (entry("disk", tarfile.BLKTYPE), b"")),
        lambda path: zipped(path, ("../evil", b"x", 0o100644)),
        lambda path: zipped(path, ("/evil", b"x", 0o100644)),
        lambda path: zipped(path, ("link", b"/etc", 0o120777)),
        lambda path: zipped(path, ("link", b"", 0o120777)),
    ],
)
def test_what_leads_outside_is_refused(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises(DownloadError, match="refused: it holds"):
        unpack(make(inner / "a"), inner / "out", name="bad.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    archive = tar(
        tmp_path / "a",
        (entry("b", tarfile.SYMTYPE, link="c"), b""),
        (entry("b/evil"), b"x"),
    )
    with pytest.raises(DownloadError):
        unpack(archive, tmp_path / "out", name="a")


@given(names=st.lists(st.text(alphabet="ab./\\ \0-", min_size=1, max_size=12), max_size=4))
def test_whatever_names_an_archive_holds_it_stays_in_its_folder(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("names")
    archive = tar(folder / "a", *((entry(name), b"x") for name in names))
    with contextlib.suppress(DownloadError):
        unpack(archive, folder / "out", name="a")
    assert {path.name for path in folder.iterdir()} == {"a", "out"}


@pytest.mark.parametrize("keep", [0, 1, 40, 200])
def test_a_cut_archive_is_damaged(tmp_path: Path, keep: int) -> None:
    content = os.urandom(5000)
    for whole in (
        tar(tmp_path / "a", (entry("x"), content)),
        zipped(tmp_path / "b", ("x", content, 0o644)),
    ):
        whole.write_bytes(whole.read_bytes()[:keep])
        with pytest.raises(DownloadError, match="cannot be unpacked"):
            unpack(whole, tmp_path / f"{whole.name}-out", name="x.zip")


def test_an_archive_that_grows_without_end_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(unpacking, "_MOST", 1 << 30)
    monkeypatch.setattr(unpacking, "_CHUNK", 1 << 16)
    bomb = zipped(tmp_path / "a", *((str(n), bytes(1 << 20), 0o644) for n in range(3)))
    unpack(bomb, tmp_path / "fits", name="a")
    monkeypatch.setattr(unpacking, "_MOST", 2 << 20)
    with pytest.raises(DownloadError, match="more than"):
        unpack(bomb, tmp_path / "out", name="a")


def test_a_link_to_an_impossible_name_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a", ("libx.so", b"lib\0x", 0o120777))
    with pytest.raises(DownloadError, match="the link"):
        unpack(archive, tmp_path / "out", name="a")


def test_a_file_without_a_name_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a", ("x", b"content", 0o644))
    data = archive.read_bytes()
    at = data.index(b"PK\x01\x02")
    # one byte shorter: the name of the entry in the directory at the end, which is what counts
    entry_without = data[at : at + 28] + b"\0\0" + data[at + 30 : at + 46]
    end = bytearray(data[at + 47 :])
    end[12:16] = len(entry_without).to_bytes(4, "little")
    archive.write_bytes(data[:at] + entry_without + bytes(end))
    with pytest.raises(DownloadError, match=r"refused|unpacked"):
        unpack(archive, tmp_path / "out", name="a")


def test_a_zip_whose_names_are_not_what_it_says_is_damaged(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("\u00fc", b"x")
    archive.write_bytes(archive.read_bytes().replace(b"\xc3\xbc", b"\xbc\xbc"))
    with pytest.raises(DownloadError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "out", name="a.zip")
