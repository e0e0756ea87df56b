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
_NEAR, _ALMOST = 0.9, 0.97
"""Slower than the first, a configuration is measured once; slower than the second, it does not
reach the second round."""
COUNTS = 1.02
"""What is faster than that is put together with others."""
_WON = 0.8
"""Part of the comparisons that a winner must win, so that noise hardly ever makes one."""
_CLEAR = 1.2
_IN_SECOND_ROUND = 4

Measured = Sequence[tuple[Configuration, float]]
"""Configurations of one round in the order in which they were measured, with the seconds of the
workflow."""
Gains = Mapping[Configuration, float]


def ratios(measured: Measured) -> dict[Configuration, list[float]]:
    """How many times faster than the default each measurement was: than what the default took just
    before and just after it, on average. A round in which it was not measured has none."""
    found: dict[Configuration, list[float]] = {}
    for place, (each, taken) in enumerate(measured):
        before = [s for x, s in measured[:place] if x == DEFAULT][-1:]
        after = [s for x, s in measured[place:] if x == DEFAULT][:1]
        if each != DEFAULT and (before or after):
            found.setdefault(each, []).append(statistics.mean(before + after) / taken)
    return found


def gains(measured: Measured) -> dict[Configuration, float]:
    """How many times faster each configuration is, by the median. What changes answers is charged
    for that."""
    return {
        each: statistics.median(found) / (HANDICAP if each.changes_answers else 1.0)
        for each, found in ratios(measured).items()
    }


def worth_another_look(found: Gains) -> list[Configuration]:
    """Those that a single measurement does not rule out, the fastest first."""
    return sorted((x for x in found if found[x] > _NEAR), key=lambda each: -found[each])


def second_round(variants: Sequence[Configuration], found: Gains) -> list[Configuration]:
    """What is worth a second round after each variant was measured: those that won in their
    respect, all together and the best two, and the best alone. Empty when nothing is."""
    best: dict[frozenset[str], Configuration] = {}
    for each in variants:
        if each in found and found[each] > _ALMOST:
            respect = frozenset(each.values)
            if respect not in best or found[each] > found[best[respect]]:
                best[respect] = each
    winners = sorted(best.values(), key=lambda each: -found[each])
    clear = [each for each in winners if found[each] > COUNTS]
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
    ratios: tuple[float, ...]
    """Of each pair."""
    holds: bool
    """It is worth being kept."""
    why: str


def verdict(configuration: Configuration, pairs: Sequence[tuple[float, float]]) -> Verdict:
    """`pairs` are seconds of the default and of the configuration, measured in turn."""
    found = [default / other for default, other in pairs]
    gain = statistics.median(found)
    least = HANDICAP if configuration.changes_answers else _LEAST_GAIN
    won = sum(ratio > 1.0 for ratio in found)
    enough = won >= _WON * len(found)
    if gain < least:
        why = f"{gain:.2f} times as fast is less than the {least:.2f} that count"
    elif not enough:
        why = f"it was faster in only {won} of {len(found)} comparisons, which may be noise"
    else:
        why = f"{gain:.2f} times as fast, and faster in {won} of {len(found)} comparisons"
    return Verdict(gain=gain, ratios=tuple(found), holds=gain >= least and enough, why=why)


def is_clear(pairs: Sequence[tuple[float, float]]) -> bool:
    """Whether one of the two is so much faster each time that measuring on changes nothing."""
    found = [default / other for default, other in pairs]
    return min(found) > _CLEAR or max(found) < 1.0


def _all(configurations: Sequence[Configuration]) -> Configuration:
    together = DEFAULT
    # What sets less comes last: threads for one stream hold those for batches where they were.
    for each in sorted(configurations, key=lambda x: -len(x.items)):
        together = together.with_also(each)
    return together
