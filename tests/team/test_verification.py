"""Tests of a worktree: found, run, counted, and cut to what a repair needs."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.command import LEFT_OUT
from agent.core.errors import CommandError, TaskFileError
from agent.team import verification
from agent.team.evidence import summarise_failure
from agent.team.tally import read_tally
from agent.team.toolchain import detect_test_command, lint_commands
from agent.team.verification import run_tests, split_command


def make(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


PYTEST = {
    "kit.py": "def double(n):\n    return n + 1\n",
    "tests/test_kit.py": """import kit


def test_two(tmp_path):
    print("from", tmp_path, object())
    assert kit.double(2) == 4


def test_three():
    assert kit.double(3) == 6


def test_one():
    assert kit.double(1) == 2
""",
}


async def report(
    root: Path, *command: str, timeout_s: float = 50
) -> verification.VerificationReport:
    return await run_tests(
        command or ("pytest", "-q", "--tb=short", "-p", "no:cacheprovider"),
        root,
        checkout=root,
        timeout_s=timeout_s,
    )


@pytest.mark.parametrize(
    ("files", "program"),
    [
        ({"pyproject.toml": "[tool.pytest.ini_options]\n"}, "pytest"),
        ({"pytest.ini": ""}, "pytest"),
        ({"conftest.py": ""}, "pytest"),
        ({"setup.cfg": "[tool:pytest]\n"}, "pytest"),
        ({"tox.ini": "[pytest]\n"}, "pytest"),
        ({"tests/deep/test_a.py": ""}, "pytest"),
        ({"test_a.py": ""}, "pytest"),
        ({"package.json": '{"scripts": {"test": "jest"}}'}, "npm"),
        ({"Cargo.toml": ""}, "cargo"),
        ({"go.mod": ""}, "go"),
        ({"Makefile": "all:\n\ntest: all\n\techo\n"}, "make"),
        ({"Makefile": "test:\n", "tests/test_a.py": ""}, "pytest"),
        ({}, None),
        ({"tests/data.py": "", "pyproject.toml": "no toml ["}, None),
        ({"package.json": '{"scripts": {"test": "echo \\"Error: no test specified\\""}}'}, None),
        ({"package.json": "[1"}, None),
        ({"package.json": '{"scripts": []}'}, None),
        ({"Makefile": "test := 1\ntests:\n"}, None),
    ],
)
def test_the_test_command_is_detected(
    files: dict[str, str], program: str | None, tmp_path: Path
) -> None:
    command = detect_test_command(make(tmp_path, files))
    assert (command[0] if command else None) == program


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("pytest -q", ("pytest", "-q")),
        ("pytest -k 'a and b'", ("pytest", "-k", "a and b")),
        ("cd sub && pytest", ("sh", "-c", "cd sub && pytest")),
        ("A=1 pytest", ("sh", "-c", "A=1 pytest")),
        ("pytest tests/*.py", ("sh", "-c", "pytest tests/*.py")),
        ("pytest | tee log", ("bash", "-o", "pipefail", "-c", "pytest | tee log")),
        ("pytest || true", ("sh", "-c", "pytest || true")),
    ],
)
def test_a_command_gets_a_shell_only_when_it_needs_one(text: str, argv: tuple[str, ...]) -> None:
    assert split_command(text, "t.md") == argv


@pytest.mark.parametrize("text", ["pytest 'a", "", "  "])
def test_a_command_that_is_none_is_refused_by_name(text: str) -> None:
    with pytest.raises(TaskFileError, match=r"t\.md: test: ") as caught:
        split_command(text, "t.md")
    assert caught.value.fix


async def test_red_tests_stay_red_behind_a_pipe(tmp_path: Path) -> None:
    red = await report(tmp_path, *split_command("false | cat", "t.md"))
    assert not red.green
    assert red.failures == 1


async def test_green_tests_are_green(tmp_path: Path) -> None:
    make(tmp_path, {**PYTEST, "kit.py": "def double(n):\n    return 2 * n\n"})
    green = await report(tmp_path)
    assert green.green
    assert (green.exit_code, green.failures, green.completed) == (0, 0, True)
    assert green.summary == "3 passed"
    assert green.command == "pytest -q --tb=short -p no:cacheprovider"
    assert not list(tmp_path.rglob("__pycache__"))


async def test_red_tests_are_counted_and_the_first_failure_is_shown_first(tmp_path: Path) -> None:
    red = await report(make(tmp_path, PYTEST))
    assert (red.exit_code, red.failures, red.summary) == (1, 2, "2 failed, 1 passed")
    assert red.completed
    shown = red.evidence(1000)
    assert shown.index("assert 3 == 4") < shown.index("assert 4 == 6")
    assert "tests/test_kit.py:6: in test_two" in shown
    assert str(tmp_path) not in shown
    assert shown.endswith(
        "FAILED tests/test_kit.py::test_two - assert 3 == 4\n"
        "FAILED tests/test_kit.py::test_three - assert 4 == 6\n"
        "2 failed, 1 passed"
    )
    short = red.evidence(80)
    assert len(short) <= 240
    assert "E   assert 3 == 4" in short
    assert "4 == 6" not in short


async def test_equal_failures_give_equal_evidence_in_any_folder(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "a-folder-with-a-longer-name"):
        red = await report(make(tmp_path / name, PYTEST))
        texts.append(red.evidence(1000))
    assert texts[0] == texts[1]


async def test_code_that_does_not_even_import_is_told_from_failing_tests(tmp_path: Path) -> None:
    red = await report(make(tmp_path, {**PYTEST, "kit.py": "def double(n:\n"}))
    assert not red.green
    assert not red.completed
    assert red.summary == "1 error"
    shown = red.evidence(200)
    assert "E   SyntaxError: '(' was never closed" in shown
    assert "site-packages" not in shown
    assert "importlib" not in shown


async def test_unittest_is_read_too(tmp_path: Path) -> None:
    test = (
        "import unittest, kit\nclass T(unittest.TestCase):\n"
        "    def test_a(self): self.assertEqual(kit.double(2), 4)\n"
        "    def test_b(self): kit.nothing\n"
    )
    make(tmp_path, {"kit.py": PYTEST["kit.py"], "test_kit.py": test})
    red = await report(tmp_path, "python", "-m", "unittest", "-q")
    assert red.failures == 2
    assert red.summary == "FAILED (failures=1, errors=1)"
    assert "AttributeError" in red.evidence(300)
    make(tmp_path, {"kit.py": "def double(n:\n"})
    assert not (await report(tmp_path, "python", "-m", "unittest", "-q")).completed


async def test_a_test_that_hangs_tells_where(tmp_path: Path) -> None:
    code = "def double(n):\n    while True:\n        n += 1\n"
    red = await report(make(tmp_path, {**PYTEST, "kit.py": code}), timeout_s=10)
    assert red.exit_code is None
    assert not red.completed
    assert red.failures == 1
    assert red.summary == "not finished after 10 s"
    shown = red.evidence(200)
    assert shown.startswith("not finished after 10 s\n")
    assert "kit.py" in shown
    assert "KeyboardInterrupt" in shown


async def test_a_missing_runner_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="not found") as caught:
        await report(tmp_path, "no-such-runner")
    assert caught.value.fix


async def test_the_worktree_is_tested_and_not_an_installed_checkout(tmp_path: Path) -> None:
    """A virtual environment with the package in editable mode leads to the user's checkout."""
    checkout = make(tmp_path / "checkout", {"src/kit.py": "WHO = 'checkout'\n"})
    test = "import kit\n\ndef test_who():\n    assert kit.WHO == 'worktree'\n"
    files = {"src/kit.py": "WHO = 'worktree'\n", "tests/test_kit.py": test}
    tree = make(tmp_path / "worktree", files)
    folder = checkout / ".venv/bin"
    folder.mkdir(parents=True)
    line = f'PYTHONPATH="$PYTHONPATH:{checkout}/src" exec {shutil.which("pytest")} "$@"'
    make(folder, {"pytest": f"#!/bin/sh\n{line}\n"})
    (folder / "pytest").chmod(0o755)
    result = await run_tests(("pytest", "-q"), tree, checkout=checkout, timeout_s=50)
    assert result.green, result.result.output


