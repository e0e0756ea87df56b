"""What of a failing output a repair needs: the first failure first, and nothing that varies.

Equal failures give equal texts, in whatever folder and however fast they ran: prompts are then
equal too, and two candidates that fail alike can be recognised. Patterns that search the whole
output are linear in its length, whatever a test prints.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from agent.team.tally import read_tally

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[()][A-Z0-9])")
_VARYING: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b0x[0-9a-fA-F]{6,}\b"), "0x..."),
    (
        re.compile(
            r"(?:/private)?/(?:var/)?(?:tmp|folders/\w+/\w+/T)"
            r"/(?:pytest-of-[\w.-]+/pytest-\d+|[\w.-]+)"
        ),
        "/tmp/...",  # noqa: S108 - a word for readers, not a path
    ),
    (
        re.compile(r"(?m)(?<=\S) +in [\d.]+ ?m?s(?:econds)?\b(?: \(\d+:\d\d:\d\d\))?(?=[ =.;]*$)"),
        "",
    ),
    (re.compile(r"(?m)[;,]? finished in [\d.]+s$"), ""),
    (re.compile(r"(?m) \((?:[\d.]+ ?m?s|\d+ms)\)$"), ""),
    (re.compile(r"(?m)^((?:ok|FAIL)\s+\S+)\s+[\d.]+s$"), r"\1"),
    (re.compile(r"(?m)^ *+(?:[#\u2139] *+)?duration_ms:? [\d.]+\n"), ""),
    (re.compile(r"\((pid|process)[ =:]?\d+\)"), r"(\1)"),
)
_NOISE = re.compile(
    r"(?:platform \w+ -- Python|rootdir: |plugins: |cachedir: |configfile: |asyncio: mode="
    r"|Using --random|Time: +[\d.]+|npm ERR! .*debug.*log|> \S+@\S+ test).*"
)
_START = re.compile(
    r"_{3,} .+ _{3,}"  # pytest
    r"|(?:FAIL|ERROR): \w+.*"  # unittest
    r"|---- .+ ----"  # cargo
    r"|\s*--- FAIL: .*"  # go
    r"|\s*\u25cf .+ \u203a .+|\s*\u25cf .*failed to run"  # jest
    r"|error(?:\[E\d+\])?: .+"  # rustc
    r"|not ok \d+.*"  # TAP
)
_END = re.compile(
    r"=+ .+ =+|={20,}|failures:|FAIL|FAIL\t.*|Test Suites: .*|Tests: .*"
    r"|Ran \d+ tests?\b.*|# tests .*"
)
_FOREIGN_FRAME = re.compile(
    r"(?:<frozen [^>]+>|\S*/(?:site-packages|lib/python\d[\d.]*)/\S*):\d+: in .*"  # pytest
    r"|  File \"(?:<frozen|[^\"]*/(?:site-packages|lib/python\d[\d.]*)/).*"  # Python itself
)
_NAMES = re.compile(r"(?:FAILED|ERROR) \S+.*")
_CAUSE = re.compile(r"E  .*|.*\bpanicked at\b.*|.*\b\w*(?:Error|Exception)\b.*|.*[Ee]xpected.*")
_CAPTURED = re.compile(r"-+ Captured .+ -+")
_WIDTH = 240
_MOST_NAMES = 10
_GAP = "..."


def summarise_failure(output: str, *, limit_chars: int, root: Path | None = None) -> str:
    """At most `limit_chars` characters of `output`: the first failing test, further ones while they
    fit, the names of those that failed, and the runner's last word.

    `root` is the folder that the command ran in; paths below it become relative.
    """
    lines = _normalised(output, root)
    blocks = _blocks(lines)
    ending = _ending(lines, output, several=len(blocks) != 1, limit=limit_chars // 3)
    room = limit_chars - sum(len(line) + 1 for line in ending)
    if not blocks:
        rest = [line for line in lines if line not in set(ending)]
        chosen = _last_part(_from_traceback(rest), room)
    else:
        chosen = _shrunk(blocks[0], room)
        for block in blocks[1:]:
            if _size(chosen) + _size(block) > room:
                break
            chosen += block
    return "\n".join([*chosen, *ending])[: max(limit_chars, 0)]


def last_line(output: str) -> str:
    """The last line with text, without what varies: a summary where no runner is recognised."""
    lines = _normalised(output, None)
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _normalised(output: str, root: Path | None) -> list[str]:
    text = _ESCAPES.sub("", output.replace("\r\n", "\n"))
    if root is not None:
        for name in {str(root), str(root.resolve())}:
            text = text.replace(name + "/", "").replace(name, ".")
    for pattern, word in _VARYING:
        text = pattern.sub(word, text)
    # a progress bar writes over its line again and again; what stays is what stands last
    lines = [line.rstrip().rpartition("\r")[2] for line in text.split("\n")]
    lines = _own_frames(lines)
    return [
        line if len(line) <= _WIDTH else line[: _WIDTH - 3] + _GAP
        for line in lines
        if not _NOISE.fullmatch(line[:_WIDTH])
    ]


def _own_frames(lines: Sequence[str]) -> list[str]:
    """`lines` without the frames of libraries: the cause is in the repository's own."""
    kept: list[str] = []
    deeper = ""
    for line in lines:
        if _FOREIGN_FRAME.fullmatch(line[:_WIDTH]):
            deeper = "    " if line.startswith(" ") else " "
        elif not deeper or not line.startswith(deeper):
            deeper = ""
            kept.append(line)
    return kept


