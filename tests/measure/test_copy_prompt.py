"""Whether an answer copies the file, which is what speculation lives on."""

from __future__ import annotations

import pytest

from agent.measure.copy_prompt import CopyPrompt
from agent.measure.traffic import made_up_file

FILE = made_up_file(3)
PROMPT = CopyPrompt([], FILE)


@pytest.mark.parametrize(
    ("answer", "copied"),
    [
        (FILE, True),
        (FILE[:200], True),
        (f"```python\n{FILE[:200]}", True),
        (FILE[:200].replace("rows", "lines"), True),
        ("", False),
        (FILE[:20], False),
        ("```python\n", False),
        ("def total(x):\n" * 20, False),
        ("I cannot see any file in your message, so I do not know what to copy." * 2, False),
        ("\u00e9\u00fc " * 60, False),
    ],
)
def test_only_the_file_itself_is_a_copy(answer: str, copied: bool) -> None:
    assert PROMPT.is_copied_by(answer) is copied


def test_no_two_functions_of_the_file_are_alike() -> None:
    names = [line for line in made_up_file(96).splitlines() if line.startswith("def ")]
    assert len(set(names)) == 96