@pytest.mark.parametrize(
    ("output", "failures", "completed", "line"),
    [
        (
            "=== 2 failed, 1 passed, 1 warning in 0.31s ===",
            2,
            True,
            "2 failed, 1 passed, 1 warning",
        ),
        ("1 failed, 2 errors in 61.20s (0:01:01)", 3, True, "1 failed, 2 errors"),
        ("5 passed in 0.01s", 0, True, "5 passed"),
        ("no tests ran in 0.00s", 0, False, "no tests ran"),
        ("Ran 3 tests in 0.001s\n\nOK", 0, True, "OK"),
        ("Ran 0 tests in 0.001s\n\nNO TESTS RAN", 0, False, "NO TESTS RAN"),
        (
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; finished in 0.00s\n"
            "test result: ok. 3 passed; 0 failed; 0 ignored",
            2,
            True,
            "2 failed, 4 passed",
        ),
        ("error[E0308]: x\nerror: could not compile `kit`", 1, False, "could not compile"),
        ("--- FAIL: TestA (0.00s)\nFAIL\nFAIL\tkit\t0.002s", 1, True, "1 failed"),
        ("FAIL\tkit [build failed]", 1, False, "build failed"),
        ("ok  \tkit\t0.002s", 0, True, "ok"),
        (
            "Tests:       1 failed, 2 passed, 3 total\nTime: 1 s",
            1,
            True,
            "1 failed, 2 passed, 3 total",
        ),
        (" Tests  2 failed | 1 passed (3)", 2, True, "2 failed | 1 passed (3)"),
        ("  3 passing (4ms)\n  2 failing", 2, True, "2 failing"),
        ("# pass 1\n# fail 4", 4, True, "fail 4"),
    ],
)
def test_the_last_words_of_common_runners_are_understood(
    output: str, failures: int, completed: bool, line: str
) -> None:
    tally = read_tally(f"noise\n{output}\n")
    assert tally is not None
    assert (tally.failures, tally.completed, tally.line) == (failures, completed, line)


