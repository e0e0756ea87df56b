"""How many tests failed, read from the last words of the common test runners."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What a runner says about itself."""

    failures: int
    """Tests that failed or broke."""

    line: str
    """Its summary, without times."""

    completed: bool = True
    """False when the tests could not even be collected or built: then `failures` says little."""


# A test prints what it likes: no search may begin anew at every place, no number may be endless.
_PYTEST = re.compile(
    r"^=* ?(?P<counts>\d{1,9} "
    r"(?:failed|passed|skipped|deselected|xfailed|xpassed|warnings?|errors?)\b"
    r"[^=\n]{0,200}?|no tests ran) in [\d.]+s[^\n]{0,40}$",
    re.MULTILINE,
)
_UNITTEST = re.compile(
    r"^Ran (\d+) tests? in [\d.]+s\n\n(?P<line>(?:OK|FAILED|NO TESTS)[^\n]*)", re.MULTILINE
)
_CARGO = re.compile(
    r"^test result: \w+\. (?P<passed>\d{1,9}) passed; (?P<failed>\d{1,9}) failed", re.MULTILINE
)
_GO_TEST = re.compile(r"^--- FAIL: ", re.MULTILINE)
_GO_PACKAGE = re.compile(
    r"^(?:ok|FAIL)\s+\S+\s+(?:[\d.]+s|\(cached\)|\[(?:build|setup) failed\])", re.MULTILINE
)
_NODE = (
    re.compile(r"^ *+Tests:?[ ]++(?P<line>(?:(?P<failed>\d{1,9}) failed)?.*\d .*)$", re.MULTILINE),
    re.compile(r"^[ \t]*+(?P<line>(?P<failed>\d{1,9}) failing)$", re.MULTILINE),
    re.compile(r"^(?:#|\u2139) (?P<line>fail (?P<failed>\d{1,9}))$", re.MULTILINE),
)


def read_tally(output: str) -> Tally | None:
    """What pytest, unittest, cargo, go or a runner of Node reports; None for anything else."""
    readers: tuple[Callable[[str], Tally | None], ...] = (_pytest, _unittest, _cargo, _go, _node)
    found = (reader(output) for reader in readers)
    return next((tally for tally in found if tally is not None), None)


def _last(pattern: re.Pattern[str], output: str) -> re.Match[str] | None:
    found = None
    for found in pattern.finditer(output):  # noqa: B007 - the last match is what is wanted
        pass
    return found


def _pytest(output: str) -> Tally | None:
    found = _last(_PYTEST, output)
    if found is None:
        return None
    counts = found["counts"]
    bad = sum(int(n) for n in re.findall(r"\b(\d{1,9}) (?:failed|errors?)\b", counts))
    ran = re.search(r"\d+ (?:passed|failed)\b", counts) is not None
    return Tally(failures=bad, line=counts.strip(), completed=ran)


def _unittest(output: str) -> Tally | None:
    found = _last(_UNITTEST, output)
    if found is None:
        return None
    bad = sum(int(n) for n in re.findall(r"(?:failures|errors)=(\d{1,9})\b", found["line"]))
    unread = "_FailedTest" in output  # how unittest reports a module that it cannot import
    return Tally(failures=bad, line=found["line"].strip(), completed=found[1] != "0" and not unread)


def _cargo(output: str) -> Tally | None:
    passed = failed = 0
    found = None
    for found in _CARGO.finditer(output):
        passed += int(found["passed"])
        failed += int(found["failed"])
    if found is not None:
        return Tally(failures=failed, line=f"{failed} failed, {passed} passed")
    if "error: could not compile" in output:
        return Tally(failures=1, line="could not compile", completed=False)
    return None


def _go(output: str) -> Tally | None:
    if _GO_PACKAGE.search(output) is None:
        return None
    failed = len(_GO_TEST.findall(output))
    built = "[build failed]" not in output and "[setup failed]" not in output
    if not built:
        return Tally(failures=max(failed, 1), line="build failed", completed=False)
    return Tally(failures=failed, line=f"{failed} failed" if failed else "ok")


def _node(output: str) -> Tally | None:
    for pattern in _NODE:
        if found := _last(pattern, output):
            return Tally(failures=int(found["failed"] or 0), line=found["line"].strip()[:200])
    return None
