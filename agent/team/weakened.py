"""Did a change make the tests weaker? What they were before stands beside what they are now.

Only what can be counted is weighed: tests, assertions, what skips a test and what ends the process.
Another expectation in the same assertion may be just what the task asks for, and passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from agent.team.guarded_paths import is_test
from agent.team.python_tests import weaker_python
from agent.team.state import Verified
from agent.team.worded_tests import LANGUAGES, weaker_words

_MOST_TOLD = 6


def weaker_tests(path: str, before: str, after: str) -> list[str]:
    """What the test file `path` lost from `before` to `after`, a line each; empty for other files.

    Rust has unit tests in the files that they test, so all of its files are looked at.
    """
    suffix = PurePosixPath(path).suffix.lower()
    compare: Callable[[str, str], Sequence[str]] | None = None
    if suffix in (".py", ".pyi"):
        compare = weaker_python
    elif suffix in LANGUAGES:
        language = LANGUAGES[suffix]
        compare = lambda old, new: weaker_words(language, old, new)  # noqa: E731
    if compare is None or not (is_test(path) or suffix == ".rs"):
        return []
    found = list(compare(before, after))
    more = [f"{path}: and {len(found) - _MOST_TOLD} more"] if len(found) > _MOST_TOLD else []
    return [*(f"{path}: {reason}" for reason in found[:_MOST_TOLD]), *more]


def hollow_run(tests: Verified, base: Verified) -> str:
    """Why a green run of the tests proves nothing, seen beside that of the base; empty when it
    does.

    A process that ends itself while it is imported leaves exit code 0 and no word of the runner.
    """
    if not tests.green or base.ran is None:
        return ""
    before = f"before the change: {base.summary}"
    if tests.ran is None:
        return f"the command ended with exit code 0, but no tests were counted; {before}"
    if tests.ran == 0 and not (base.green and base.ran == 0):
        return f"the command ended with exit code 0, but no test ran; {before}"
    if tests.ran < base.ran:
        return f"fewer tests ran than before ({tests.ran}, not {base.ran}): {tests.summary}"
    return ""
