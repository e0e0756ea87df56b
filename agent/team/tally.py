"""How many tests ran and failed, read from the last words of the common test runners.

The output may be anything that a test prints. Every pattern is linear in its length: what repeats
at the start of a line never gives back what it took, and no number has more digits than a count.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from agent.core.command import LEFT_OUT


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What a runner says about itself."""

    failures: int
    """Tests that failed or broke."""

    ran: int | None
    """Tests that ran to a verdict: skipped, deselected and expected to fail do not count. What go
    does not list counts by packages. None when the output does not tell."""

    line: str
    """Its summary, without times."""

    completed: bool = True
    """False when the tests could not even be collected or built: then `failures` says little."""


_MOST_LINE = 240
"""Characters of a summary: it is shown to people, to the reviewer, and kept."""

_PYTEST = re.compile(
    r"^=*+ ?(?P<counts>\d{1,9} "
    r"(?:failed|passed|skipped|deselected|xfailed|xpassed|warnings?|errors?)\b"
    r"[^=\n]{0,200}?|no tests ran) in [\d.]+s[^\n]{0,40}$",
    re.MULTILINE,
)
_UNITTEST = re.compile(
    r"^Ran (\d{1,9}) tests? in [\d.]+s\n\n(?P<line>(?:OK|FAILED|NO TESTS)[^\n]*)", re.MULTILINE
)
_CARGO = re.compile(
    r"^test result: \w+\. (?P<passed>\d{1,9}) passed; (?P<failed>\d{1,9}) failed", re.MULTILINE
)
_GO_TEST = re.compile(r"^--- FAIL: ", re.MULTILINE)
_GO_PASSED = re.compile(r"^--- PASS: ", re.MULTILINE)
_GO_PACKAGE = re.compile(
    r"^(?:ok|FAIL)\s+\S+\s+(?:[\d.]+s|\(cached\)|\[(?:build|setup) failed\])", re.MULTILINE
)
_GO_RAN = re.compile(
    r"^(?:ok|FAIL)\s+\S+\s+(?:[\d.]+s|\(cached\))(?!.*\[no tests to run\])", re.MULTILINE
)
_NODE: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = (
    (  # jest, vitest
        re.compile(
            r"^ *+Tests:?[ ]++(?P<line>(?:(?P<failed>\d{1,9}) failed)?.{0,400}\d{1,9} .*)$",
            re.MULTILINE,
        ),
        re.compile(r"^ *+Tests:?[ ]++(?:.{0,400}\D)?(\d{1,9}) passed.*$", re.MULTILINE),
    ),
    (  # mocha
        re.compile(r"^[ \t]*+(?P<line>(?P<failed>\d{1,9}) failing)$", re.MULTILINE),
        re.compile(r"^[ \t]*+(\d{1,9}) passing\b.*$", re.MULTILINE),
    ),
    (  # TAP
        re.compile(r"^(?:#|\u2139) (?P<line>fail (?P<failed>\d{1,9}))$", re.MULTILINE),
        re.compile(r"^(?:#|\u2139) pass +(\d{1,9})$", re.MULTILINE),
    ),
)
_MOCHA_GREEN = re.compile(
    r"^[ \t]*+(?P<line>(?P<passed>\d{1,9}) passing)\b(?: \([^)\n]*\))?$", re.MULTILINE
)
_RUBY = (
    re.compile(  # rspec
        r"^(?P<line>(?P<all>\d{1,9}) examples?, (?P<failed>\d{1,9}) failures?"
        r"(?:, (?P<skipped>\d{1,9}) pending)?"
        r"(?:, (?P<errors>\d{1,9}) errors? occurred outside of examples)?)$",
        re.MULTILINE,
    ),
    re.compile(  # minitest
        r"^(?P<line>(?P<all>\d{1,9}) (?:runs|tests), \d{1,9} assertions, "
        r"(?P<failed>\d{1,9}) failures, (?P<errors>\d{1,9}) errors, "
        r"(?P<skipped>\d{1,9}) (?:skips|pendings)\b.*)$",
        re.MULTILINE,
    ),
)
_MAVEN = re.compile(
    r"^(?:\[\w+\] )?(?P<line>Tests run: (?P<all>\d{1,9}), Failures: (?P<failed>\d{1,9}), "
    r"Errors: (?P<errors>\d{1,9}), Skipped: (?P<skipped>\d{1,9}))\s*$",
    re.MULTILINE,
)


