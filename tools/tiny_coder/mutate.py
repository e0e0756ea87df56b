"""Wrong variants of right code: small slips of the kind that a small model makes."""

from __future__ import annotations

import re
from random import Random

_SLIPS: list[tuple[str, str]] = [
    (r" % 2 == 0", " % 2 == 1"), (r" % 2 == 1", " % 2 == 0"), (r" == 0", " != 0"),
    (r" != 0", " == 0"), (r" >= ", " > "), (r" <= ", " < "), (r" > ", " >= "), (r" < ", " <= "),
    (r" > ", " < "), (r" < ", " > "), (r" == ", " != "), (r" \+ ", " - "), (r" - ", " + "),
    (r" \* ", " + "), (r" // ", " * "), (r" \+ 1\b", ""), (r" - 1\b", ""), (r"\bmax\(", "min("),
    (r"\bmin\(", "max("), (r"\bTrue\b", "False"), (r"\bFalse\b", "True"),
    (r"\.lower\(\)", ".upper()"), (r"\.upper\(\)", ".lower()"), (r"\band\b", "or"),
    (r"\bor\b", "and"), (r" not in ", " in "), (r" in ('|[a-z]+\b(?!:|\.| if|\)))", r" not in \1"),
    (r"\[0\]", "[1]"), (r"\[-1\]", "[0]"), (r"\[::-1\]", ""), (r", reverse=True", ""),
    (r"\bsum\(", "len("), (r"\bsorted\(", "list("), (r"x \* x", "x + x"), (r"x \*\* 3", "x ** 2"),
    (r"' '\.join", "''.join"), (r"'-'\.join", "'_'.join"), (r"'_'\.join", "'-'.join"),
    (r"range\(1, ", "range("), (r" not c\.", " c."), (r"isupper", "islower"),
    (r"islower", "isupper"), (r"isdigit", "isalpha"), (r"isalpha", "isdigit"),
    (r"startswith", "endswith"), (r"endswith", "startswith"), (r"'aeiou'", "'aeio'"),
    (r"\.strip\(\)", ".lower()"), (r"abs\(x\)", "x"), (r"-x\b", "x"), (r"//", "/"),
    (r"\bif x not in", "if x in"), (r"return not ", "return "), (r"\[1:\]", ""),
    (r"len\(x\)", "x"), (r"\.split\(\)", ".splitt()"), (r"\bresult\b", "results"),
    (r"\blen\(", "length("), (r"\.items\(\)", ""), (r"\.join\(", ".joined("),
]  # fmt: skip
_INTEGER = re.compile(r"(?<![\w'.])\d+\b")
_LETTER = re.compile(r"'([a-z])'")


def wrong_variants(random: Random, code: str) -> list[str]:
    """Different bodies under the same ``def`` line, in random order; some may still be right."""
    head, body = code.split("\n", 1)
    changed = [*_slips(random, body), *_other_numbers(random, body), *_shortened(random, body)]
    if letter := _LETTER.search(body):
        changed.append(body[: letter.start(1)] + random.choice("abcdest") + body[letter.end(1) :])
    random.shuffle(changed)
    return [f"{head}\n{variant}" for variant in changed if variant != body]


def broken_syntax(random: Random, code: str) -> str:
    """The code with one character missing, so that Python cannot read it."""
    head, body = code.split("\n", 1)
    if random.random() < 0.4:
        return f"{head.rstrip(':')}\n{body}"
    closing = [position for position, sign in enumerate(body) if sign in ")]}'"]
    if not closing:
        return f"{head.rstrip(':')}\n{body}"
    position = random.choice(closing)
    return f"{head}\n{body[:position]}{body[position + 1 :]}"


def _slips(random: Random, body: str) -> list[str]:
    found = []
    for pattern, replacement in _SLIPS:
        matches = list(re.finditer(pattern, body))
        if matches:
            match = random.choice(matches)
            found.append(body[: match.start()] + match.expand(replacement) + body[match.end() :])
    return found


def _other_numbers(random: Random, body: str) -> list[str]:
    found = []
    for match in _INTEGER.finditer(body):
        value = int(match.group())
        near = [value + 1, max(0, value - 1), value + 1, value * 10, value + random.randint(2, 5)]
        found.append(body[: match.start()] + str(random.choice(near)) + body[match.end() :])
    return found


def _shortened(random: Random, body: str) -> list[str]:
    lines = body.split("\n")
    found = []
    assignments = [n for n, line in enumerate(lines) if line.startswith("    result = ")]
    if len(assignments) > 1:
        dropped = random.choice(assignments[1:])
        found.append("\n".join(lines[:dropped] + lines[dropped + 1 :]))
    if assignments and lines[-1].startswith("    return ") and lines[-1] != "    return result":
        found.append("\n".join([*lines[:-1], "    return result"]))
    return found
