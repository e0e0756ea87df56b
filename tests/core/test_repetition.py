from __future__ import annotations

import pytest

from agent.core.repetition import RepetitionWatch


def notices(text: str, step: int = 5) -> bool:
    watch = RepetitionWatch()
    return any(watch.feed(text[x : x + step]) for x in range(0, len(text), step))


@pytest.mark.parametrize(
    "unit", [" ", "ab", "    return x\n", "def f(x):\n    return g(x) + 1\n\n"]
)
def test_a_loop_is_noticed_soon(unit: str) -> None:
    start = "def f(x):\n"
    assert notices(start + unit * (2000 // len(unit)))
    assert not notices(start + unit * (500 // len(unit)))


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"value_{x} = {x * x}\n" for x in range(300)),
        "".join(f"    assert f({x}) == {x}\n" for x in range(100, 200)),
        "# " + "=" * 78 + "\n" + "x = 1\n" * 30,
        "GRID = [\n" + "    [0, 0, 0, 0, 0, 0, 0, 0, 0],\n" * 9 + "]\n",
    ],
)
def test_ordinary_code_is_left_alone(text: str) -> None:
    assert not notices(text)
