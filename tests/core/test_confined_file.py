"""Files that are read and written while others change what lies around them."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from pathlib import Path

import pytest

from agent.core.confined_file import read_confined, write_confined


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "kit").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.py").write_text("secret")
    return folder


def test_a_file_is_written_with_its_folders_and_keeps_its_permissions(root: Path) -> None:
    script = root / "kit" / "run.sh"
    script.write_text("old")
    script.chmod(0o755)
    write_confined("kit/run.sh", root, b"new")
    write_confined("new/deep/a.py", root, b"a")
    assert script.read_text() == "new"
    assert script.stat().st_mode & 0o111 == 0o111
    assert read_confined("new/deep/a.py", root, 10) == b"a"
    assert (root / "new/deep/a.py").stat().st_mode & 0o111 == 0


def test_a_link_on_the_way_leads_nowhere(root: Path) -> None:
    (root / "kit").rmdir()
    (root / "kit").symlink_to(root.parent / "outside")
    with pytest.raises(OSError, match=r"kit"):
        write_confined("kit/a.py", root, b"b")
    with pytest.raises(OSError, match=r"kit"):
        read_confined("kit/a.py", root, 10)
    assert (root.parent / "outside" / "a.py").read_text() == "secret"


def test_a_link_in_the_place_of_the_file_is_not_read_and_is_replaced(root: Path) -> None:
    place = root / "kit" / "a.py"
    place.symlink_to(root.parent / "outside" / "a.py")
    with pytest.raises(OSError, match=r"a\.py"):
        read_confined("kit/a.py", root, 10)
    write_confined("kit/a.py", root, b"mine")
    assert not place.is_symlink()
    assert place.read_text() == "mine"
    assert (root.parent / "outside" / "a.py").read_text() == "secret"


def test_another_name_of_the_same_file_keeps_its_content(root: Path) -> None:
    os.link(root.parent / "outside" / "a.py", root / "kit" / "a.py")
    write_confined("kit/a.py", root, b"mine")
    assert (root.parent / "outside" / "a.py").read_text() == "secret"


def test_a_pipe_is_no_file_and_waits_for_nobody(root: Path) -> None:
    os.mkfifo(root / "kit" / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        read_confined("kit/pipe", root, 10)
    write_confined("kit/pipe", root, b"text")
    assert (root / "kit" / "pipe").is_file()


def test_a_folder_is_neither_read_nor_replaced(root: Path) -> None:
    with pytest.raises(OSError, match="no regular file"):
        read_confined("kit", root, 10)
    with pytest.raises(OSError, match="kit"):
        write_confined("kit", root, b"")
    assert (root / "kit").is_dir()


def test_nothing_gets_out_while_another_process_swaps_the_folder(root: Path) -> None:
    """What a test run may do: a folder becomes a link between the check and the write."""
    outside, place = root.parent / "outside", root / "kit"
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            shutil.rmtree(root / "kit", ignore_errors=True)
            for change in (lambda: place.symlink_to(outside), place.unlink, place.mkdir):
                with contextlib.suppress(OSError):  # the writer makes the folder, too
                    change()

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(3000):
            try:
                write_confined("kit/new.py", root, b"x")
            except OSError:
                continue
    finally:
        over.set()
        swapping.join()
    assert sorted(path.name for path in outside.iterdir()) == ["a.py"]
