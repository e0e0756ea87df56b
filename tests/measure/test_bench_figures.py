"""agent/measure/bench_figures.py: medians, spreads, verdicts, and from a few layers to all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.measure.bench_figures import (
    MEASURES,
    Spread,
    extrapolated,
    gains,
    of_whole,
    verdict,
)

PARTS = st.floats(min_value=1e-4, max_value=1e3)


def test_the_median_is_the_middle_one_and_the_spread_goes_to_both_ends() -> None:
    spread = Spread((3.0, 1.0, 2.0, 9.0))
    assert (spread.median, spread.low, spread.high) == (2.5, 1.0, 9.0)


def test_gains_are_taken_within_each_pair() -> None:
    seconds = gains(Spread((2.0, 4.0)), Spread((1.0, 1.0)), higher_is_better=False)
    assert seconds.values == (2.0, 4.0)
    rates = gains(Spread((10.0, 20.0)), Spread((5.0, 40.0)), higher_is_better=True)
    assert rates.values == (0.5, 2.0)


@pytest.mark.parametrize(
    ("base", "other", "wanted"),
    [
        ((10.0, 11.0), (12.0, 14.0), "faster"),
        ((10.0, 11.0), (8.0, 9.0), "slower"),
        ((10.0, 11.0), (10.5, 14.0), "no difference within the spread"),
        ((10.0, 10.0), (10.05, 10.05), "no difference within the spread"),
    ],
)
def test_a_verdict_needs_sides_that_do_not_overlap(
    base: tuple[float, ...], other: tuple[float, ...], wanted: str
) -> None:
    assert verdict(Spread(base), Spread(other), higher_is_better=True) == wanted
    opposite = {"faster": "slower", "slower": "faster"}.get(wanted, wanted)
    assert verdict(Spread(base), Spread(other), higher_is_better=False) == opposite


@given(fixed=PARTS, each=PARTS)
def test_what_grows_with_layers_is_found_exactly(fixed: float, each: float) -> None:
    def seconds(layers: int) -> float:
        return fixed + each * layers

    layers = (4, 8, 28)
    assert extrapolated("s", seconds(4), seconds(8), layers=layers) == pytest.approx(seconds(28))
    rate = extrapolated("tokens/s", 1 / seconds(4), 1 / seconds(8), layers=layers)
    assert rate == pytest.approx(1 / seconds(28))


def test_noise_never_makes_more_layers_faster() -> None:
    assert extrapolated("s", 2.0, 1.9, layers=(4, 8, 28)) == 1.9
    assert extrapolated("tokens/s", 10, 11, layers=(4, 8, 28)) == pytest.approx(11)


def test_prompt_tokens_do_not_depend_on_layers() -> None:
    many = Spread((70.0,))
    assert of_whole("tokens", Spread((60.0,)), many, layers=(1, 2, 4)) == many
    assert of_whole("s", Spread((1.0, 2.0)), Spread((2.0, 3.0)), layers=(1, 2, 4)) == Spread(
        (4.0, 5.0)
    )


def test_every_measure_says_how_it_is_made() -> None:
    assert len({measure.key for measure in MEASURES}) == len(MEASURES)
    assert all(len(measure.how) > 20 for measure in MEASURES)
