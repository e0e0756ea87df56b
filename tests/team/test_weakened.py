"""Which changes of tests make them weaker, and which do not."""

from __future__ import annotations

import time

import pytest

from agent.team.state import Verified
from agent.team.weakened import hollow_run, weaker_tests

PYTHON = """import pytest
from kit import double


def check(value):
    assert value > 0


@pytest.mark.parametrize("number", [1, 2, 3])
def test_many(number):
    check(double(number))
    assert double(number) == 2 * number


def test_double():
    assert double(2) == 4
    assert double(0) == 0


class TestErrors:
    def test_text(self):
        with pytest.raises(TypeError):
            double(None)
"""


def python(old: str, new: str) -> list[str]:
    assert old in PYTHON
    return weaker_tests("tests/test_kit.py", PYTHON, PYTHON.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("def test_double", "def check_double", "5 as before (test_double removed)"),
        (PYTHON[PYTHON.index("class") :], "", "TestErrors.test_text removed"),
        (PYTHON, "", "0 tests, not 5"),
        ("class TestErrors", "class Errors", "4 tests, not 5"),
        ("def test_double", "@pytest.mark.skip\ndef test_double", "test_double is skipped"),
        (
            "def test_double",
            "@pytest.mark.xfail(reason='x')\ndef test_double",
            "test_double is skipped or expected to fail",
        ),
        ("    assert double(2)", "    pytest.skip('x')\n    assert double(2)", "is skipped"),
        (
            "class TestE",
            "@pytest.mark.skipif(True, reason='')\nclass TestE",
            "test_text is skipped",
        ),
        ("def check", "pytestmark = pytest.mark.skip\n\n\ndef check", "file is skipped"),
        ("import pytest\n", "import pytest\npytest.importorskip('x')\n", "file is skipped"),
        ("    assert double(2) == 4\n", "", "test_double lacks: assert double(2) == 4"),
        ("    assert double(2) == 4\n", "    # assert double(2) == 4\n", "lacks: assert double(2)"),
        ("assert double(2) == 4", "assert True", "lacks: assert double(2) == 4"),
        ("assert double(2) == 4", "assert 4 == 4", "lacks: assert double(2) == 4"),
        ("assert double(2) == 4", "assert (double(2) == 5, 'text')", "lacks: assert double(2)"),
        ("assert double(2) == 4", "assert double(2) == 4 or True", "lacks: assert double(2)"),
        ("    assert double(2)", "    return\n    assert double(2)", "lacks: assert double(2)"),
        (
            "    assert double(2) == 4\n    assert double(0) == 0\n",
            "    try:\n        assert double(2) == 4\n        assert double(0) == 0\n"
            "    except Exception:\n        pass\n",
            "lacks: assert double(2) == 4",
        ),
        (
            "    assert double(0)",
            "    if False:\n        assert double(0)",
            "lacks: assert double(0)",
        ),
        ("[1, 2, 3]", "[1]", "3 tests, not 5"),
        ("    assert value > 0", "    pass", "test_many lacks: assert value > 0"),
        ("def test_double", "def test_double():\n    pass\n\n\ndef test_double", ""),
        (PYTHON, f"{PYTHON}\n\ntest_double = lambda: None\n", "(test_double removed)"),
        (PYTHON, f"{PYTHON}\n\ntest_double = test_many = lambda: None\n", "1 tests, not 5"),
        (PYTHON, f"{PYTHON}\n    test_text = None\n", "TestErrors.test_text removed"),
        (PYTHON, f"{PYTHON}\n\nTestErrors.test_text = None\n", "TestErrors.test_text removed"),
        (PYTHON, f"{PYTHON}\n\nclass TestErrors:\n    pass\n", "TestErrors.test_text removed"),
        (PYTHON, f"{PYTHON}\n\nTestErrors.__test__ = False\n", "TestErrors.test_text removed"),
        (PYTHON, f"{PYTHON}\n\ntest_double.__test__ = False\n", "(test_double removed)"),
        (PYTHON, f"{PYTHON}\n\ndel test_double\n", "(test_double removed)"),
        (
            PYTHON,
            f"{PYTHON}\n\ndef end():\n    global test_double\n    test_double = 1\n\n\nend()\n",
            "(test_double removed)",
        ),
        (PYTHON, f"{PYTHON}\n    def __init__(self):\n        pass\n", "test_text removed"),
        (PYTHON, f"pytest_plugins = ['kit.evil']\n{PYTHON}", "names with pytest_plugins"),
        (PYTHON, f"{PYTHON}\n\nfor test_double in [None]:\n    pass\n", "(test_double removed)"),
        (PYTHON, f"{PYTHON}\n\nfrom os import getcwd as test_double\n", "(test_double removed)"),
        (PYTHON, f"{PYTHON}\n\ncheck = print\n", "test_many lacks: assert value > 0"),
        (PYTHON, f"{PYTHON}\n\ndef check(value):\n    pass\n", "lacks: assert value > 0"),
        (
            "    assert double(2) == 4\n    assert double(0) == 0\n",
            "    if 1 == 2:\n        assert double(2) == 4\n"
            "    if 1 == 2:\n        assert double(0) == 0\n",
            "test_double does not always reach: assert double(2) == 4",
        ),
        ("    assert value > 0", "    while value > 9:\n        assert value > 0", "always reach"),
        ("    assert value > 0", "    if value:\n        return\n    assert value > 0", "reach"),
        (
            "    assert double(0) == 0",
            "    for _ in ():\n        assert double(0) == 0",
            "always reach: assert double(0) == 0",
        ),
        (
            "    assert double(0) == 0",
            "    try:\n        assert double(0) == 0\n    except ValueError:\n        pass",
            "always reach: assert double(0) == 0",
        ),
        (
            "    assert double(0) == 0",
            "    with pytest.raises(AssertionError):\n        assert double(0) == 0",
            "always reach: assert double(0) == 0",
        ),
        (
            "    assert double(0) == 0",
            "    def inner():\n        assert double(0) == 0",
            "always reach: assert double(0) == 0",
        ),
        ("    check(double(number))", "    number and check(double(number))", "always reach"),
        (
            "def test_double():\n    assert double(2) == 4",
            "def test_twice():\n    if 1 == 2:\n        assert double(2) == 4",
            "does not always reach",
        ),
        ("    assert double(2) == 4", "    yield\n    assert double(2) == 4", "is skipped"),
        (
            "from kit import double",
            "from kit import double\n\n\ndef double(x):\n    return 2 * x",
            "gives double, which it imports, another meaning",
        ),
        ("from kit import double", "from kit import double\ndouble = lambda x: 2 * x", "gives"),
        ("    assert double(2)", "    double = abs\n    assert double(2)", "gives double"),
        ("def test_double()", "def test_double(double=abs)", "has a parameter double"),
        (
            "from kit import double",
            "from kit import double\nfrom fake import double",
            "imports double from somewhere else too",
        ),
        ("import double", "import double\nfrom fake import *", "somewhere else too"),
        ("import pytest", "import pytest, kit\nkit.double = abs", "replaces names with kit.double"),
        (
            "    assert double(2)",
            "    pytest.raises = print\n    assert double(2)",
            "pytest.raises",
        ),
        ("import pytest", "import pytest, sys\nsys.modules['kit'] = sys", "with sys.modules"),
        ("import pytest", "import pytest, kit\nsetattr(kit, 'double', abs)", "with kit.*"),
        ("class T", "globals()['test_double'] = print\n\n\nclass T", "names with globals"),
        ("import pytest", "import pytest, os\nos._exit(0)", "calls os._exit()"),
        ("    assert double(2)", "    exit(0)\n    assert double(2)", "calls exit()"),
    ],
)
def test_python_tests_that_became_weaker(old: str, new: str, said: str) -> None:
    found = python(old, new)
    if said:
        assert said in "; ".join(found)
        assert found[0].startswith("tests/test_kit.py: ")
    else:
        assert not found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("def test_double", "def test_twice"),
        ("double(2) == 4", "double(2) == 5"),
        ("[1, 2, 3]", "[1, 2, 3, 4]"),
        ("[1, 2, 3]", "NUMBERS"),
        ("def test_double", "def test_new():\n    assert double(9) == 18\n\n\ndef test_double"),
        (
            "def test_double():\n    assert double(2) == 4\n",
            "def test_two():\n    assert double(2) == 4\n\n\ndef test_double():\n",
        ),
        (
            "    assert double(2) == 4\n    assert double(0) == 0\n",
            "    for a, b in ((2, 4), (0, 0)):\n        check(double(a))\n"
            "        assert double(a) == b\n",
        ),
        (
            "def test_double",
            "@pytest.mark.skipif(True, reason='x')\ndef test_new():\n    pass\n\n\ndef test_double",
        ),
        (
            "def test_double",
            "def test_leave():\n    with pytest.raises(SystemExit):\n        exit(1)\n\n\n"
            "def test_double",
        ),
        (PYTHON, PYTHON + "\n\nif __name__ == '__main__':\n    exit(pytest.main())\n"),
        (PYTHON, "def broken(:\n"),
        (
            PYTHON,
            PYTHON + "\n\ndef test_new(monkeypatch):\n    monkeypatch.setattr('kit.a', 1)\n"
            "    for number in (1, 2):\n        if number > 1:\n            break\n"
            "        assert double(number) == 2\n",
        ),
        (
            "def test_double",
            "class Double:\n    def double(self):\n        pass\n\n\ndef test_double",
        ),
        ("from kit import double", "from kit.core import double"),
        (
            "    assert double(0) == 0",
            "    for a in (0, 1):\n        if a:\n            break\n    assert double(0) == 0",
        ),
        ("    assert double(0) == 0", "    with open('a') as a:\n        assert double(0) == 0"),
        (
            "    assert double(2) == 4\n    assert double(0) == 0\n",
            "    lexer.skip()\n    assert double(2) == 4\n    assert double(0) == 0\n",
        ),
    ],
)
def test_python_tests_that_did_not(old: str, new: str) -> None:
    assert python(old, new) == []