def read_tally(output: str) -> Tally | None:
    """What pytest, unittest, cargo, go, maven or a runner of Node or Ruby reports; None for
    anything else."""
    readers: tuple[Callable[[str], Tally | None], ...] = (
        *(_pytest, _unittest, _cargo, _go),
        *(_maven, _ruby, _node),
    )
    found = (reader(output) for reader in readers)
    tally = next((tally for tally in found if tally is not None), None)
    return tally and replace(tally, line=tally.line[:_MOST_LINE])


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
    ran = [int(n) for n in re.findall(r"\b(\d{1,9}) (?:passed|failed|xpassed)\b", counts)]
    return Tally(failures=bad, ran=sum(ran), line=counts.strip(), completed=bool(ran))


def _unittest(output: str) -> Tally | None:
    found = _last(_UNITTEST, output)
    if found is None:
        return None
    line = found["line"].strip()
    bad = sum(int(n) for n in re.findall(r"(?:failures|errors)=(\d{1,9})\b", line))
    idle = sum(int(n) for n in re.findall(r"(?:skipped|expected failures)=(\d{1,9})\b", line))
    # how unittest reports a module that it cannot import
    unread = len(re.findall(r"^ERROR: .*_FailedTest", output, re.MULTILINE))
    return Tally(
        failures=bad,
        ran=max(int(found[1]) - idle - unread, 0),
        line=line,
        completed=found[1] != "0" and not unread,
    )


def _cargo(output: str) -> Tally | None:
    passed = failed = 0
    found = None
    for found in _CARGO.finditer(output):
        passed += int(found["passed"])
        failed += int(found["failed"])
    if found is not None:
        ran = _unless_cut(passed + failed, output)
        return Tally(failures=failed, ran=ran, line=f"{failed} failed, {passed} passed")
    if "error: could not compile" in output:
        return Tally(failures=1, ran=0, line="could not compile", completed=False)
    return None


def _go(output: str) -> Tally | None:
    if _GO_PACKAGE.search(output) is None:
        return None
    failed = len(_GO_TEST.findall(output))
    passed = len(_GO_PASSED.findall(output))
    # without -v only failing tests are listed
    ran = _unless_cut(passed + failed if passed else len(_GO_RAN.findall(output)), output)
    built = "[build failed]" not in output and "[setup failed]" not in output
    if not built:
        bad = max(failed, 1)
        return Tally(failures=bad, ran=ran, line="build failed", completed=False)
    return Tally(failures=failed, ran=ran, line=f"{failed} failed" if failed else "ok")


def _node(output: str) -> Tally | None:
    for pattern, green in _NODE:
        if found := _last(pattern, output):
            bad = int(found["failed"] or 0)
            passed = _last(green, output)
            ran = bad + (int(passed[1]) if passed else 0)
            return Tally(failures=bad, ran=ran, line=found["line"].strip()[:200])
    if found := _last(_MOCHA_GREEN, output):
        return Tally(failures=0, ran=int(found["passed"]), line=found["line"])
    return None


def _ruby(output: str) -> Tally | None:
    found = (_last(pattern, output) for pattern in _RUBY)
    return next((_of_all(match) for match in found if match is not None), None)


def _maven(output: str) -> Tally | None:
    found = _last(_MAVEN, output)
    if found is None:
        return None
    tally = _of_all(found)
    # with --quiet it says nothing when all is well: then there is nothing to compare with
    return tally if "[INFO]" in output else replace(tally, ran=None)


def _of_all(found: re.Match[str]) -> Tally:
    counts = {key: int(n or 0) for key, n in found.groupdict().items() if key != "line"}
    bad = counts["failed"] + counts["errors"]
    ran = max(counts["all"] - counts["skipped"], 0)
    return Tally(failures=bad, ran=ran, line=found["line"], completed=ran > 0)


def _unless_cut(count: int, output: str) -> int | None:
    """A sum over all of the output says nothing when parts of that are missing."""
    return None if LEFT_OUT in output else count
