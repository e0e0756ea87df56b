"""Seconds of a workflow from rates, and how much is measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.prompts import Prompt
from agent.core.sampling import CODING
from agent.measure.lengths import PROBE, Rates, lengths_for
from agent.measure.score import Part, mix_of, seconds
from agent.measure.traffic import Call, Stage

RATES = Rates(prefill=100.0, single=10.0, together=20.0, slots=4)
SPEED = st.floats(min_value=0.1, max_value=1e5)


@pytest.mark.parametrize(
    ("part", "taken"),
    [
        (Part(read=200, answers=1, answer=50, at_once=False), 2 + 5),
        (Part(read=100, answers=3, answer=50, at_once=False), 1 + 15),
        (Part(read=100, answers=4, answer=50, at_once=True), 1 + 200 / 20),
        (Part(read=100, answers=5, answer=50, at_once=True), 1 + 200 / 20 + 50 / 10),
        (Part(read=100, answers=1, answer=50, at_once=True), 1 + 50 / 10),
    ],
)
def test_one_phase(part: Part, taken: float) -> None:
    assert seconds((part,), RATES) == pytest.approx(taken)


def test_fewer_slots_than_candidates_wait() -> None:
    part = Part(read=0, answers=4, answer=60, at_once=True)
    two = Rates(prefill=100.0, single=10.0, together=15.0, slots=2)
    assert seconds((part,), two) == pytest.approx(240 / 15)
    assert seconds((part,), replace(two, slots=1, together=10.0)) == pytest.approx(240 / 10)


def test_the_mix_has_the_candidates_of_the_settings() -> None:
    call = Call(prompt=Prompt("", "", "", ""), ids=[1], sampling=CODING, alike=4)
    stages = [
        Stage(name="plan", calls=(call,), at_once=True, ideal=2000),
        Stage(name="candidates", calls=(call,) * 4, at_once=True, ideal=303),
        Stage(name="reviews", calls=(call,) * 4, at_once=False, ideal=900),
    ]
    assert [(x.read, x.answers) for x in mix_of(stages, 8)] == [(2000, 1), (307, 8), (900, 4)]
    assert [(x.read, x.answers) for x in mix_of(stages, 1)] == [(2000, 1), (300, 1), (900, 4)]


@given(prefill=SPEED, single=SPEED, together=SPEED, better=st.floats(1.0, 10.0))
def test_a_faster_server_never_scores_worse(
    prefill: float, single: float, together: float, better: float
) -> None:
    mix = (
        Part(read=2000, answers=1, answer=120, at_once=True),
        Part(read=300, answers=6, answer=240, at_once=True),
        Part(read=900, answers=4, answer=60, at_once=False),
    )
    rates = Rates(prefill=prefill, single=single, together=together, slots=4)
    before = seconds(mix, rates)
    for name in ("prefill", "single", "together"):
        faster = replace(rates, **{name: getattr(rates, name) * better})
        assert seconds(mix, faster) <= before * (1 + 1e-9)


@given(SPEED, SPEED, SPEED, st.floats(0.05, 20.0), st.integers(512, 1 << 17))
def test_what_is_measured_fits_into_the_context(
    prefill: float, single: float, together: float, each_s: float, context: int
) -> None:
    rates = Rates(prefill=prefill, single=single, together=together, slots=4)
    found = lengths_for(rates, each_s, context)
    assert found.prompt + max(found.single, found.together) <= context
    assert found.prompt >= PROBE.prompt
    assert min(found.single, found.together) >= 2
