"""What of the repository a prompt shows."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from agent.core.errors import NotText
from agent.team.repo_context import (
    RepositoryView,
    list_files,
    looks_the_same,
    relevant_files,
    render_file,
    view_repository,
)


async def view(
    contents: Mapping[str, str], *, named: list[str], wanted: list[str], budget: int
) -> RepositoryView:
    async def read(path: str) -> str | None:
        if path.endswith(".png"):
            raise NotText(path, "is binary")
        return contents.get(path)

    async def count_words(text: str) -> int:
        return len(text.split())

    return await view_repository(
        sorted(contents),
        named=named,
        wanted=wanted,
        budget=budget,
        read=read,
        count_tokens=count_words,
    )


async def test_named_files_are_always_shown_and_wanted_ones_while_they_fit() -> None:
    contents = {"a.py": "a " * 50, "b.py": "b " * 10, "c.py": "c " * 500, "d.py": "d"}
    seen = await view(contents, named=["a.py", "new.py"], wanted=["c.py", "b.py"], budget=100)
    assert list(seen.shown) == ["a.py", "new.py", "b.py"]
    assert seen.left_out == ("c.py",)
    assert "### new.py\n(new file)" in seen.text
    assert "c c c" not in seen.text


async def test_a_named_file_is_shown_whole_whatever_it_costs() -> None:
    seen = await view({"big.py": "x " * 1000}, named=["big.py"], wanted=[], budget=10)
    assert seen.text.count("x") == 1000


async def test_what_is_no_text_is_skipped_unless_the_task_names_it() -> None:
    contents = {"a.py": "a", "logo.png": ""}
    seen = await view(contents, named=[], wanted=["logo.png", "a.py"], budget=100)
    assert list(seen.shown) == ["a.py"]
    assert seen.left_out == ()
    with pytest.raises(NotText, match=r"logo\.png"):
        await view(contents, named=["logo.png"], wanted=[], budget=100)


async def test_the_same_repository_gives_the_same_bytes() -> None:
    contents = {"b.py": "b\n", "a.py": "a\n"}
    first = await view(contents, named=["b.py"], wanted=["a.py"], budget=100)
    second = await view(contents, named=["b.py"], wanted=["a.py"], budget=100)
    assert first.text == second.text
    assert first.text.startswith("a.py\nb.py\n\n### b.py\n```python\nb\n```")


@pytest.mark.parametrize(
    ("prose", "command", "expected"),
    [
        ("", ["pytest", "tests/test_slug.py::test_x"], ["tests/test_slug.py"]),
        ("Change src/slug.py please", [], ["src/slug.py", "tests/test_slug.py"]),
        ("The slug is wrong", [], ["src/slug.py", "tests/test_slug.py"]),
        ("Nothing of that", [], []),
        ("the logo", [], []),
    ],
)
def test_relevant_files_are_those_that_test_and_prose_name(
    prose: str, command: list[str], expected: list[str]
) -> None:
    files = ["README.md", "logo.png", "src/slug.py", "src/words.py", "tests/test_slug.py"]
    assert relevant_files(files, prose=prose, test_command=command) == expected


def test_a_large_repository_is_listed_by_folder() -> None:
    files = [f"src/part{n % 500}/deep/er/file{n}.py" for n in range(50_000)] + ["README.md"]
    lines = list_files(files)
    assert "README.md" in lines
    assert len(lines) <= 122
    assert "src/ (50000 files)" in lines


def test_a_fence_is_longer_than_any_inside() -> None:
    assert render_file("a.md", "```\nx\n```\n") == "### a.md\n````markdown\n```\nx\n```\n````"


def test_line_ends_make_no_difference_to_what_is_shown() -> None:
    assert render_file("a.py", "a\r\nb\r\n") == render_file("a.py", "a\nb\n")
    assert looks_the_same("a\r\nb", "a\nb")
    assert not looks_the_same("a\nb", "a\n\nb")
    assert looks_the_same(None, None)
    assert not looks_the_same(None, "")
