"""Seconds that a workflow would take at given rates. Pure.

The workflow is that of traffic.py: what its prompts share is read once, candidates and repairs are
written at the same time, plan and reviews one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.measure.lengths import Rates
from agent.measure.traffic import Stage

_ANSWERS = {"plan": 120, "candidates": 240, "repairs": 240, "reviews": 60}
"""Tokens of one answer: a plan of a few steps, an edit of some twenty lines, a verdict with its
reasons. An assumption (docs/decisions/017)."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """The requests of one phase."""

    read: int
    """Prompt tokens that cannot be spared."""
    answers: int
    answer: int
    """Tokens of each."""
    at_once: bool


Mix = tuple[Part, ...]


def mix_of(stages: Sequence[Stage], candidates: int) -> Mix:
    """The work of the workflow with so many candidates per step."""
    parts = []
    for stage in stages:
        asked = len(stage.calls)
        answers = candidates if stage.at_once and asked > 1 else asked
        parts.append(
            Part(
                # One more of a prompt that is known costs one token.
                read=max(1, stage.ideal + answers - asked),
                answers=answers,
                answer=_ANSWERS[stage.name],
                at_once=stage.at_once,
            )
        )
    return tuple(parts)


def seconds(mix: Mix, rates: Rates) -> float:
    """How long the mix takes at these rates."""
    return sum(part.read / rates.prefill + _written_in(part, rates) for part in mix)


def _written_in(part: Part, rates: Rates) -> float:
    if not part.at_once:
        return part.answers * part.answer / rates.single
    full, rest = divmod(part.answers, rates.slots)
    spent = full * rates.slots * part.answer / rates.together
    return spent + (rest * part.answer / _rate_of(rest, rates) if rest else 0.0)


def _rate_of(streams: int, rates: Rates) -> float:
    """Of fewer streams than slots: between one and all."""
    if rates.slots == 1:
        return rates.together
    part = (streams - 1) / (rates.slots - 1)
    return rates.single + part * (rates.together - rates.single)