@pytest.mark.parametrize(
    ("output", "ran"),
    [
        ("2 failed, 1 passed, 4 skipped, 1 xfailed, 3 deselected in 0.31s", 3),
        ("3 skipped in 0.01s", 0),
        ("1 error in 0.10s", 0),
        ("no tests ran in 0.00s", 0),
        ("Ran 5 tests in 0.001s\n\nOK (skipped=2, expected failures=1)", 2),
        (
            "ERROR: test_a (unittest.loader._FailedTest.test_a)\n"
            "Ran 1 test in 0.0s\n\nFAILED (errors=1)",
            0,
        ),
        ("test result: ok. 3 passed; 0 failed; 2 ignored\ntest result: ok. 1 passed; 0 failed", 4),
        (f"test result: ok. 3 passed; 0 failed\n{LEFT_OUT}\ntest result: ok.", None),
        ("ok  \tkit\t0.002s\nok  \tkit/a\t(cached)\n?   \tkit/b\t[no test files]", 2),
        ("ok  \tkit\t0.002s [no tests to run]\nFAIL\tkit/a [build failed]", 0),
        ("--- PASS: TestA (0.00s)\n--- FAIL: TestB (0.00s)\nFAIL\tkit\t0.002s", 2),
        ("Tests:       1 failed, 1 skipped, 2 passed, 4 total\nTime: 1 s", 3),
        ("Tests:       0 total\n", 0),
        (" Test Files  1 passed (1)\n      Tests  5 passed (5)", 5),
        ("  3 passing (4ms)\n  2 failing", 5),
        ("  3 passing (4ms)\n  1 pending\n", 3),
        ("# tests 5\n# pass 1\n# fail 4", 5),
        ("7 examples, 1 failure, 2 pending", 5),
        ("5 runs, 7 assertions, 1 failures, 1 errors, 2 skips", 3),
        ("[INFO] Tests run: 9, Failures: 1, Errors: 0, Skipped: 2\n", 7),
        ("[ERROR] Tests run: 9, Failures: 1, Errors: 0, Skipped: 2\n", None),
    ],
)
def test_only_tests_that_came_to_a_verdict_are_counted(output: str, ran: int | None) -> None:
    tally = read_tally(f"noise\n{output}\n")
    assert tally is not None
    assert tally.ran == ran


@pytest.mark.parametrize("wild", ["\n" * 200_000, f"Tests: {'1' * 200_000}", "a1 " * 70_000])
def test_an_output_of_nonsense_is_read_in_seconds(wild: str) -> None:
    begin = time.monotonic()
    assert read_tally(wild) is None
    assert time.monotonic() - begin < 20


CARGO = """running 2 tests
test a ... FAILED

failures:

---- a stdout ----
thread 'a' panicked at src/lib.rs:4:9:
assertion `left == right` failed
  left: 1
 right: 2

failures:
    a

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; finished in 0.02s
"""
GO = "=== RUN TestA\n--- FAIL: TestA (0.01s)\n    a_test.go:5: got 1\nFAIL\nFAIL\tkit\t0.003s\n"
JEST = (
    "FAIL ./a.test.js\n  \u25cf kit \u203a doubles\n\n    Expected: 4\n\n"
    "Tests: 1 failed, 1 total\nTime: 0.4 s\n"
)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            CARGO,
            "---- a stdout ----\nthread 'a' panicked at src/lib.rs:4:9:\nassertion `left == right` "
            "failed\n  left: 1\n right: 2\n1 failed, 1 passed",
        ),
        (GO, "--- FAIL: TestA\n    a_test.go:5: got 1\n1 failed"),
        (JEST, "  \u25cf kit \u203a doubles\n\n    Expected: 4\n1 failed, 1 total"),
        ("compiling\nbad thing\n", "compiling\nbad thing"),
        ("\x1b[31mred\x1b[0m\n10%\r50%\rdone\n", "red\ndone"),
        ("at 0x7f00deadbeef in /tmp/pytest-of-me/pytest-7/x\n", "at 0x... in /tmp/.../x"),
    ],
)
def test_evidence_of_other_runners_is_the_failing_part(output: str, expected: str) -> None:
    assert summarise_failure(output, limit_chars=1000) == expected