UNITTEST = """import unittest

class Kit(unittest.TestCase):
    def test_a(self):
        self.assertEqual(double(2), 4)
        self.assertTrue(double(1))
"""


@pytest.mark.parametrize(
    ("old", "new", "weaker"),
    [
        ("double(2), 4", "4, 4", True),
        ("assertTrue(double(1))", "assertTrue(True)", True),
        ("    def", "    @unittest.skip('x')\n    def", True),
        ("        self.assertT", "        self.skipTest('x')\n        self.assertT", True),
        ("        self.assertT", "        raise unittest.SkipTest\n        self.assertT", True),
        ("double(2), 4", "'4', str(double(2))", False),
    ],
)
def test_unittest_is_read_too(old: str, new: str, weaker: bool) -> None:
    assert bool(weaker_tests("test_kit.py", UNITTEST, UNITTEST.replace(old, new))) is weaker


JAVASCRIPT = """describe('double', () => {
  it('doubles', () => {
    expect(double(2)).toBe(4);
    expect(double(0)).toBe(0);
  });
  test.each([1, 2])('many %d', (n) => { expect(double(n)).toBe(2 * n); });
});
"""
GO = """package kit

func TestDouble(t *testing.T) {
	if Double(2) != 4 {
		t.Fatalf("got %d", Double(2))
	}
}
"""
RUST = """pub fn double(n: i32) -> i32 {
    assert!(n >= 0);
    n * 2
}

#[cfg(test)]
mod tests {
    #[test]
    fn doubles() {
        assert_eq!(super::double(2), 4);
    }
}
"""
JAVA = """class KitTest {
    @Test void doubles() { assertEquals(4, Kit.twice(2)); }
}
"""
RUBY = """describe Kit do
  it "doubles" do
    expect(double(2)).to eq 4
  end
end
"""


