"""What a tuning has measured and concluded, as values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agent.measure.configuration import DEFAULT, Configuration
from agent.measure.lengths import PROBE, Lengths, Rates
from agent.measure.search import Verdict


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One measurement."""

    round: str
    configuration: Configuration
    rates: Rates
    seconds: float
    """Of the workflow, at these rates."""


@dataclass(kw_only=True)
class Tuning:
    """What came of it; grows while it goes on."""

    samples: list[Sample] = field(default_factory=list)
    refused: dict[Configuration, str] = field(default_factory=dict)
    """What could not be started or measured, and why."""
    unmeasured: dict[Configuration, str] = field(default_factory=dict)
    """What was not tried, and why."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Respects in which nothing was tried, and why."""
    lengths: Lengths = PROBE
    description: str = ""
    """Of the default server."""
    winner: Configuration = DEFAULT
    verdict: Verdict | None = None
    """None: nothing was measured next to the default."""
    why: str = ""
    """The outcome in a sentence."""
    finished: bool = False
    """The budget was enough to find out whether anything is faster than the default."""
    took_s: float = 0.0
    others: float = 0.0
    """Cores that everything else on the machine took meanwhile, on average: how far to trust all
    this."""

    @property
    def improved(self) -> bool:
        """The winner is worth being kept."""
        return self.verdict is not None and self.verdict.holds

    def measured(self, name: str) -> list[tuple[Configuration, float]]:
        """The round of that name, in order."""
        return [(x.configuration, x.seconds) for x in self.samples if x.round == name]


Watch = Callable[[str, Configuration, Sample | str | None], None]
"""Told the round, the configuration, and None when its measurement begins; then the sample, or why
there is none."""
