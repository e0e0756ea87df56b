"""What a benchmark measures, and the arithmetic on it. Pure.

Everything is seen from outside, by the clock of whoever asks, so that one backend is measured like
another: what a server says of itself is not used.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Unit = Literal["s", "tokens/s", "tokens", "MiB"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One thing that is measured."""

    key: str
    title: str
    unit: Unit
    how: str
    """What was done for it, in words; one sentence."""

    @property
    def higher_is_better(self) -> bool:
        """Rates are; seconds, tokens read and memory are better low."""
        return self.unit == "tokens/s"


MEASURES = (
    Measure(
        key="ready",
        title="ready, nothing loaded before",
        unit="s",
        how="from a server that does not run, or a model that is not loaded, to the end of an "
        "answer of one token",
    ),
    Measure(
        key="first_token_cold",
        title="first token, prompt never seen",
        unit="s",
        how="the planner's prompt with a new first word, so that nothing of it is cached anywhere",
    ),
    Measure(
        key="first_token_warm",
        title="first token, same repository",
        unit="s",
        how="then the coder's prompt: the same system prompt, repository and task",
    ),
    Measure(
        key="first_token_restart",
        title="first token, same repository, after a restart",
        unit="s",
        how="the coder's prompt again, on a new server (Ollama: the model loaded anew) that is "
        "ready",
    ),
    Measure(
        key="prefill",
        title="reading, one prompt",
        unit="tokens/s",
        how="tokens computed for the cold prompt, by its seconds to the first token",
    ),
    Measure(
        key="prefill_all",
        title="reading, all at once",
        unit="tokens/s",
        how="tokens computed for several cold prompts sent together, by the seconds until the last "
        "of them has its first token",
    ),
    Measure(
        key="decode",
        title="writing, one answer",
        unit="tokens/s",
        how="tokens of the coder's answer after its first one, by the seconds they took",
    ),
    Measure(
        key="decode_all",
        title="writing, all at once",
        unit="tokens/s",
        how="tokens of several answers asked for together, by the seconds from the first token of "
        "the first to the end of the last",
    ),
    Measure(
        key="candidates_cached",
        title="candidates of a known repository",
        unit="s",
        how="these answers from asking to the end of the last; system prompt, repository and task "
        "have been read before",
    ),
    Measure(
        key="candidates_uncached",
        title="candidates, nothing shared",
        unit="s",
        how="the same with a new first word in each prompt, so that each must be read whole",
    ),
    Measure(
        key="workflow",
        title="requests of a workflow",
        unit="s",
        how="a plan, 4 candidates and 4 repairs at once, 4 reviews in turn, on a repository never "
        "seen; no tests, no git",
    ),
    Measure(
        key="workflow_read",
        title="prompt tokens computed for them",
        unit="tokens",
        how="as the server counts them; an old Ollama counts cached ones, too",
    ),
    Measure(
        key="run",
        title="a whole run",
        unit="s",
        how="`turbo run` of the task from the start of the server to the commit, without the start "
        "of Python; prefixes and probes of earlier runs are kept",
    ),
    Measure(
        key="server_memory",
        title="memory of the server",
        unit="MiB",
        how="resident memory of its processes after this work, mapped weights included; memory of "
        "a GPU is not in it",
    ),
    Measure(
        key="own_memory",
        title="memory of our process",
        unit="MiB",
        how="resident memory of the process that asks, benchmark included; after a whole run where "
        "there is one",
    ),
)
BY_KEY = {measure.key: measure for measure in MEASURES}


@dataclass(frozen=True)
class Spread:
    """Several values of one figure."""

    values: tuple[float, ...]
    """In the order in which they were measured; at least one."""

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The least."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The greatest."""
        return max(self.values)


Verdict = Literal["faster", "no difference within the spread", "slower"]

_NOTHING = 0.01
"""Part of a median; less is of no use to anybody, however sure."""


def gains(base: Spread, other: Spread, *, higher_is_better: bool) -> Spread:
    """How many times better `other` is than `base`, within each pair of neighbours: whatever the
    machine did meanwhile hit both."""
    pairs = zip(base.values, other.values, strict=False)
    ratios = (y / x if higher_is_better else x / y for x, y in pairs if x > 0 and y > 0)
    return Spread(tuple(ratios))


def verdict(base: Spread, other: Spread, *, higher_is_better: bool) -> Verdict:
    """What `other` is against `base`: a difference counts when every value of one side is better
    than every value of the other, and the medians are more than 1% apart."""
    better, worse = (base, other), (other, base)
    if abs(other.median - base.median) <= _NOTHING * base.median:
        return "no difference within the spread"
    faster, slower = (better, worse) if higher_is_better else (worse, better)
    if faster[0].high < faster[1].low:
        return "faster"
    return "slower" if slower[0].high < slower[1].low else "no difference within the spread"


def extrapolated(unit: Unit, few: float, many: float, *, layers: tuple[int, int, int]) -> float:
    """The figure of a model with ``layers[2]`` layers from those with ``layers[0]`` and
    ``layers[1]``, by a straight line: seconds, bytes and the seconds per token of a rate have a
    part that is always there and one that every layer adds. Never below what was measured."""
    first, second, whole = layers
    if unit == "tokens/s":
        few, many = 1 / few, 1 / many
    each = max(0.0, (many - few) / (second - first))
    there = many + each * (whole - second)
    return 1 / there if unit == "tokens/s" else there


def of_whole(
    unit: Unit, few: Spread, many: Spread, *, layers: tuple[int, int, int]
) -> Spread | None:
    """`extrapolated` for each repetition; None where one of the two has no values. Prompt tokens
    do not depend on layers."""
    if unit == "tokens":
        return many
    pairs: Sequence[tuple[float, float]] = list(zip(few.values, many.values, strict=False))
    if not pairs or any(min(pair) <= 0 for pair in pairs):
        return None
    return Spread(tuple(extrapolated(unit, x, y, layers=layers) for x, y in pairs))
