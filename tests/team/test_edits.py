"""What small models answer, and what becomes of the file."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agent.core.errors import EditError
from agent.team.edits import (
    MOST_BYTES,
    Hunk,
    apply_hunks,
    check_edit_path,
    parse_hunks,
    parse_whole_file,
    read_file,
    seen_again,
    write_file,
)

CODE = "def f():\n    return 1\n"


def whole(answer: str, path: str = "pkg/a.py", previous: str | None = None) -> str:
    return parse_whole_file(answer, path=path, previous=previous)


def hunk(search: str, replace: str) -> Hunk:
    return Hunk(
        search=tuple(search.split("\n")) if search else (),
        replace=tuple(replace.split("\n")) if replace else (),
    )


@pytest.mark.parametrize(
    "answer",
    [
        f"```python\n{CODE}```",
        f"```\n{CODE}```",
        f"~~~py\n{CODE}~~~",
        f"`````python\n{CODE}`````",
        f"Sure, here it is:\n\n```python\n{CODE}```\nIt returns 1.",
        f"```python title=pkg/a.py\n{CODE}```",
        f"```pkg/a.py\n{CODE}```",
        f"```python:pkg/a.py\n{CODE}```",
        f"```python\n{CODE}",
        f"```python\n{CODE.rstrip()}```",
        f"```python\n# pkg/a.py\n{CODE}```",
        f"```python\n\n\n### pkg/a.py\n# File: pkg/a.py\n\n{CODE}\n\n```",
        f"### pkg/a.py\n```python\n{CODE}```",
        f"  1. so:\n  ```python\n  {CODE.replace(chr(10), chr(10) + '  ')}```",
        f"```python\n{CODE}```".replace("\n", "\r\n"),
        CODE,
        f"pkg/a.py:\n{CODE}",
        f"<think>\n```python\nno\n```\n</think>\n```python\n{CODE}```",
        f"Install:\n```bash\n{'pip install x; ' * 9}\n```\nThen:\n```python\n{CODE}```",
        f"```python\n{CODE}```\nUse it:\n```python\nf()\n```",
        f"Long sample:\n```python\n{'f(); ' * 9}\n```\nFile `pkg/a.py`:\n```python\n{CODE}```",
    ],
)
def test_the_file_is_found_in_whatever_surrounds_it(answer: str) -> None:
    assert whole(answer) == CODE


def test_the_unchanged_file_that_a_model_repeats_first_is_not_the_answer() -> None:
    old = "def f():\n    return 'something much longer'\n"
    answer = f"Now `pkg/a.py` is\n```python\n{old}```\nand becomes\n```python\n{CODE}```"
    assert whole(answer, previous=old) == CODE
    named = answer.replace("and becomes", "`pkg/a.py` becomes")
    assert whole(named, previous=old) == CODE
    assert whole(f"```python\n{old}```", previous=old) == old


def test_fences_inside_a_docstring_do_not_end_the_file() -> None:
    code = 'def f():\n    """Use it so:\n\n```\nf()\n```\n    """\n    return 1\n'
    assert whole(f"```python\n{code}```\nDone.\n```bash\nls\n```") == code


def test_fences_inside_markdown_do_not_end_the_file() -> None:
    text = "# Kit\n\n```bash\nmake\n```\n\nand\n\n```\nx\n```\n"
    assert whole(f"```markdown\n{text}```", path="README.md") == text
    with pytest.raises(EditError, match="cut"):
        parse_whole_file(f"```markdown\n{text}", path="README.md", previous=None, complete=False)


def test_a_title_that_the_file_has_itself_stays() -> None:
    old = f"# pkg/a.py\n{CODE}"
    assert whole(f"```python\n{old}# more\n```", previous=old) == f"{old}# more\n"


@pytest.mark.parametrize(
    ("previous", "expected"),
    [
        (None, "x = 1\ny = 2\n"),
        ("", "x = 1\ny = 2\n"),
        ("x = 1\n", "x = 1\ny = 2\n"),
        ("x = 1", "x = 1\ny = 2"),
        ("x = 1\r\nz = 1\r\n", "x = 1\r\ny = 2\r\n"),
        ("\ufeffx = 1\n", "\ufeffx = 1\ny = 2\n"),
    ],
)
def test_line_ends_and_the_last_newline_stay_as_the_file_has_them(
    previous: str | None, expected: str
) -> None:
    assert whole("```python\nx = 1\ny = 2\n\n\n```", previous=previous) == expected


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("", "no code block"),
        ("I cannot do that.", "no code block"),
        ("Done", "no code block"),
        ("```python\n```", "empty"),
        ("```bash\nls\n```", "only bash"),
        ("```diff\n-a\n+b\n```", "only diff"),
        ("```python\n<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE\n```", "search/replace"),
        ("```python\nx = 1\n# ... rest of the code ...\n```", "leaves out"),
        ("```python\n# The rest of the file remains unchanged\nx = 1\n```", "leaves out"),
        ("```python\nx = '\0'\n```", "no text file"),
        ("```python\nx = '\ud800'\n```", "no text file"),
        ("x = 1\n" * 400_000, "longer than"),
    ],
)
def test_an_unusable_answer_is_refused_with_the_reason(answer: str, said: str) -> None:
    with pytest.raises(EditError, match=said):
        whole(answer, previous="x = 2\n")


def test_an_answer_that_was_cut_is_not_taken_for_a_file() -> None:
    for answer in (f"```python\n{CODE}", CODE):
        with pytest.raises(EditError, match="cut"):
            parse_whole_file(answer, path="a.py", previous=None, complete=False)
    closed = f"```python\n{CODE}```\nIt retur"
    assert parse_whole_file(closed, path="a.py", previous=None, complete=False) == CODE


def test_other_languages_are_taken_bare_only_when_they_look_like_it() -> None:
    assert whole('{"a": 1}', path="a.json") == '{"a": 1}\n'
    assert whole("[a]\nb = 1", path="a.toml") == "[a]\nb = 1\n"
    js = "function f() {\n  return 1;\n}\n"
    assert whole(js, path="a.js") == js
    for path in ("a.js", "a.json", "a.toml", "README.md", "Makefile"):
        with pytest.raises(EditError, match="no code block"):
            whole("I am sorry.\nThat is not possible", path=path)


def test_an_empty_file_is_fine_where_files_are_empty() -> None:
    assert whole("```python\n```", path="pkg/__init__.py") == ""


@settings(deadline=None)
@given(st.text(), st.sampled_from(["a.py", "README.md", "x.json", "y"]), st.booleans())
def test_any_answer_gives_text_or_an_edit_error(answer: str, path: str, complete: bool) -> None:
    for text in (answer, f"```python\n{answer}\n```", f"```\n{answer}"):
        try:
            made = parse_whole_file(text, path=path, previous="a\n", complete=complete)
        except EditError:
            continue
        made.encode()
        assert made.endswith("\n")


MARKS = ["<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE", "```", "```python", "~~~", "# a.py"]
LINES = st.lists(st.sampled_from([*MARKS, "x", " x", "\ty", ""]), max_size=25).map("\n".join)


@settings(deadline=None)
@given(LINES)
def test_any_mixture_of_markers_gives_a_result_or_an_edit_error(answer: str) -> None:
    for parse in (lambda: whole(answer, previous="x\n"), lambda: parse_hunks(answer, path="a.py")):
        with contextlib.suppress(EditError):
            parse()


BLOCK = "<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE\n"


@pytest.mark.parametrize(
    "answer",
    [
        BLOCK,
        f"Here:\n```python\n{BLOCK}```\nDone.",
        BLOCK.replace("\n", "\r\n"),
        BLOCK.replace("<<<<<<< ", "<<<<<").replace(">>>>>>> ", ">>>>>>>>>"),
        BLOCK.replace("=======", "====="),
        BLOCK.replace("<<<<<<< SEARCH", "  <<<<<<< Search pkg/a.py"),
        BLOCK.replace(" REPLACE", ""),
        BLOCK.rstrip("\n"),
        BLOCK + BLOCK,
        BLOCK.replace("SEARCH\na", "SEARCH\n### a.py\na"),
        BLOCK.replace("a\n", "```python\na\n```\n").replace("b\n", "```python\nb\n```\n"),
    ],
)
def test_blocks_are_read_however_they_are_written(answer: str) -> None:
    (found,) = parse_hunks(answer, path="a.py")
    assert (found.search, found.replace) == (("a",), ("b",))


def test_an_underline_of_a_heading_is_not_the_divider() -> None:
    answer = "<<<<<<< SEARCH\nTitle\n=====\n=======\nName\n======\n>>>>>>> REPLACE"
    (found,) = parse_hunks(answer, path="a.md")
    assert (found.search, found.replace) == (("Title", "====="), ("Name", "======"))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("", "no search/replace block"),
        ("```python\nx = 1\n```", "no search/replace block"),
        ("x\n<<<<<<< SEARCH\na\n=======\nb", "line 2 of the answer has no >>>>>>> REPLACE"),
        (f"<<<<<<< SEARCH\na\n=======\nb\n{BLOCK}", "line 1 .* before the next block"),
        ("<<<<<<< SEARCH\na\n>>>>>>> REPLACE", "line 1 of the answer has no ======="),
        ("<<<<<<< SEARCH\na\n=======\nb\n=======\nc\n>>>>>>> REPLACE", "more than one ======="),
        ("a\n=======\nb\n>>>>>>> REPLACE", "line 4 of the answer has no <<<<<<< SEARCH"),
        (BLOCK.replace("b", "\0"), "no text file"),
    ],
)
def test_a_malformed_block_is_named_by_its_line(answer: str, said: str) -> None:
    with pytest.raises(EditError, match=said):
        parse_hunks(answer, path="a.py")


FILE = """import os


