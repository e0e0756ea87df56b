"""Plans and reviews as a model writes them: valid, or an UnfitAnswer that can be shown to it."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import note

from agent.core.backend_manager import Reply, Timing, Usage
from agent.core.json_answer import UnfitAnswer, parse_answer
from agent.team.state import Plan, ReviewAnswer, plan_answer
from fuzz.source import Source

_USAGE = Usage(prompt=1, computed=1, cached=0, predicted=1)
_TIMING = Timing(queued_s=0, first_token_s=0, prefill_s=0, decode_s=0)
FORMS = (Plan, plan_answer([]), plan_answer(["a.py", "b.py"]), ReviewAnswer)
TEXTS = (
    "Add f",
    "",
    "a.py",
    "pkg/b.py",
    "\ud800",
    "\0",
    "\x1b[2J",
    "\u00fc" * 300,
    "x" * 1300,
    "../x",
)
PIECES = (
    *(
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        '"',
        "\\",
        "null",
        "true",
        "1",
        "-1",
        "1e999",
        "NaN",
        "9" * 400,
    ),
    *('"steps"', '"path"', '"action"', '"verdict"', '"accept"', "\\ud800", "\\u0000", "```json\n"),
)


def check(source: Source, folder: Path) -> None:
    """An answer that follows its form is the value; any other one is refused with a reason."""
    form = source.pick(FORMS)
    data = _review(source) if form is ReviewAnswer else _plan(source)
    answer = json.dumps(data, ensure_ascii=source.one_in(2))
    sound = not source.one_in(3)
    if not sound:
        answer = source.mutated(answer, PIECES)
    finish = "length" if source.one_in(4) else "stop"
    reply = Reply(text=answer, finish=finish, usage=_USAGE, timing=_TIMING, seed=0)
    note((form.__name__, answer[:3000]))
    try:
        made = parse_answer(reply, form)
    except UnfitAnswer as error:
        assert error.message
        assert len(error.excerpt) <= 203
        json.dumps(error.message)
        error.message.encode()
        return
    made.model_dump_json()
    assert form.model_validate_json(made.model_dump_json()) == made
    if sound:
        assert json.loads(made.model_dump_json()) == data


def _plan(source: Source) -> dict[str, object]:
    def step() -> dict[str, object]:
        return {
            "path": source.pick(("a.py", "b.py", *TEXTS)),
            "action": source.pick(("edit", "create", "edit", "delete")),
            "instruction": source.pick(TEXTS),
            "depends_on": source.several(lambda: source.below(10), 2),
        }

    return {
        "summary": source.pick(TEXTS),
        "steps": [step() for _ in range(1 + source.below(3))],
        "read": source.several(lambda: source.pick(TEXTS[2:4]), 2),
    }


def _review(source: Source) -> dict[str, object]:
    def comment() -> dict[str, object]:
        return {
            "file": source.pick(("a.py", *TEXTS)),
            "line": source.number(),
            "severity": source.pick(("error", "warning", "note", "bad")),
            "text": source.pick(TEXTS),
        }

    return {
        "verdict": source.pick(("accept", "revise", "accept", "maybe")),
        "comments": source.several(comment, 3),
    }


def test_an_answer_is_valid_or_refused_with_a_reason(explored) -> None:
    assert explored(check) >= 300
