"""Which configuration is measured next, and which has won: successive halving. Pure.

A round measures several configurations in turn, the default among them; only ratios within a round
count, since a machine that others use is not equally fast all the time. The better half is measured
again, for longer, until one is left. It wins only if it beats the default side by side.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.measure.configuration import DEFAULT, Configuration

HANDICAP = 1.10
"""So many times faster must be what changes answers (a quantised KV cache)."""
_LEAST_GAIN = 1.03
"""A smaller one is noise, or not worth being told."""
_ALMOST = 0.95
"""In a first, short measurement; what is slower than that is not looked at again."""
_CLEAR = 1.2
_IN_SECOND_ROUND = 4

Times = Mapping[Configuration, Sequence[float]]
"""Seconds of the workflow, of one round."""


def gains(times: Times) -> dict[Configuration, float]:
    """How many times faster than the default of the same round each configuration is, by the
    medians. What changes answers is charged for that."""
    base = statistics.median(times[DEFAULT])
    return {
        each: base / statistics.median(found) / (HANDICAP if each.changes_answers else 1.0)
        for each, found in times.items()
        if each != DEFAULT
    }


def second_round(variants: Sequence[Configuration], times: Times) -> list[Configuration]:
    """What is worth a second look after each variant was measured once: those that won in their
    respect, all together and the best two, and the best alone. Empty when nothing is."""
    found = gains(times)
    best: dict[frozenset[str], Configuration] = {}
    for each in variants:
        if each in found and found[each] > _ALMOST:
            respect = frozenset(each.values)
            if respect not in best or found[each] > found[best[respect]]:
                best[respect] = each
    winners = sorted(best.values(), key=lambda each: -found[each])
    clear = [each for each in winners if found[each] > 1.0]
    chosen = [_all(clear), _all(clear[:2]), *winners]
    return [x for x in dict.fromkeys(chosen) if x != DEFAULT][:_IN_SECOND_ROUND]


def better_half(
    configurations: Sequence[Configuration], known: Mapping[Configuration, float]
) -> list[Configuration]:
    """The faster half of them, at least one; none when the default is faster than all. `known` are
    the last gains of each; what was never measured is not taken."""
    measured = [each for each in configurations if each in known]
    ranked = sorted(measured, key=lambda each: -known[each])
    kept = ranked[: max(1, len(ranked) // 2)]
    return [each for each in kept if known[each] > 1.0]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What measuring a configuration next to the default has shown."""

    gain: float
    """How many times faster it is; the median of the pairs."""
    holds: bool
    """It is worth being kept."""
    why: str


def verdict(configuration: Configuration, pairs: Sequence[tuple[float, float]]) -> Verdict:
    """`pairs` are seconds of the default and of the configuration, measured in turn."""
    ratios = [default / other for default, other in pairs]
    gain = statistics.median(ratios)
    least = HANDICAP if configuration.changes_answers else _LEAST_GAIN
    if gain < least:
        why = f"{gain:.2f} times as fast is less than the {least:.2f} that count"
    elif min(ratios) <= 1.0:
        why = "the default was faster in one of the comparisons, so the gain may be noise"
    else:
        why = f"{gain:.2f} times as fast, and faster in each of {len(pairs)} comparisons"
    return Verdict(gain=gain, holds=gain >= least and min(ratios) > 1.0, why=why)


def is_clear(pairs: Sequence[tuple[float, float]]) -> bool:
    """Whether one of the two is so much faster each time that measuring on changes nothing."""
    ratios = [default / other for default, other in pairs]
    return min(ratios) > _CLEAR or max(ratios) < 1.0


def _all(configurations: Sequence[Configuration]) -> Configuration:
    together = DEFAULT
    # What sets less comes last: threads for one stream hold those for batches where they were.
    for each in sorted(configurations, key=lambda x: -len(x.items)):
        together = together.with_also(each)
    return together
