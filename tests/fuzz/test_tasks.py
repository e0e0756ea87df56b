"""Task files: any text is a task or a TaskFileError that says where."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hypothesis import note

from agent.core.errors import TaskFileError
from agent.team.task_file import Task, check_paths, parse_task, read_task, task_from_prose
from agent.team.verification import split_command
from fuzz.source import Source

KEYS = ("title", "files", "context", "test", "candidates", "titel", "1", "")
VALUES = (
    *(
        "Add a helper",
        "[a.py, b/c.py]",
        "pytest -q",
        "4",
        "0x10",
        "~",
        "true",
        "'it''s'",
        '"a\\nb"',
    ),
    *(
        "- a.py",
        "{a: b}",
        "2001-01-01",
        "&x [*x]",
        "*x",
        "!!python/name:os.system",
        "!t a",
        "|\n  a",
    ),
    *(">-\n  a\n  b", '"\\ud800"', '"\\U00110000"', '"\\UFFFFFFFF"', '"\\x00"', "1_0", "1e999"),
    *("[../x, /etc/passwd]", "[.git/config]", "a: b", "'open", "pytest | tee", "[]", "? a", "<<"),
    *("!<tag:yaml.org,2002:str> 4", "!!str 4", "!!int abc", "!!binary aGk=", "%TAG", "@a", "`a"),
)
MARKS = (
    *(
        "---\n",
        "---",
        "...\n",
        "\n",
        ": ",
        "- ",
        "# ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "&a ",
        "*a ",
        "!a ",
    ),
    *("%YAML 9.9\n", "%YAML 1.1\n---\n", "%TAG ! tag:%C3,2002:\n", "|", ">", "'", '"', "\\", "\t"),
    *("  ", "!!int ", "? ", "<<: ", "\\U", "\\x", "%E4", "\r\n", "\ufeff", "a\u0301\u0316"),
)
_WORDS = ("Add", "a", "helper", "f()", "slug.py", "#1", "\u00fcber", "'", '"', "\\", ":", "\u4efb")


def check(source: Source, folder: Path) -> None:
    """A well-formed file gives back what it says; any other one a task, or a good error."""
    match source.below(4):
        case 0:
            _check_well_formed(source, folder)
        case 1:
            _check_prose(source)
        case _:
            _check_any(source, folder)


def _check_well_formed(source: Source, folder: Path) -> None:
    title = " ".join(source.pick(_WORDS) for _ in range(1 + source.below(8)))
    body = "\n".join(["Do it.", *source.several(lambda: source.pick((*_WORDS, "")), 5), "End."])
    files = list(dict.fromkeys(f"pkg/{n}.py" for n in source.several(lambda: source.below(9), 4)))
    count = 1 + source.below(32)
    lines = [
        f"title: {json.dumps(title)}",
        *([f"files: {json.dumps(files)}"] if files else []),
        *([f"candidates: {count}"] if source.one_in(2) else []),
        "test: pytest -q",
    ]
    end = source.pick(("\n", "\r\n"))
    text = end.join(["---", *lines, "---", *source.pick(([], [""])), *body.split("\n"), ""])
    note(text)
    task = parse_task(text, source="t.md")
    assert task.title == title
    assert task.body == body
    assert task.files == tuple(files)
    assert task.candidates in (None, count)
    assert task.test == "pytest -q"
    check_paths(task, folder)


def _check_prose(source: Source) -> None:
    prose = source.mutated(source.text((*_WORDS, " ", "\n", "#", "-"), 12), (*MARKS, " "))
    note((prose[:2000], len(prose)))
    try:
        task = task_from_prose(prose)
    except TaskFileError:
        return
    _assert_sound(task)


def _check_any(source: Source, folder: Path) -> None:
    head = [f"{source.pick(KEYS)}: {source.pick(VALUES)}" for _ in range(source.below(5))]
    text = "\n".join(["---", f"title: {source.pick(VALUES)}", *head, "---", "Do it."])
    text = source.mutated(text, (*MARKS, *VALUES))
    note((text[:3000], len(text)))
    try:
        if source.one_in(4):
            path = folder / "t.md"
            path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
            task = read_task(path)
        else:
            task = parse_task(text, source="t.md")
        _assert_sound(task)
        check_paths(task, folder)
        if task.test is not None:
            assert split_command(task.test, task.source)
    except TaskFileError as error:
        assert "t.md" in error.message
        assert 0 <= error.line <= text.count("\n") + 2


def _assert_sound(task: Task) -> None:
    assert task.body == task.body.strip() != ""
    assert "\n" not in task.title
    assert task.title.strip()
    assert re.fullmatch(r"[a-z0-9]+(?:-[a-z0-9]+)*", task.slug)
    assert len(task.slug) <= 40
    task.model_dump_json()
    for path in (*task.files, *task.context):
        path.encode()


def test_any_text_is_a_task_or_an_error_that_says_where(explored) -> None:
    assert explored(check) >= 300
