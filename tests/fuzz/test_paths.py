"""Paths that a model or a task names: what is not refused is a file of the repository."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

from hypothesis import note

from agent.core.errors import EditError
from agent.core.repository_path import tidy_path, why_refused
from agent.team.edits import check_edit_path, read_file, write_file
from fuzz.source import Source

PARTS = (
    *(
        "a.py",
        "pkg",
        "new",
        "to_outside",
        "to_git",
        "to_config",
        "loop",
        "dangling",
        "to_pkg",
        "up",
    ),
    *(
        ".git",
        ".GIT",
        "git~1",
        ".git.",
        ".git ",
        ".git::$INDEX_ALLOCATION",
        "hooks",
        "config",
        "..",
        ".",
    ),
    *(
        "",
        " ",
        "~",
        "~root",
        "C:",
        "c:x",
        "nul",
        "a\\b",
        "pipe",
        "x" * 300,
        ".g\u200cit",
        "\uff0e\uff0e",
    ),
    *(".gitattributes", "-rf", "a:b", "\u0131", "...", "/", "etc", "passwd", "socket", "to_file"),
)
PIECES = (*PARTS, "/", "/", "//", "/../", "/./", "./", "\\", ":", "\0", ".")


@functools.cache
def _tree(folder: Path) -> tuple[Path, Path]:
    """A repository with links of all kinds, and a folder outside that nobody may change."""
    outside, root = folder / "outside", folder / "root"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    for name in (".git/hooks", "pkg/inner"):
        (root / name).mkdir(parents=True)
    for name in ("a.py", "pkg/a.py", ".git/config", "pkg/inner/a.py"):
        (root / name).write_text("x\n")
    links = {
        "to_outside": outside,
        "to_git": ".git",
        "to_config": ".git/config",
        "loop": "loop",
        "dangling": "nowhere",
        "to_pkg": "pkg",
        "up": "..",
        "to_file": "pkg/a.py",
        "pkg/to_git": "../.git",
        "pkg/up": "../..",
        "pkg/to_outside": "../to_outside",
        "pkg/loop": "../pkg/loop2",
        "pkg/loop2": "loop",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe")
    return root, outside


def check(source: Source, folder: Path) -> None:
    """A path is judged by the place where it ends."""
    root, outside = _tree(folder)
    path = "/".join(source.several(lambda: source.pick(PARTS), 5))
    path = source.mutated(path, PIECES)
    note(path[:2000])
    reason = why_refused(path, root)
    assert reason is None or reason
    if reason is None:
        _assert_inside(path, root)
        assert why_refused(tidy_path(path), root) is None
        assert (root / tidy_path(path)).resolve() == (root / path).resolve()
    try:
        place = check_edit_path(path, root)
    except EditError as error:
        assert path in error.message or repr(path) in error.message
        return
    assert reason is None
    assert place.resolve() == root.resolve() / path
    assert not any(
        (root / part).is_symlink() for part in (Path(path), *Path(path).parents) if part.parts
    )
    if len(path) < 100:
        _assert_written_there(path, place, root, outside)


def _assert_inside(path: str, root: Path) -> None:
    place = Path(os.path.realpath(root / path))
    inner = place.relative_to(os.path.realpath(root))
    assert inner.parts
    assert not any(re.fullmatch(r"git~\d+", part.lower()) for part in inner.parts)
    assert ".git" not in [part.lower() for part in inner.parts]
    assert not place.is_dir()
    assert not place.exists() or place.is_file()


def _assert_written_there(path: str, place: Path, root: Path, outside: Path) -> None:
    before = read_file(path, root)
    try:
        write_file(path, root, "written\n")
    except EditError:
        assert before is None
        return
    assert read_file(path, root) == place.read_text() == "written\n"
    if before is not None:
        place.write_text(before)
    else:
        place.unlink()
        for above in place.relative_to(root).parents:
            if above.parts and not any((root / above).iterdir()):
                (root / above).rmdir()
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert {path.name for path in (root / ".git").iterdir()} == {"hooks", "config"}
    assert (root / ".git/config").read_text() == "x\n"


def test_a_path_that_is_not_refused_is_a_file_of_the_repository(explored) -> None:
    assert explored(check) >= 300