def test_a_long_failure_keeps_its_cause() -> None:
    frames = "".join(f"deep.py:{n}: in f\n    return f(n - 1)\n" for n in range(500))
    block = f"____ test_a ____\n{frames}E   ValueError: the cause\n--- Captured stdout call ---\n"
    output = f"=== FAILURES ===\n{block}{'noise ' * 999}\n=== short test summary info ===\n"
    shown = summarise_failure(output, limit_chars=300)
    assert len(shown) <= 300
    assert shown.startswith("____ test_a ____\n...\n")
    assert "deep.py:499: in f" in shown
    assert "E   ValueError: the cause" in shown
    assert "noise" not in shown


@settings(deadline=None)
@given(
    st.text()
    | st.lists(
        st.sampled_from(
            [
                "____ t ____",
                "E   x",
                "=== F ===",
                "FAILED a::b",
                "Traceback (most recent call last):",
                "",
                "y" * 300,
            ]
        )
    ).map("\n".join),
    st.integers(0, 500),
)
def test_evidence_never_exceeds_its_limit(output: str, limit: int) -> None:
    shown = summarise_failure(output, limit_chars=limit)
    assert len(shown) <= limit
    assert shown == summarise_failure(output, limit_chars=limit)


def test_linters_run_where_they_are_configured_and_only_on_the_given_paths(tmp_path: Path) -> None:
    make(tmp_path, {"a.py": "", "-b.py": "", "c.txt": "", "other.py": ""})
    assert lint_commands(tmp_path, ["a.py"]) == []
    tools = tmp_path / ".venv/bin"
    tools.mkdir(parents=True)
    for name in ("python", "ruff", "black"):
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o755)
    make(tmp_path, {"pyproject.toml": "[tool.ruff]\n"})
    paths = ["a.py", "-b.py", "c.txt", "gone.py"]
    (check,) = lint_commands(tmp_path, paths)
    assert check[:2] == (str(tools / "ruff"), "check")
    assert check[-2:] == ("./a.py", "./-b.py")
    assert not any("other" in word for word in check)
    make(tmp_path, {"pyproject.toml": "[tool.ruff.format]\n"})
    assert [argv[1] for argv in lint_commands(tmp_path, paths)] == ["check", "format"]
    make(tmp_path, {"pyproject.toml": "[tool.black]\n"})
    assert [Path(argv[0]).name for argv in lint_commands(tmp_path, paths)] == ["black"]
    make(tmp_path, {"pyproject.toml": "", ".prettierrc": "", "a.unknown": ""})
    assert lint_commands(tmp_path, ["a.unknown"]) == []


@pytest.mark.parametrize(
    "output",
    [
        "9" * 5000 + " failing",
        "Tests: " + "9" * 5000 + " failed, 1 total",
        "# fail " + "9" * 5000,
        "Ran 1 test in 0.1s\n\nFAILED (failures=" + "9" * 5000 + ")",
        "test result: FAILED. 1 passed; " + "9" * 5000 + " failed",
        "1 passed, " + "9" * 5000 + " failed in 0.1s",
        "9" * 5000 + " failed in 0.1s",
    ],
)
def test_a_number_without_end_is_no_count(output: str) -> None:
    tally = read_tally(output)
    assert tally is None or tally.failures < 10**9


@pytest.mark.parametrize(
    "output",
    [
        "\n" * 300_000,
        " " * 300_000,
        "\x1b]" * 150_000,
        "Tests: " + "1" * 300_000,
        "Tests:" + " " * 300_000,
    ],
)
def test_an_output_of_one_thing_takes_moments_not_minutes(output: str) -> None:
    begin = time.process_time()
    assert read_tally(output) is None
    assert len(summarise_failure(output, limit_chars=500)) <= 500
    assert time.process_time() - begin < 10


def test_a_title_that_looks_like_captured_output_is_a_title() -> None:
    output = "---- Captured stdout ----\nx\n1 failed in 0.10s"
    for limit in range(60):
        assert len(summarise_failure(output, limit_chars=limit)) <= limit
