"""What is measured next and what wins, as tables and for any figures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.measure.configuration import DEFAULT, Configuration
from agent.measure.search import (
    HANDICAP,
    better_half,
    gains,
    is_clear,
    ratios,
    second_round,
    verdict,
    worth_another_look,
)

BATCH = Configuration.of(threads_batch=2)
ALONE = Configuration.of(threads=4, threads_batch=8)
SLOTS = Configuration.of(parallel=2)
SMALL = Configuration.of(ubatch_size=256)
SMALLER = Configuration.of(ubatch_size=128)
COARSE = Configuration.of(cache_type_k="q8_0", cache_type_v="q8_0")
VARIANTS = [BATCH, ALONE, SLOTS, SMALL, SMALLER, COARSE]
TIMES = st.floats(min_value=0.01, max_value=1e4)


def test_labels_are_for_people() -> None:
    assert DEFAULT.label == "default"
    assert ALONE.label == "threads 4 (batches 8)"
    assert BATCH.with_also(SMALL).label == "batch threads 2, physical batch 256"
    assert COARSE.label == "KV type q8_0"


def test_each_measurement_counts_against_the_default_around_it() -> None:
    measured = [
        *((DEFAULT, 4.0), (SLOTS, 2.0), (SMALL, 3.0), (DEFAULT, 8.0)),
        *((SLOTS, 4.0), (DEFAULT, 8.0)),
    ]
    assert ratios(measured) == {SLOTS: [3.0, 2.0], SMALL: [2.0]}
    assert gains(measured) == {SLOTS: 2.5, SMALL: 2.0}
    assert ratios([(SLOTS, 2.0), (DEFAULT, 4.0)]) == {SLOTS: [2.0]}
    assert ratios([(SLOTS, 2.0)]) == {}


def test_what_changes_answers_is_charged_for_it() -> None:
    found = gains([(DEFAULT, 10.0), (COARSE, 10.0 / 1.05)])
    assert found[COARSE] == pytest.approx(1.05 / HANDICAP)
    assert second_round([COARSE], found) == []


def test_winners_are_put_together_each_in_its_respect() -> None:
    known = {BATCH: 1.25, ALONE: 1.11, SMALL: 1.05, SMALLER: 1.06, SLOTS: 0.33, COARSE: 1.01}
    found = second_round(VARIANTS, known)
    assert found[0] == Configuration.of(threads=4, threads_batch=2, ubatch_size=128)
    assert found[1] == Configuration.of(threads=4, threads_batch=2)
    assert found[2] == BATCH
    assert SLOTS not in found
    assert SMALL not in found


def test_a_single_bad_measurement_does_not_rule_out_what_is_close() -> None:
    assert worth_another_look({SLOTS: 0.5, SMALL: 0.95, BATCH: 1.2}) == [BATCH, SMALL]


@pytest.mark.parametrize(
    ("known", "kept"),
    [
        ({}, []),
        ({SLOTS: 1.0, SMALL: 0.9}, []),
        ({SLOTS: 1.2}, [SLOTS]),
        ({SLOTS: 1.2, SMALL: 1.3, SMALLER: 1.1, BATCH: 0.7}, [SMALL, SLOTS]),
    ],
)
def test_the_better_half_goes_on(
    known: dict[Configuration, float], kept: list[Configuration]
) -> None:
    assert better_half(VARIANTS, known) == kept


@given(known=st.dictionaries(st.sampled_from(VARIANTS), st.floats(0.1, 10.0)))
def test_halving_comes_to_an_end_with_the_best(known: dict[Configuration, float]) -> None:
    left = VARIANTS
    for _ in range(4):
        left = better_half(left, known)
    best = max(known.values(), default=0.0)
    assert [known[each] for each in left] == ([best] if best > 1.0 else [])


@given(known=st.dictionaries(st.sampled_from(VARIANTS), st.floats(0.1, 10.0)))
def test_the_second_round_is_small_and_has_the_best(known: dict[Configuration, float]) -> None:
    following = second_round(VARIANTS, known)
    assert len(following) == len(set(following)) <= 4
    assert DEFAULT not in following
    if known and max(known.values()) > 1.0:
        assert max(known.values()) in [known.get(each) for each in following]


@pytest.mark.parametrize(
    ("pairs", "clear"),
    [
        ([(10.0, 5.0), (10.0, 6.0)], True),
        ([(10.0, 5.0), (10.0, 9.0)], False),
        ([(10.0, 11.0), (10.0, 12.0)], True),
        ([(10.0, 11.0), (10.0, 9.0)], False),
    ],
)
def test_a_clear_outcome_is_not_measured_on(pairs: list[tuple[float, float]], clear: bool) -> None:
    assert is_clear(pairs) is clear


@pytest.mark.parametrize(
    ("pairs", "holds", "said"),
    [
        ([(10.0, 5.0), (11.0, 5.0)], True, "2.1"),
        ([(10.0, 9.8), (10.0, 9.8)], False, "less than the 1.03"),
        ([(10.0, 5.0), (4.0, 4.1), (10.0, 5.0)], False, "2 of 3"),
        ([(10.0, 5.0), (4.0, 4.1), (10.0, 5.0), (9.0, 5.0), (9.0, 5.0)], True, "4 of 5"),
    ],
)
def test_a_winner_must_win_nearly_every_comparison_and_by_more_than_noise(
    pairs: list[tuple[float, float]], holds: bool, said: str
) -> None:
    found = verdict(SLOTS, pairs)
    assert found.holds is holds
    assert said in found.why


def test_a_coarser_cache_must_gain_more() -> None:
    pairs = [(10.0, 9.4), (10.0, 9.3)]
    assert verdict(SLOTS, pairs).holds
    assert not verdict(COARSE, pairs).holds


@given(pairs=st.lists(st.tuples(TIMES, TIMES), min_size=1))
def test_what_holds_was_not_slower(pairs: list[tuple[float, float]]) -> None:
    found = verdict(SMALL, pairs)
    if found.holds:
        assert found.gain > 1.0
        assert sum(other < default for default, other in pairs) > len(pairs) / 2
