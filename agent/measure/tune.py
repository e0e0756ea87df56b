"""`turbo tune`: find the fastest way to start the server by measuring, within a budget of time.

First the default, then what differs from it in one respect, then what has won put together, each
round in turn on servers that stay open; at last the winner next to the default. Everything ends
when the budget does: what is under way then is given up.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from agent.core.config import Settings
from agent.measure.configuration import DEFAULT, Configuration, Space
from agent.measure.sampler import Sampler
from agent.measure.search import (
    COUNTS,
    better_half,
    gains,
    is_clear,
    second_round,
    verdict,
    worth_another_look,
)
from agent.measure.server_pool import ServerPool
from agent.measure.tuning import Tuning, Watch

_PAIRS, _MOST_PAIRS = 2, 7
_NO_TIME = "there was no time for it"
_MORE = "Give more with --budget."


async def tune(
    settings: Settings,
    space: Space,
    *,
    budget_s: float,
    watch: Watch,
    log_dir: Path,
) -> Tuning:
    """Measure within `budget_s` seconds. Raises an EngineError when the default cannot be measured.

    What was found until the end of the budget is returned; nothing is stored here."""
    tuning = Tuning(left_out=dict(space.left_out))
    began, others_s = time.monotonic(), _cpu_of_others()
    async with ServerPool(settings, log_dir=log_dir) as pool:
        search = _Search(tuning, Sampler(tuning, pool, budget_s, watch))
        try:
            async with asyncio.timeout(budget_s) as limit:
                await search.run(space, settings.turbo_candidates)
        except TimeoutError:
            if not limit.expired():
                raise
            search.ran_out()
    tuning.took_s = time.monotonic() - began
    tuning.others = max(0.0, _cpu_of_others() - others_s) / tuning.took_s
    return tuning


def _cpu_of_others() -> float:
    """CPU seconds since the start of the machine, without those of this program and its servers
    that have ended."""
    now, ours = psutil.cpu_times(), os.times()
    return now.user + now.nice + now.system - sum(ours[:4])


class _Search:
    """One tuning under way."""

    def __init__(self, tuning: Tuning, sampler: Sampler) -> None:
        self._tuning = tuning
        self._sampler = sampler
        self._pairs: list[tuple[float, float]] = []
        """Seconds of the default and of the finalist."""
        self._finals = 0

    async def run(self, space: Space, candidates: int) -> None:
        """Everything until the verdict; what there was no time for follows when the finalist has
        lost sooner than that was to be expected."""
        await self._sampler.begin(candidates, len(space.variants))
        waiting = self._telling(space.variants)
        self._tuning.unmeasured.update(dict.fromkeys(waiting, _NO_TIME))
        while True:
            missed = await self._in_turn("first", waiting, every=True)
            tried = [each for each in waiting if each not in missed]
            finalist = self._best(tried) if missed else await self._halve(tried)
            if finalist is not None:
                await self._next_to_the_default(finalist)
            elif not missed or not tried:
                self._conclude_without()
            if self._tuning.improved or not missed or not tried:
                return
            waiting = list(missed)

    def ran_out(self) -> None:
        """Conclude from what there is."""
        tuning = self._tuning
        if tuning.why:
            return
        if len(self._pairs) >= _PAIRS:
            self._conclude()
        elif tuning.winner != DEFAULT:
            tuning.why = (
                f"The time was not enough to measure {tuning.winner.label} next to the default. "
                + _MORE
            )
        else:
            tuning.why = f"The time was not enough to compare anything with the default. {_MORE}"

    def _telling(self, variants: Sequence[Configuration]) -> list[Configuration]:
        """Those of which a measurement tells something."""
        chosen = []
        for each in variants:
            batch = each.values.get("llamacpp_ubatch_size", 0)
            if "llamacpp_speculation" in each.values and not self._sampler.copies:
                self._tuning.unmeasured[each] = (
                    "this model does not copy a file when it is told to, so that a gain would say "
                    "nothing about work"
                )
            elif batch * 2 > self._sampler.prompt_tokens:
                self._tuning.unmeasured[each] = (
                    f"a prompt of {self._sampler.prompt_tokens} tokens, which is what time allows, "
                    "does not tell it apart"
                )
            else:
                chosen.append(each)
        return chosen

    def _known(self, configurations: Sequence[Configuration]) -> dict[Configuration, float]:
        """The gains of these in the first round."""
        found = gains(self._tuning.measured("first"))
        return {each: found[each] for each in configurations if each in found}

    def _best(self, configurations: Sequence[Configuration]) -> Configuration | None:
        """The one of these that is next to be measured beside the default; None when a single
        measurement of each promises nothing."""
        promising = {x: gain for x, gain in self._known(configurations).items() if gain > COUNTS}
        return max(promising, key=lambda each: promising[each], default=None)

    async def _in_turn(
        self, name: str, configurations: Sequence[Configuration], *, every: bool = False
    ) -> Sequence[Configuration]:
        """Measure each once, the default between and after them; those for which there was no
        time. Some is kept for the pairs; for a first look at `every` one only while one of them
        promises a gain."""
        missed: Sequence[Configuration] = ()
        if every and self._tuning.samples[-1].configuration != DEFAULT:
            await self._sampler.sample(name, DEFAULT)
        for number, each in enumerate(configurations):
            keeps = not every or self._best(configurations) is not None
            if not self._sampler.affords(each, more=2 * _PAIRS + 1 if keeps else 1):
                missed = configurations[number:]
                break
            await self._sampler.attempt(name, each)
            self._tuning.unmeasured.pop(each, None)
            if number % 2 == 1:
                await self._sampler.sample(name, DEFAULT)
        if self._tuning.samples[-1].configuration != DEFAULT:
            await self._sampler.sample(name, DEFAULT)
        return missed

    async def _halve(self, variants: Sequence[Configuration]) -> Configuration | None:
        """The best of these and what has won put together, after another look and rounds in which
        the better half is measured again, and more often than before; None when none of them is
        faster than the default."""
        await self._in_turn("first", worth_another_look(self._known(variants)))
        known = self._known(variants)
        left, number = second_round(variants, known), 2
        if not left:
            return None
        while len(left) > 1 or left[0] not in known:
            name = f"round {number}"
            for _ in range(number):
                left = [each for each in left if each not in self._tuning.refused]
                if await self._in_turn(name, left):
                    break
            known |= gains(self._tuning.measured(name))
            left = better_half(left, known)
            if not left:
                return None
            number += 1
        return left[0]

    async def _next_to_the_default(self, finalist: Configuration) -> None:
        """Both in turn, as often as the budget allows."""
        self._finals += 1
        name = "last" if self._finals == 1 else f"last, {self._finals}"
        self._pairs = []
        self._tuning.winner, self._tuning.verdict, self._tuning.why = finalist, None, ""
        while len(self._pairs) < _MOST_PAIRS:
            if len(self._pairs) >= _PAIRS and not self._sampler.affords(finalist, more=1):
                break
            if len(self._pairs) > _PAIRS and is_clear(self._pairs):
                break
            await self._sampler.sample(name, DEFAULT)
            await self._sampler.attempt(name, finalist)
            if reason := self._tuning.refused.get(finalist):
                self._tuning.why = f"The default stays. {finalist.label}: {reason}."
                return
            default, other = self._tuning.samples[-2:]
            self._pairs.append((default.seconds, other.seconds))
        self._conclude()

    def _conclude_without(self) -> None:
        """Nothing is worth being measured next to the default, or nothing more."""
        tuning = self._tuning
        if tuning.why:
            return
        tuning.finished = _NO_TIME not in tuning.unmeasured.values()
        if tuning.finished:
            tuning.why = "Nothing was faster than the default."
        elif len({sample.configuration for sample in tuning.samples}) > 1:
            tuning.why = f"Nothing of what there was time for was faster than the default. {_MORE}"
        else:
            tuning.why = f"The time was enough for the default only. {_MORE}"

    def _conclude(self) -> None:
        tuning = self._tuning
        tuning.verdict = verdict(tuning.winner, self._pairs)
        tuning.finished = True
        if tuning.verdict.holds:
            tuning.why = f"{tuning.winner.label}: {tuning.verdict.why}."
        else:
            tuning.why = f"The default stays. {tuning.winner.label}: {tuning.verdict.why}."