class A:
    def f(self):
        x = 1
        return x

    def g(self):
        x = 1
        return -x
"""


@pytest.mark.parametrize(
    ("search", "replace", "old", "new"),
    [
        ("import os", "import sys", "import os", "import sys"),
        ("        return -x", "        return 2", "return -x", "return 2"),
        (
            "    return -x",
            "    y = 2\n    return y",
            "        return -x",
            "        y = 2\n        return y",
        ),
        (
            "def g(self):\n    x = 1",
            "def g(self):\n    x = 2",
            "g(self):\n        x = 1",
            "g(self):\n        x = 2",
        ),
        ("            return -x", "            return 2", "return -x", "return 2"),
        ("import os  ", "import sys", "import os", "import sys"),
        ("\nimport os\n", "\nimport sys\n", "import os", "import sys"),
        ("\tdef g(self):\n\t\tx = 1", "\tdef h(self):\n\t\tx = 1", "def g", "def h"),
        ("import os\n\n", "", "import os\n\n\n", ""),
        ("import os", "import os\nimport re", "import os", "import os\nimport re"),
    ],
)
def test_a_block_applies_at_its_one_place(search: str, replace: str, old: str, new: str) -> None:
    applied = apply_hunks(FILE, [hunk(search, replace)])
    assert applied.failed == ()
    assert applied.content == FILE.replace(old, new, 1)


def test_spaces_that_a_model_writes_for_tabs_become_tabs() -> None:
    applied = apply_hunks(
        "if x:\n\ty()\n\tz()\n", [hunk("if x:\n    y()", "if x:\n    if y:\n        w()")]
    )
    assert applied.content == "if x:\n\tif y:\n\t\tw()\n\tz()\n"


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ("x = 1", "several times, on lines 6, 10;"),
        ("        x = 1", "several times, on lines 6, 10;"),
        ("x = 2", "do not occur"),
        ("    def f(self):\n    x = 1", "do not occur"),
        ("x = 1\n  return x", "do not occur"),
        ("return", "do not occur"),
        ("", "SEARCH is empty"),
        ("\n\n", "SEARCH is empty"),
    ],
)
def test_a_block_without_one_place_is_not_applied(search: str, said: str) -> None:
    applied = apply_hunks(FILE, [hunk(search, "y = 1")])
    assert applied.content == FILE
    (failed,) = applied.failed
    assert said in failed.reason
    shown = failed.nearest.split("\n...\n")[0]
    assert shown in FILE
    assert FILE.splitlines()[failed.nearest_line - 1] == shown.split("\n")[0]


def test_the_nearest_lines_are_the_ones_that_were_meant() -> None:
    wrong = "    def g(self):\n        x = 1\n        return minus_x"
    (failed,) = apply_hunks(FILE, [hunk(wrong, "")]).failed
    assert failed.nearest_line == 9
    assert failed.nearest == "    def g(self):\n        x = 1\n        return -x"


def test_good_blocks_apply_beside_bad_ones() -> None:
    blocks = [hunk("import os", "import re"), hunk("nothing", "x"), hunk("return -x", "return 1")]
    applied = apply_hunks(FILE, blocks)
    assert applied.content == FILE.replace("import os", "import re").replace("-x", "1")
    assert [failed.hunk for failed in applied.failed] == [blocks[1]]


def test_a_block_cannot_hit_what_another_one_wrote() -> None:
    applied = apply_hunks("a\nb\n", [hunk("a", "b2"), hunk("b2", "c")])
    assert applied.content == "b2\nb\n"
    assert len(applied.failed) == 1


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (hunk("b", "x"), hunk("b", "y")),
        (hunk("a\nb\nc", "x"), hunk("b", "y")),
        (hunk("a\nb\nc", "x"), hunk("a\nb", "a\nnew\nb")),
        (hunk("a\nb", "a\nx\nb"), hunk("a\nb", "a\ny\nb")),
    ],
)
def test_of_two_blocks_for_the_same_lines_only_the_first_applies(one: Hunk, two: Hunk) -> None:
    applied = apply_hunks("a\nb\nc\n", [one, two])
    assert applied.content == apply_hunks("a\nb\nc\n", [one]).content
    assert "same lines as another block" in applied.failed[0].reason


def test_blocks_may_share_the_lines_around_their_changes() -> None:
    blocks = [hunk("a\nb", "x\nb"), hunk("b\nc", "b\ny")]
    assert apply_hunks("a\nb\nc\n", blocks).content == "x\nb\ny\n"


def test_an_empty_search_fills_only_an_empty_file() -> None:
    assert apply_hunks("", [hunk("", "a\nb")]).content == "a\nb\n"
    assert apply_hunks("\n \n", [hunk("", "a")]).content == "a\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a\r\nb\r\nc\r\n", "a\r\nX\r\nY\r\nc\r\n"),
        ("a\nb\r\nc\n", "a\nX\nY\nc\n"),
        ("a\nb", "a\nX\nY"),
        ("b", "X\nY"),
        ("a\r\nb", "a\r\nX\r\nY"),
    ],
)
def test_line_ends_of_the_file_stay(content: str, expected: str) -> None:
    assert apply_hunks(content, [hunk("b", "X\nY")]).content == expected


def test_deleting_the_last_line_keeps_the_end_of_the_file() -> None:
    assert apply_hunks("a\nb", [hunk("b", "")]).content == "a"
    assert apply_hunks("a\nb\n", [hunk("b", "")]).content == "a\n"
    assert apply_hunks("b\n", [hunk("b", "")]).content == ""


def test_lines_that_stay_keep_their_blanks() -> None:
    applied = apply_hunks("a  \nb\t\nc\n", [hunk("a\nb\nc", "a\nb\nd")])
    assert applied.content == "a  \nb\t\nd\n"


TEXTS = st.lists(st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), max_size=6))


@settings(deadline=None)
@given(TEXTS, TEXTS, TEXTS, TEXTS, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_an_exact_block_changes_its_lines_and_nothing_else(
    above: list[str], old: list[str], below: list[str], new: list[str], end: str, closed: bool
) -> None:
    lines = [*above, *old, *below]
    size = len(old)
    assume(any(line.strip() for line in old) and (closed or lines[-1]) and below)
    places = [n for n in range(len(lines)) if lines[n : n + size] == old]
    assume(places == [len(above)])
    last = end if closed else ""
    applied = apply_hunks(end.join(lines) + last, [Hunk(search=tuple(old), replace=tuple(new))])
    assert applied.failed == ()
    assert applied.content == end.join([*above, *new, *below]) + last


@settings(deadline=None)
@given(st.text(), st.lists(st.tuples(TEXTS, TEXTS), max_size=4))
def test_what_does_not_apply_changes_nothing(
    content: str, pairs: list[tuple[list[str], list[str]]]
) -> None:
    blocks = [Hunk(search=tuple(a), replace=tuple(b)) for a, b in pairs]
    applied = apply_hunks(content, blocks)
    if len(applied.failed) == len(blocks):
        assert applied.content == content
    for failed in applied.failed:
        assert failed.reason


@pytest.mark.parametrize(
    ("content", "block"),
    [
        ("x\n" * 2_000_000, hunk("x\n" * 2000 + "y", "z")),
        (" x\n" * 2_000_000, hunk("x\n" * 2000 + "x", "z")),
        ("x" * 10_000_000, hunk("x" * 5000, "z")),
        ("a b c d e f\n" * 800_000, hunk("a b c d e g\n" * 50, "z")),
    ],
)
def test_a_file_of_megabytes_takes_seconds_not_hours(content: str, block: Hunk) -> None:
    begin = time.monotonic()
    assert len(apply_hunks(content, [block]).failed) == 1
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize(
    "answer",
    [
        "```python\nx\n```\n" * 20_000,
        "`````\n```\n" * 40_000,
        "```python\n" * 40_000,
        "```python\n'''\n" + "```\n" * 100_000,
        "# a.py\n" * 60_000,
        "`" * 500_000,
        "<<<<<<< SEARCH\n" * 30_000,
        " " * 500_000 + "<<<<<<< SEARCH",
    ],
)
def test_an_answer_of_nonsense_takes_seconds_not_hours(answer: str) -> None:
    begin = time.monotonic()
    for parse in (lambda: whole(answer, previous="x\n"), lambda: parse_hunks(answer, path="a.py")):
        with contextlib.suppress(EditError):
            parse()
    assert time.monotonic() - begin < 20


def test_a_failed_block_is_explained_by_what_the_file_is_now() -> None:
    before = "a = 1\nb = 2\nc = 3\n"
    first = Hunk(search=("b = 2",), replace=("b = 20",))
    second = Hunk(search=("b = 2", "c = 3"), replace=("b = 2", "c = 30"))
    third = Hunk(search=("c = 4",), replace=("c = 5",))
    applied = apply_hunks(before, [first, second, third])
    assert applied.content == "a = 1\nb = 20\nc = 30\n"
    (missed,) = applied.failed
    assert "c = 3" in missed.nearest
    assert seen_again(applied.content, missed).nearest == "c = 30"


def test_a_block_over_the_lines_of_another_keeps_its_reason() -> None:
    first = Hunk(search=("b = 2",), replace=("b = 20",))
    second = Hunk(search=("b = 2",), replace=("b = 200",))
    applied = apply_hunks("a = 1\nb = 2\n", [first, second])
    again = seen_again(applied.content, applied.failed[0])
    assert again.reason == applied.failed[0].reason
    assert again.nearest == "b = 20"


def test_a_block_that_fits_by_now_is_shown_where_it_would() -> None:
    (failed,) = apply_hunks("a = 1\n", [Hunk(search=("b = 2",), replace=("b = 3",))]).failed
    again = seen_again("a = 1\nb = 2\n", failed)
    assert again.reason == failed.reason
    assert again.nearest == "a = 1\nb = 2"


def test_a_path_of_the_repository_may_be_written(tmp_path: Path) -> None:
    assert check_edit_path("new/deep/a.py", tmp_path) == tmp_path / "new/deep/a.py"


@pytest.mark.parametrize("path", ["", "/a", "../a", "a\\b", "a\0b", ".Git/x", "sub", "out/x"])
def test_a_path_elsewhere_may_not_be_written(path: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "out").symlink_to(tmp_path)
    with pytest.raises(EditError):
        check_edit_path(path, root)


@settings(deadline=None)
@given(st.text())
def test_any_path_is_inside_or_an_edit_error(path: str) -> None:
    root = Path(__file__).parent.resolve()
    try:
        made = check_edit_path(path, root)
    except EditError:
        return
    assert made.resolve().is_relative_to(root)


@pytest.mark.parametrize("path", ["./C:x", "./~", ".//~/a.py", "./ a", "a/ /."])
def test_a_path_is_judged_in_its_plain_spelling(path: str, tmp_path: Path) -> None:
    with pytest.raises(EditError, match=r"not relative|blanks"):
        check_edit_path(path, tmp_path)


@pytest.mark.parametrize("path", ["link.py", "folder/a.py", "folder/new.py", "broken.py"])
def test_nothing_is_read_or_written_through_a_link(path: str, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.py").write_text("a\n")
    (tmp_path / "link.py").symlink_to("real/a.py")
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "broken.py").symlink_to("nowhere.py")
    with pytest.raises(EditError, match="a symbolic link"):
        write_file(path, tmp_path, "b\n")
    with pytest.raises(EditError, match="a symbolic link"):
        read_file(path, tmp_path)
    assert (tmp_path / "real" / "a.py").read_text() == "a\n"
    assert not (tmp_path / "nowhere.py").exists()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"# caf\xe9\n", "no UTF-8"),
        (b"a\0b", "no text"),
        (b"x" * (MOST_BYTES + 1), "larger than"),
    ],
)
def test_what_is_no_text_is_never_taken_for_absent(
    data: bytes, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "a.py").write_bytes(data)
    with pytest.raises(EditError, match=reason):
        read_file("a.py", tmp_path)


def test_text_is_read_and_written_with_its_line_ends(tmp_path: Path) -> None:
    assert read_file("deep/a.py", tmp_path) is None
    write_file("deep/a.py", tmp_path, "a\r\n\u00e9\n")
    assert read_file("deep/a.py", tmp_path) == "a\r\n\u00e9\n"
    with pytest.raises(EditError, match="longer than 200 characters"):
        write_file("x" * 300, tmp_path, "")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a\0b\n", r"'\\x00', which is no text"),
        ("a = '\x1b[2J'\n", r"'\\x1b', which is no text"),
        ("a\x9b\n", "no text"),
        ("if a:  # \u202e x\n", r"'\\u202e', which is no text"),
        ("\u2066a\n", "no text"),
        ("a\ud800\n", "no text"),
        ("x" * (MOST_BYTES + 1), "would be larger than"),
        ("\u00e9" * (MOST_BYTES // 2 + 1), "would be larger than"),
    ],
)
def test_what_is_no_text_or_too_large_is_not_written(
    content: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "a.py").write_text("before\n")
    for path in ("a.py", "new.py"):
        with pytest.raises(EditError, match=reason):
            write_file(path, tmp_path, content)
    assert (tmp_path / "a.py").read_text() == "before\n"
    assert not (tmp_path / "new.py").exists()


@pytest.mark.parametrize(
    ("path", "cookie", "refused"),
    [
        ("a.py", "# coding: utf-7\n", True),
        ("a.py", "#!/usr/bin/python\n# -*- coding: UTF_7 -*-\n", True),
        ("a.py", "\r\t# vim: set fileencoding=latin-1 :\n", True),
        ("a.pyi", "# coding=raw_unicode_escape\n", True),
        ("bin/tool", "#!/usr/bin/env python3\n# coding: utf-7\n", True),
        ("a.py", "# -*- coding: utf-8 -*-\n", False),
        ("a.py", "# coding: UTF8\n", False),
        ("a.py", "\n\n# coding: utf-7\n", False),
        ("a.py", "name = 1  # coding: utf-7\n", False),
        ("a.md", "# coding: utf-7\n", False),
    ],
)
def test_python_is_not_written_in_an_encoding_that_hides_code(
    path: str, cookie: str, refused: bool, tmp_path: Path
) -> None:
    content = f"{cookie}# +AAo-import os\n"
    if refused:
        with pytest.raises(EditError, match=r"would be read as .*: leave the comment out"):
            write_file(path, tmp_path, content)
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(content)  # who had it before may keep it
    write_file(path, tmp_path, f"{content}a = 1\n")


def test_a_strange_character_that_was_there_may_stay(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("# \x1b\n")
    write_file("a.py", tmp_path, "# \x1b\na = 1\n")
    assert (tmp_path / "a.py").read_text() == "# \x1b\na = 1\n"
    write_file("a.py", tmp_path, "a = 1\r\n\tb\x0c\ufeff\u00e9\U0001f600\n")


def test_a_binary_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\0")
    with pytest.raises(EditError, match="no UTF-8 text"):
        write_file("a.png", tmp_path, "text\n")
    assert (tmp_path / "a.png").read_bytes() == b"\x89PNG\0"


@pytest.mark.parametrize(
    "path", ["CON.py", "kit/a?.py", "kit/a.py.", "kit/" + "a" * 300, ".gitmodules", "kit/x:y.py"]
)
def test_a_name_that_not_every_system_holds_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(EditError):
        write_file(path, tmp_path, "")
    assert list(tmp_path.iterdir()) == []