@pytest.mark.parametrize(
    ("path", "text", "old", "new", "said"),
    [
        ("a.test.js", JAVASCRIPT, "it('d", "it.skip('d", "skips tests with it.skip"),
        ("a.test.js", JAVASCRIPT, "it('d", "xit('d", "1 tests, not 2"),
        ("a.test.ts", JAVASCRIPT, "  it('d", "  it.only('d", "skips tests"),
        (
            "a.test.ts",
            JAVASCRIPT,
            "    expect(double(2)",
            "    // expect(double(2)",
            "2 assertions, not 3",
        ),
        (
            "a.test.js",
            JAVASCRIPT,
            "expect(double(2)).toBe(4)",
            "expect(true).toBe(true)",
            "2 asser",
        ),
        (
            "a.test.js",
            JAVASCRIPT,
            "  it(",
            "  process.exit(0);\n  it(",
            "ends the process with process.exit",
        ),
        ("a.test.js", JAVASCRIPT, "    expect(double(2)", "    /* x\n expect(double(2)", "not 3"),
        ("a.test.js", JAVASCRIPT, "double(2)", "double(3)", ""),
        (
            "a.test.js",
            JAVASCRIPT,
            "});\n  test",
            "});\n  it('x', () => expect(1).toBe(x));\n  test",
            "",
        ),
        ("a_test.go", GO, "\tif", "\tt.Skip()\n\tif", "skips tests with t.Skip"),
        ("a_test.go", GO, 't.Fatalf("got %d", Double(2))', "return", "0 assertions, not 1"),
        ("a_test.go", GO, "func TestD", "func D", "0 tests, not 1"),
        ("a_test.go", GO, "\tif", "\tos.Exit(0)\n\tif", "ends the process"),
        ("a_test.go", GO, "Double(2) != 4", "Double(2) != 5", ""),
        ("src/lib.rs", RUST, "#[test]", "#[test]\n    #[ignore]", "skips tests"),
        ("src/lib.rs", RUST, "#[test]\n", "", "0 tests, not 1"),
        ("src/lib.rs", RUST, "assert_eq!(super::double(2), 4)", "assert!(true)", "0 assertions"),
        ("src/lib.rs", RUST, "    assert!(n >= 0);\n", "", ""),
        ("src/KitTest.java", JAVA, "@Test", "@Disabled @Test", "skips tests"),
        ("src/KitTest.java", JAVA, "assertEquals(4, Kit.twice(2));", "", "0 assertions"),
        ("spec/kit_spec.rb", RUBY, "  it", "  xit", "0 tests, not 1"),
        ("spec/kit_spec.rb", RUBY, "    expect", "    skip\n    expect", "skips tests with skip"),
        ("src/kit.js", JAVASCRIPT, JAVASCRIPT, "", ""),
        ("tests/data.json", "[1]", "[1]", "", ""),
    ],
)
def test_other_languages_are_counted(path: str, text: str, old: str, new: str, said: str) -> None:
    assert old in text
    found = "; ".join(weaker_tests(path, text, text.replace(old, new)))
    assert (said in found) if said else not found


