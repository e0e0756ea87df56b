"""Which names a file of the repository may have."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.core.repository_path import why_not_beside, why_refused


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("CON", "device of Windows"),
        ("kit/nul.txt", "device of Windows"),
        ("aux/a.py", "device of Windows"),
        ("kit/Com1.tar.gz", "device of Windows"),
        ("kit/lpt\u00b9.txt", "device of Windows"),
        ("kit/prn .txt", "device of Windows"),
        ("kit/a.py.", "ends in a blank or a dot"),
        ("kit./a.py", "ends in a blank or a dot"),
        ("kit /a.py", "ends in a blank or a dot"),
        *((f"kit/a{character}b.py", "no name on Windows") for character in '<>:"|?*'),
        ("kit/GITHUB~1", "name that Windows gives"),
        ("kit/\u00e9\u00e9/" + "\u00e9" * 150, "longer than 255 bytes"),
        ("kit/" * 60 + "a.py", "longer than 200 characters"),
        (".gitmodules", "where submodules come from"),
        ("kit/.GitModules", "where submodules come from"),
        (".git/hooks/pre-commit", "inside .git"),
        ("kit/.GIT/config", "inside .git"),
        ("git~1/config", "inside .git"),
    ],
)
def test_a_name_that_some_system_takes_for_another_one_is_refused(
    path: str, reason: str, tmp_path: Path
) -> None:
    assert reason in (why_refused(path, tmp_path) or "")


@pytest.mark.parametrize(
    "path",
    [
        "kit/console.py",
        "kit/auxiliary.py",
        "kit/com10.py",
        "kit/null",
        ".gitignore",
        "app/[id]/page.tsx",
        "kit/with blank.py",
        "kit/\u00e9t\u00e9.py",
        "kit/a~b.py",
    ],
)
def test_usual_names_are_fine(path: str, tmp_path: Path) -> None:
    assert why_refused(path, tmp_path) is None


@pytest.mark.parametrize("device", ["/dev/null", "/dev/tty"])
def test_a_device_is_no_file(device: str, tmp_path: Path) -> None:
    (tmp_path / "device").symlink_to(device)
    assert why_refused("device", tmp_path) is not None


TRACKED = ("Kit/__init__.py", "Kit/other.py", "docs/caf\u00e9.md", "a.py", "A.py")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("kit/new.py", "differs from Kit only by case"),
        ("Kit/Other.py", "differs from Kit/other.py only by case"),
        ("docs/cafe\u0301.md", "only by case"),
        ("Kit/new.py", None),
        ("a.py", None),
        ("Kitchen/new.py", None),
        ("vendor/lib", "in the submodule vendor/lib"),
        ("vendor/lib/a.py", "in the submodule vendor/lib"),
        ("Vendor/Lib/a.py", "in the submodule vendor/lib"),
        ("vendor/library.py", None),
    ],
)
def test_a_new_file_is_not_one_that_is_there_already(path: str, reason: str | None) -> None:
    said = why_not_beside(path, TRACKED, ["vendor/lib"])
    assert (reason is None and said is None) or (reason or "") in (said or "")
    assert (said is None) == (reason is None)
