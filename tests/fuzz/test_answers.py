"""Whole files in answers of a model: any answer gives one text or an EditError."""

from __future__ import annotations

from pathlib import Path

from hypothesis import note

from agent.core.errors import EditError
from agent.team.answer_parser import parse_whole_file
from fuzz.source import Source

PATHS = ("pkg/a.py", "README.md", "x.json", "conf.toml", "src/lib.rs", "notes", "pkg/__init__.py")
LABELS = ("", "python", "py", "markdown", "json", "toml", "rust", "text", "diff", "{.python}")
CODE = (
    *("import os", "x = 1", "def f():", "    return 'a'", "\treturn 1", "# why", "", "  ", "}"),
    *('"""words', '"""', "text = '''", "Heading", "=======", "{", '"a": [1, 2],', "a = 1  ", "\\"),
)
MARKS = (
    *("```", "````", "~~~", "```python", "``` py pkg/a.py", "  ```", "```` md", "`", "```x```"),
    *("### pkg/a.py", "# pkg/a.py", "File: README.md", "**`x.json`**", "<think>", "</think>"),
    *("<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE", "# ... rest unchanged ...", "// ..."),
    *("Here is the file:", "\r\n", "\n", "\ufeff", "((((((((", "[[[[[[[[", "{{{{", "a.a.a.a.a."),
)


def check(source: Source, folder: Path) -> None:
    """What was put into an answer comes out of it; of any other one nothing is made up."""
    path = source.pick(PATHS)
    content = source.several(lambda: source.pick(CODE), 12)
    end = source.pick(("\n", "\r\n"))
    previous = None
    if source.one_in(2):
        previous = end.join([*source.several(lambda: source.pick(CODE), 8), "last", ""])
    mark = "`" * (3 + source.below(3))
    before = source.pick(("", "Here it is:\n\n", f"### {path}\n"))
    after = source.pick(("", "\n\nIt adds a helper.", "\n"))
    label = source.pick(_labels(path))
    answer = "\n".join([f"{before}{mark}{label}", *content, f"{mark}{after}"])
    if source.one_in(4):
        note((path, previous, answer))
        expected = _between_blanks(content)
        if not expected:
            return
        made = parse_whole_file(answer, path=path, previous=previous)
        style = end if previous is not None else "\n"
        assert made == style.join([*expected, ""])
        return
    answer = source.mutated(answer, (*MARKS, *CODE))
    note((path, previous, answer[:3000], len(answer)))
    complete = source.one_in(2)
    try:
        made = parse_whole_file(answer, path=path, previous=previous, complete=complete)
    except EditError as error:
        assert path in error.message
        return
    made.encode()
    assert "\0" not in made
    assert not made or made.endswith("\n")
    plain = answer.replace("\r\n", "\n")
    for line in made.replace("\r\n", "\n").split("\n"):
        assert line in plain


def _labels(path: str) -> tuple[str, ...]:
    return {
        ".py": ("python", "py", "", f"python {path}"),
        ".md": ("markdown", "", "md"),
        ".json": ("json", "", "jsonc"),
        ".toml": ("toml", ""),
        ".rs": ("rust", "", "rs"),
    }.get(Path(path).suffix, ("", "text", "python"))


def _between_blanks(lines: list[str]) -> list[str]:
    full = [n for n, line in enumerate(lines) if line.strip()]
    return lines[full[0] : full[-1] + 1] if full else []


def test_any_answer_gives_its_own_lines_or_an_edit_error(explored) -> None:
    assert explored(check) >= 300