@pytest.mark.parametrize(
    "wild",
    [
        *("\n" * 900_000, "/*" * 450_000, "#[cfg_attr(" * 80_000, "expect (" * 100_000),
        *("=begin\n" * 120_000, "it.each" * 120_000, "// x\n" * 180_000, " " * 900_000),
    ],
    ids=lambda wild: repr(wild[:11]),
)
def test_a_megabyte_of_nonsense_is_counted_in_seconds(wild: str) -> None:
    begin = time.monotonic()
    for path in ("a.test.js", "a_test.go", "src/lib.rs", "KitTest.java", "a_spec.rb", "a.bats"):
        weaker_tests(path, wild, wild)
    assert time.monotonic() - begin < 30


def verified(exit_code: int, ran: int | None, summary: str = "S") -> Verified:
    return Verified(
        command="c",
        exit_code=exit_code,
        failures=exit_code,
        completed=True,
        ran=ran,
        summary=summary,
        evidence="",
        duration_s=0.1,
    )


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        (verified(0, 3), verified(1, 3), ""),
        (verified(0, 4), verified(1, 0), ""),
        (verified(0, None), verified(1, None), ""),
        (verified(0, 5), verified(0, None), ""),
        (verified(0, 0), verified(0, 0), ""),
        (verified(1, None), verified(1, 3), ""),
        (verified(0, 2), verified(1, 3), "fewer tests ran than before (2, not 3)"),
        (verified(0, None), verified(1, 3), "no tests were counted"),
        (
            verified(0, None),
            verified(1, 0, "1 error"),
            "no tests were counted; before the change: 1",
        ),
        (verified(0, 0), verified(1, 0), "no test ran"),
        (verified(0, 0), verified(0, 3), "no test ran"),
    ],
)
def test_a_green_run_is_hollow_when_less_was_counted_than_before(
    now: Verified, before: Verified, said: str
) -> None:
    found = hollow_run(now, before)
    assert (said in found) if said else not found
