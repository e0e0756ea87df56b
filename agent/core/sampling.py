"""Named sampling presets.

The `coding` chain is the one of ``llama_server_facts.md`` rule 8: three samplers, all others off.
A low temperature is there for determinism; it does not make decoding measurably faster.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen. `temperature` 0 is greedy."""

    temperature: float
    top_k: int
    top_p: float
    seed: int
    """Always sent: the server never tells which seed it drew for -1."""

    def with_seed(self, seed: int) -> Sampling:
        """The same preset with another seed."""
        return replace(self, seed=seed)

    def warmer(self, temperature: float) -> Sampling:
        """The same preset at another temperature; a hot one needs a wider nucleus."""
        wide = max(self.top_p, 0.95) if temperature > 0.3 else self.top_p
        return replace(self, temperature=temperature, top_p=wide)


CODING = Sampling(temperature=0.05, top_k=20, top_p=0.85, seed=1)
"""The default of every role and of candidate 0."""

_LADDER = (0.05, 0.4, 0.6, 0.8, 0.9, 1.0)
"""Temperature of candidate 0, 1, 2, ...; later ones stay on the last rung."""


def candidate_sampling(index: int, *, seed: int, attempt: int = 0) -> Sampling:
    """The preset of candidate `index` (from 0) in repair round `attempt` (from 0).

    No two candidates or rounds share a seed, so that a retry never repeats itself.
    """
    rung = _LADDER[min(index, len(_LADDER) - 1)]
    if index == 0 and attempt > 0:
        rung = 0.3
    return CODING.with_seed(seed + 1000 * attempt + index).warmer(rung)
