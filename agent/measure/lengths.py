"""Token counts of a measurement, and the rates that come of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Tokens of one measurement."""

    prompt: int
    single: int
    """Of the answer of one stream alone."""
    together: int
    """Of each answer while all slots write."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Tokens per second."""

    prefill: float
    """Of one prompt."""
    single: float
    """Written by one stream alone."""
    together: float
    """Written by all slots at the same time, added up."""
    slots: int


PROBE = Lengths(prompt=128, single=8, together=8)
"""Enough to see how fast a model is, however slow it may be."""
_MOST = Lengths(prompt=2048, single=256, together=256)
"""As much as a prompt of a workflow has; more would only take time."""
LONG_ENOUGH_TO_COPY = 96
"""Tokens of an answer: speculation drafts only after the first 16."""
_READING, _ALONE, _TOGETHER = 1.7, 0.7, 1.6
"""Shares: the prompt is to fill several physical batches, and most of a workflow is written by all
slots together."""


def lengths_for(rates: Rates, each_s: float, context: int) -> Lengths:
    """Tokens by which a rate takes about `each_s` seconds to measure, within the context."""

    def within(tokens: float, least: int, most: int) -> int:
        return max(least, min(int(tokens), most))

    single = within(rates.single * each_s * _ALONE, PROBE.single, _MOST.single)
    each = rates.together * each_s * _TOGETHER / rates.slots
    together = within(each, PROBE.together, _MOST.together)
    room = context - max(single, together, LONG_ENOUGH_TO_COPY) - 128
    most = max(PROBE.prompt, min(_MOST.prompt, room))
    prompt = within(rates.prefill * each_s * _READING, PROBE.prompt, most)
    return Lengths(prompt=prompt, single=single, together=together)