def _blocks(lines: Sequence[str]) -> list[list[str]]:
    """The part of the output that each failing test has."""
    blocks: list[list[str]] = []
    inside = False
    for line in lines:
        if _START.fullmatch(line):
            blocks.append([])
            inside = True
        elif _END.fullmatch(line):
            inside = False
        if inside:
            blocks[-1].append(line)
    return [_without_blank_ends(block) for block in blocks]


def _ending(lines: Sequence[str], output: str, *, several: bool, limit: int) -> list[str]:
    names = [line for line in lines if _NAMES.fullmatch(line)] if several else []
    tally = read_tally(_ESCAPES.sub("", output))
    last = [tally.line[:_WIDTH]] if tally is not None else []
    kept: list[str] = []
    for line in names[:_MOST_NAMES]:
        if _size([*kept, line, *last]) > limit:
            break
        kept.append(line)
    return [*kept, *last]


def _shrunk(block: list[str], room: int) -> list[str]:
    """`block` in at most `room` characters: its title, its cause, and what stands around that."""
    if _size(block) <= room:
        return block
    captured = next(
        (n for n, line in enumerate(block) if n and _CAPTURED.fullmatch(line)), len(block)
    )
    block = block[:captured]
    if _size(block) <= room:
        return block
    cause = next((n for n, line in enumerate(block) if n and _CAUSE.fullmatch(line)), 1)
    room -= _size([block[0], _GAP, _GAP])
    start = end = cause
    for wanted in ("E", ""):  # first the whole explanation, then what led to it, then the rest
        while end < len(block) and block[end].startswith(wanted):
            if _size(block[start : end + 1]) > room:
                break
            end += 1
        while wanted and start > 1 and _size(block[start - 1 : end]) <= room:
            start -= 1
    above = [_GAP] if start > 1 else []
    below = [_GAP] if end < len(block) else []
    return [block[0], *above, *block[start:end], *below]


def _from_traceback(lines: Sequence[str]) -> list[str]:
    """From the first traceback on, if there is one."""
    starts = (n for n, line in enumerate(lines) if line.startswith("Traceback (most recent"))
    return _without_blank_ends(lines[next(starts, 0) :])


def _last_part(lines: Sequence[str], room: int) -> list[str]:
    start = len(lines)
    left = room - len(_GAP) - 1
    while start and len(lines[start - 1]) < left:
        start -= 1
        left -= len(lines[start]) + 1
    return [*([_GAP] if start else []), *lines[start:]]


def _without_blank_ends(lines: Sequence[str]) -> list[str]:
    full = [n for n, line in enumerate(lines) if line.strip()]
    return list(lines[full[0] : full[-1] + 1]) if full else []


def _size(lines: Sequence[str]) -> int:
    return sum(len(line) + 1 for line in lines)
