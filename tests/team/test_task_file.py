"""Task files: what a user writes, and what they are told when it is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.errors import TaskFileError
from agent.team.task_file import (
    Task,
    check_paths,
    find_tasks,
    parse_task,
    read_task,
    task_from_prose,
)

GOOD = """---
title: Add a slugify helper
files: [textkit/slug.py]
context:
  - textkit/__init__.py
test: pytest -q tests/test_slug.py
candidates: 4
---

Write it.

Twice.
"""


def refused(text: str) -> TaskFileError:
    with pytest.raises(TaskFileError) as caught:
        parse_task(text, source="t.md")
    assert caught.value.exit_code == 2
    assert caught.value.message.startswith("t.md")
    return caught.value


def front(lines: str) -> str:
    return f"---\ntitle: A\n{lines}\n---\nDo it.\n"


def test_a_good_file_says_everything() -> None:
    task = parse_task(GOOD, source="t.md")
    assert task.title == "Add a slugify helper"
    assert task.body == "Write it.\n\nTwice."
    assert task.files == ("textkit/slug.py",)
    assert task.context == ("textkit/__init__.py",)
    assert task.test == "pytest -q tests/test_slug.py"
    assert task.candidates == 4
    assert task.slug == "add-a-slugify-helper"


def test_only_a_title_is_needed() -> None:
    task = parse_task("---\ntitle: A\n---\nDo it.", source="t.md")
    assert (task.files, task.context, task.test, task.candidates) == ((), (), None, None)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: "\ufeff" + text.replace("\n", "\r\n"),
        lambda text: text.replace("---\n", "---  \n"),
    ],
)
def test_what_editors_of_windows_add_changes_nothing(change: object) -> None:
    assert parse_task(change(GOOD), source="t.md") == parse_task(GOOD, source="t.md")


def test_a_ruler_in_the_prose_is_prose() -> None:
    task = parse_task("---\ntitle: A\n---\none\n\n---\n\ntwo", source="t.md")
    assert task.body == "one\n\n---\n\ntwo"


@pytest.mark.parametrize(
    ("lines", "line", "key", "said"),
    [
        ("file: [a.py]", 3, "file", "Did you mean files?"),
        ("xyz: 1", 3, "xyz", "Known keys: title, files, context, test, candidates."),
        ("files: a.py", 3, "files", "must be a list, not text"),
        ("files: [a.py,\n  3]", 4, "files", "must be text, not a number"),
        ("files:\n- a.py\n- [b.py]", 5, "files", "must be text, not a list"),
        ("files: []", 3, "files", "empty list"),
        ("context: {a: b}", 3, "context", "must be a list, not a mapping"),
        ("test: [pytest]", 3, "test", "must be text, not a list"),
        ("test:", 3, "test", "must be text, not nothing"),
        ('test: ""', 3, "test", "is empty"),
        ('test: "a\\0b"', 3, "test", "control characters"),
        ("candidates: four", 3, "candidates", "must be a number, not text"),
        ("candidates: 0", 3, "candidates", "between 1 and 32"),
        ("candidates: 33", 3, "candidates", "between 1 and 32"),
        ("candidates: 1.5", 3, "candidates", "must be a number"),
        ("candidates: true", 3, "candidates", "must be a number, not true or false"),
        ("candidates: -1", 3, "candidates", "must be a number"),
        ("candidates: '4'", 3, "candidates", "without quotes"),
        ("test: a\ntest: b", 4, "test", "is there twice"),
        ("test: pytest: -q", 3, "", "no YAML"),
        ("files: [a.py", 3, "", "no YAML"),
        ("test: \x07", 3, "", "control characters"),
        ("? [a]\n: b", 3, "a list", "unknown key"),
        ("files: " + "[" * 3000, 2, "", "nested too deeply"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_key(
    lines: str, line: int, key: str, said: str
) -> None:
    error = refused(front(lines))
    assert (error.line, error.key) == (line, key)
    assert said in str(error)
    assert error.fix


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no front matter"),
        ("Do it.", "no front matter"),
        ("---\ntitle: A\nDo it.", "has no end"),
        ("---\n---\nDo it.", "title: is missing"),
        ("---\ntitle: 3\n---\nDo it.", "must be text, not a number"),
        ("---\n- a\n---\nDo it.", "front matter is a list"),
        ("---\ntitle: A\n---\n \n", "says nothing"),
        ("---\ntitle: A\n---\na\0b", "no text"),
        ("---\ntitle: A\n---\n" + "x" * 1_000_001, "larger than"),
        ("---\n" + "# c\n" * 20_000 + "title: A\n---\nDo it.", "longer than"),
    ],
)
def test_a_file_without_the_form_of_a_task_is_refused(text: str, said: str) -> None:
    error = refused(text)
    assert said in error.message
    assert error.fix


def test_yaml_can_neither_run_code_nor_explode() -> None:
    assert "type" in refused("---\ntitle: !!python/object/apply:os.system [x]\n---\nb").message
    bomb = "\n".join(f"k{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))
    assert "unknown key" in refused(f"---\nk0: &a0 [x]\n{bomb}\n---\nb").message


@settings(deadline=None)
@given(st.text() | st.text(st.sampled_from("-\n:[]{}&*!|>'\"# titlefsa\t\r"), max_size=60))
def test_any_text_is_a_task_or_a_task_file_error(text: str) -> None:
    for whole in (text, f"---\n{text}\n---\nbody", f"---\ntitle: A\n{text}\n---\nbody"):
        try:
            task = parse_task(whole, source="t.md")
        except TaskFileError:
            continue
        assert task.title
        assert task.body


def test_reading_names_the_file_and_what_is_wrong(tmp_path: Path) -> None:
    good = tmp_path / "good.md"
    good.write_text(GOOD)
    assert read_task(good).source == str(good)
    latin = tmp_path / "latin.md"
    latin.write_bytes(b"---\ntitle: A\n---\ncaf\xe9\n")
    with pytest.raises(TaskFileError, match="UTF-8") as caught:
        read_task(latin)
    assert caught.value.line == 4
    huge = tmp_path / "huge.md"
    huge.write_bytes(b"\xe9" * 1_000_001)
    for path, said in ((huge, "larger"), (tmp_path, "folder"), (tmp_path / "no.md", "no such")):
        with pytest.raises(TaskFileError, match=said) as caught:
            read_task(path)
        assert str(path) in caught.value.message
        assert caught.value.fix


def test_prose_becomes_a_task_titled_by_its_first_line() -> None:
    task = task_from_prose("  # Add a helper\r\nIt slugifies. ")
    assert (task.title, task.source) == ("Add a helper", "--task")
    assert task.body == "# Add a helper\nIt slugifies."
    assert task_from_prose("word " * 100).title.endswith("word...")
    assert len(task_from_prose("x" * 5000).title) == 72
    for nothing in ("", " \n ", "#"):
        with pytest.raises(TaskFileError, match="says nothing"):
            task_from_prose(nothing)


@settings(deadline=None)
@given(st.text(min_size=1))
def test_a_slug_fits_into_a_branch_name(title: str) -> None:
    slug = Task(title=title, body="b", source="t.md").slug
    assert 0 < len(slug) <= 40
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert not slug.startswith("-")
    assert not slug.endswith("-")


def test_a_slug_reads_like_the_title() -> None:
    assert Task(title="\u00dcber caf\u00e9s!", body="b", source="").slug == "uber-cafes"
    assert Task(title="\u4efb\u52a1", body="b", source="").slug == "task"


def test_paths_of_the_repository_pass_in_one_spelling(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/a.py").write_text("")
    text = front("files: [./pkg/a.py, pkg//a.py, new/b.py]\ncontext: [pkg/a.py]")
    task = parse_task(text, source="t.md")
    check_paths(task, tmp_path)
    assert task.files == ("pkg/a.py", "new/b.py")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/etc/passwd", "not relative"),
        ("~/x", "not relative"),
        ("C:/x", "not relative"),
        ("../x", "leaves the repository"),
        ("a/../../x", "leaves the repository"),
        ("a/../b", "leaves the repository"),
        ("a\\\\b", "backslash"),
        (".git/config", "inside .git"),
        ("sub/.GIT/hooks/x", "inside .git"),
        ("sub/.git ./x", "inside .git"),
        ("git~1/config", "inside .git"),
        (".g\u200cit/config", "control characters"),
        (".", "is a folder"),
        ("pkg", "is a folder"),
        ("new/", "is a folder"),
        ("a.py/b.py", "no folder"),
        ("out/x", "symbolic link"),
        ("out.txt", "symbolic link"),
        ("git-link/config", "symbolic link"),
        ("loop", "symbolic link"),
        ("x" * 300, "longer than 200 characters"),
        ("pipe", "no regular file"),
    ],
)
def test_paths_that_leave_the_repository_are_refused_with_their_line(
    path: str, said: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "pkg").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / "a.py").write_text("")
    (root / "out").symlink_to(tmp_path)
    (root / "out.txt").symlink_to(tmp_path / "not-there")
    (root / "git-link").symlink_to(".git")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    for key in ("files", "context"):
        task = parse_task(front(f'{key}:\n  - ok.py\n  - "{path}"'), source="t.md")
        (root / "ok.py").write_text("")
        with pytest.raises(TaskFileError, match=said) as caught:
            check_paths(task, root)
        assert (caught.value.line, caught.value.key) == (5, key)
        assert caught.value.fix


def test_context_must_be_there(tmp_path: Path) -> None:
    task = parse_task(front("context: [a.py]"), source="t.md")
    with pytest.raises(TaskFileError, match=r"t\.md:3: context: 'a\.py' does not exist"):
        check_paths(task, tmp_path)


def test_tasks_are_found_by_name(tmp_path: Path) -> None:
    assert find_tasks(tmp_path) == []
    (tmp_path / "tasks/c.md").mkdir(parents=True)
    for name in ("b.md", "a.md", "x.txt"):
        (tmp_path / "tasks" / name).write_text("")
    assert [path.name for path in find_tasks(tmp_path)] == ["a.md", "b.md"]


@pytest.mark.parametrize("escape", ["\\U00110000", "\\UFFFFFFFF"])
def test_an_escape_that_is_no_character_names_its_line(escape: str) -> None:
    with pytest.raises(TaskFileError, match="no YAML") as caught:
        parse_task(f'---\ntitle: A\ntest: "{escape}"\n---\nbody', source="t.md")
    assert caught.value.line == 3


def test_prose_that_begins_with_an_empty_heading_is_titled_by_its_words() -> None:
    assert task_from_prose("#\t\nAdd a helper").title == "Add a helper"
    with pytest.raises(TaskFileError, match="says nothing"):
        task_from_prose("# \t\n##")


@pytest.mark.parametrize("end", ["\r", "\x85", "\u2028"])
def test_an_end_of_line_that_no_editor_shows_is_refused_with_its_line(end: str) -> None:
    with pytest.raises(TaskFileError, match="control characters") as caught:
        parse_task(f"---\ntitle: A\ntest: a{end}b\n---\nbody", source="t.md")
    assert caught.value.line == 3
