"""What a tuning does with its time, on a clock that only measurements move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.core.config import Settings
from agent.measure.configuration import DEFAULT, Configuration, Space
from agent.measure.lengths import Rates
from agent.measure.tune import tune
from agent.measure.tune_report import rows_of
from agent.measure.tuning import Sample, Tuning

RATES = Rates(prefill=100.0, single=10.0, together=20.0, slots=4)
VARIANTS = tuple(Configuration.of(ubatch_size=32 * number) for number in range(1, 9))
FIRST, LAST = VARIANTS[0], VARIANTS[-1]

Taken = Callable[[Configuration, int], float]
"""Seconds of the workflow in the measurement of that number, from 0."""


class Clock:
    """Stands for the sampler: a measurement takes one of so many parts of the time."""

    copies = True
    prompt_tokens = 4096

    def __init__(self, tuning: Tuning, parts: int, taken: Taken) -> None:
        self._tuning = tuning
        self._left = parts
        self._taken = taken
        self._done: Counter[Configuration] = Counter()

    async def begin(self, _candidates: int, _servers: int) -> None:
        await self.sample("first", DEFAULT)

    def affords(self, _configuration: Configuration, *, more: int) -> bool:
        return self._left >= 1 + more

    async def attempt(self, name: str, configuration: Configuration) -> None:
        await self.sample(name, configuration)

    async def sample(self, name: str, configuration: Configuration) -> str:
        if self._left <= 0:
            raise AssertionError("more was measured than there was time for")
        self._left -= 1
        seconds = self._taken(configuration, self._done[configuration])
        self._done[configuration] += 1
        self._tuning.samples.append(
            Sample(round=name, configuration=configuration, rates=RATES, seconds=seconds)
        )
        return ""


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    async def run(parts: int, taken: Taken) -> Tuning:
        monkeypatch.setattr(
            "agent.measure.tune.Sampler", lambda tuning, *_: Clock(tuning, parts, taken)
        )
        space = Space(variants=VARIANTS, left_out={})
        watch = lambda *_: None  # noqa: E731
        return await tune(Settings(), space, budget_s=60, watch=watch, log_dir=tmp_path)

    return run


def times(found: Tuning) -> Counter[Configuration]:
    """How often each variant was measured."""
    return Counter(x.configuration for x in found.samples if x.configuration != DEFAULT)


async def test_each_variant_is_measured_before_any_is_measured_again(
    tuned: Callable[..., Any],
) -> None:
    found = await tuned(14, lambda each, _: 1.0 if each == DEFAULT else 2.0)
    assert times(found) == dict.fromkeys(VARIANTS, 1)
    assert found.unmeasured == {}
    assert found.why == "Nothing was faster than the default."


async def test_time_that_a_loser_leaves_goes_to_those_that_were_missed(
    tuned: Callable[..., Any],
) -> None:
    def taken(each: Configuration, number: int) -> float:
        return 0.5 if each == FIRST and number == 0 else 1.0 if each == DEFAULT else 1.5

    found = await tuned(18, taken)
    assert times(found)[FIRST] > 1, "it promised much and was compared"
    assert times(found).keys() == set(VARIANTS)
    assert found.unmeasured == {}
    assert "The default stays." in found.why


async def test_the_best_is_found_where_what_promised_before_has_lost(
    tuned: Callable[..., Any],
) -> None:
    def taken(each: Configuration, number: int) -> float:
        return {DEFAULT: 1.0, LAST: 0.5}.get(each, 0.9 if each == FIRST and number == 0 else 1.5)

    found = await tuned(40, taken)
    assert found.improved
    assert found.winner == LAST


async def test_a_row_says_what_the_verdict_says(tuned: Callable[..., Any]) -> None:
    def taken(each: Configuration, number: int) -> float:
        """The machine is twice as fast from the pairs on."""
        if each == DEFAULT:
            return 0.5 if number > 5 else 1.0
        return (0.45 if number > 1 else 0.8) if each == LAST else 1.4

    found = await tuned(60, taken)
    default, *others = rows_of(found)
    row = next(x for x in others if x.configuration == found.winner)
    assert found.verdict is not None
    assert found.verdict.gain == pytest.approx(0.5 / 0.45)
    assert row.times_as_fast == found.verdict.gain
    assert f"{row.times_as_fast:.2f} times as fast" in found.why
    assert default.seconds / row.seconds == pytest.approx(found.verdict.gain)
