"""What test commands print: counted and shortened, whatever it is."""

from __future__ import annotations

from pathlib import Path

from hypothesis import note

from agent.core.terminal import printable
from agent.team.evidence import last_line, summarise_failure
from agent.team.tally import read_tally
from fuzz.source import Source

LINES = (
    *(
        "=== FAILURES ===",
        "____ test_a ____",
        "E   assert 1 == 2",
        "FAILED a.py::test_a - x",
        "a.py:1",
    ),
    *(
        "1 failed, 2 passed in 0.10s",
        "=== 3 errors in 1.2s ===",
        "no tests ran in 0.01s",
        "E  ",
        "x",
    ),
    *(
        "Ran 3 tests in 0.001s",
        "",
        "FAILED (failures=1, errors=2)",
        "OK",
        "test result: FAILED. 1 passed; 2 failed",
    ),
    *(
        "--- FAIL: TestA (0.00s)",
        "FAIL\tpkg\t0.1s",
        "ok  \tpkg\t(cached)",
        "Tests:       1 failed, 2 passed, 3 total",
    ),
    *(
        "  1 failing",
        "# fail 1",
        "not ok 1 - a",
        "# duration_ms 1.5",
        "Traceback (most recent call last):",
    ),
    *(
        '  File "/x/site-packages/a.py", line 1',
        "<frozen importlib>:1: in f",
        "thread panicked at x",
        "\u25cf a \u203a b",
    ),
    *(
        "---- Captured stdout ----",
        "\x1b[31mred\x1b[0m",
        "\x1b]0;title\x07",
        "\x1b]",
        "progress\rdone",
        "error[E0308]: x",
    ),
)
PIECES = (
    *(
        *LINES,
        "\n",
        "\n\n",
        "\r",
        "\r\n",
        " ",
        "\t",
        "=",
        "_",
        "9",
        "0x7ffe1234",
        "/tmp/pytest-of-me/pytest-1",
    ),
    *(
        " in 1.5s",
        "(pid 77)",
        "Tests: ",
        " failed",
        "ok ",
        "FAIL ",
        "\x1b",
        "\x1b]",
        "\x1b[",
        "\u0663",
        "/tmp/",
    ),
)
_MANY = 30_000


def check(source: Source, folder: Path) -> None:
    """Output in the shape of a runner's, with parts of others in it."""
    output = "\n".join(source.several(lambda: source.piece(LINES), 12))
    output = source.mutated(output, PIECES)
    if source.one_in(32):  # of one thing so much that a search which begins again and again is felt
        output += source.pick(("", "\n", "x")) + source.piece(PIECES) * (_MANY // 8)
    note((output[:3000], len(output)))
    tally = read_tally(output)
    if tally is not None:
        assert tally.failures >= 0
        assert tally.line or tally.failures == 0
    limit = source.below(2000)
    root = Path("/tmp/pytest-of-me") if source.one_in(3) else None
    shown = summarise_failure(output, limit_chars=limit, root=root)
    assert len(shown) <= limit
    assert shown == summarise_failure(output, limit_chars=limit, root=root)
    assert "\n" not in last_line(output)
    printable(shown)


def test_any_output_is_counted_and_shortened(explored) -> None:
    assert explored(check) >= 300
