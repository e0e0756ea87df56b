"""What a red or green test run looks like in a prompt, and what a review says."""

from __future__ import annotations

from random import Random

from tools.tiny_coder.compose import Function, WrongAttempt

_LONGEST_SUMMARY = 70


def module_of(path: str) -> str:
    """``pkg.mod`` for ``pkg/mod.py``."""
    return path.removesuffix(".py").replace("/", ".")


def test_path(path: str) -> str:
    """Where the tests of a module lie."""
    return "tests/test_" + path.rsplit("/", 1)[-1]


def test_file(function: Function, path: str) -> str:
    """The visible tests of a function."""
    asserts = [f"    {c.assertion(function.name)}" for c in function.cases[: function.visible]]
    head = f"from {module_of(path)} import {function.name}\n\n\ndef test_{function.name}():"
    return "\n".join([head, *asserts])


def passed(random: Random, count: int) -> str:
    """The last line of a green run, with its exit code."""
    return f"exit code 0\n{count} passed in 0.0{random.randint(1, 9)}s"


def failed(random: Random, function: Function, path: str, wrong: WrongAttempt) -> str:
    """The output of a run in which one test failed."""
    case, name = wrong.case, function.name
    assertion = case.assertion(name)
    relation = " is " if assertion.endswith(f" is {case.expected!r}") else " == "
    short = wrong.error or f"assert {wrong.got!r}{relation}{case.expected!r}"
    lines = [f"E   {short}"]
    if not wrong.error:
        lines.append(f"E    +  where {wrong.got!r} = {case.call(name)}")
    elif random.random() < 0.6:
        lines = [f"{path}:2: in {name}", _failing_line(random, wrong), *lines]
    test, line = test_path(path), 5 + function.cases.index(case)
    draw = random.random()
    if draw < 0.75:
        lines = [f"{test}:{line}: in test_{name}", f"    {assertion}", *lines]
    elif draw < 0.9:
        lines = [f">       {assertion}", *lines]
    if random.random() < 0.8:
        lines.append(f"FAILED {test}::test_{name} - {short[:_LONGEST_SUMMARY]}")
    if random.random() < 0.7:
        lines.append(f"1 failed in 0.0{random.randint(1, 9)}s")
    return "\n".join(lines)


def failed_import(random: Random, path: str, error: str) -> str:
    """The output of a run whose tests could not be collected."""
    test = test_path(path)
    lines = [f"ERROR collecting {test}", f"E   {error}", f"ERROR {test}"]
    if random.random() < 0.5:
        lines[:1] = [f"ImportError while importing test module '{test}'.", f"{test}:1: in <module>"]
    if random.random() < 0.7:
        lines.append(f"1 error in 0.0{random.randint(1, 9)}s")
    return "\n".join(lines)


def syntax_error(random: Random, path: str, code: str) -> str | None:
    """The output of a run on code that Python cannot read; None when it can."""
    try:
        compile(code, path, "exec")
    except SyntaxError as error:
        line = (error.text or "").strip()
        place = f'E     File "{path}", line {error.lineno}\nE       {line}\nE   '
        return failed_import(random, path, f"SyntaxError: {error.msg}").replace("E   ", place)
    return None


def _failing_line(random: Random, wrong: WrongAttempt) -> str:
    return "    " + random.choice(wrong.code.split("\n")[1:]).strip()
