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
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import psutil

from agent.core.config import Settings
from agent.core.errors import EngineError, SettingsError
from agent.core.prompt_encoder import PromptEncoder
from agent.measure.configuration import DEFAULT, Configuration, Space
from agent.measure.copy_prompt import CopyPrompt, copy_prompt
from agent.measure.lengths import LONG_ENOUGH_TO_COPY, PROBE, Lengths, lengths_for
from agent.measure.score import Mix, mix_of, seconds
from agent.measure.search import (
    better_half,
    gains,
    is_clear,
    second_round,
    verdict,
    worth_another_look,
)
from agent.measure.server_pool import OpenServer, ServerPool
from agent.measure.traffic import encode
from agent.measure.tuning import Sample, Tuning, Watch

_PART = 120
"""One part in so many of the budget is what a short measurement gives to each rate."""
_PAIRS, _MOST_PAIRS = 2, 7
_TOO_SLOW = 3
"""Times as long as the default: no gain elsewhere makes up for that."""
_NO_TIME = "there was no time for it"
_MORE = "Give more with --budget."
_WARM_TOKENS = 16
_SPARE = 1.3
"""A measurement may take so much longer than the last one did."""


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
        search = _Search(settings, tuning, pool, budget_s, watch)
        try:
            async with asyncio.timeout(budget_s) as limit:
                await search.run(space)
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


class _TooSlowError(Exception):
    """A measurement took too long to go on with it."""


class _Search:
    """One tuning under way."""

    def __init__(
        self, settings: Settings, tuning: Tuning, pool: ServerPool, budget_s: float, watch: Watch
    ) -> None:
        self._settings = settings
        self._tuning = tuning
        self._pool = pool
        self._budget_s = budget_s
        self._ends_at = time.monotonic() + budget_s
        self._watch = watch
        self._mix: Mix = ()
        self._prompt = CopyPrompt([], "")
        self._cost_s: dict[Configuration, float] = {}
        """Of the last measurement."""
        self._start_s = 0.0
        """Of the longest start-up."""
        self._pairs: list[tuple[float, float]] = []

    async def run(self, space: Space) -> None:
        """Everything until the verdict."""
        variants = await self._begin(space.variants)
        await self._first_round(variants)
        found = second_round(variants, gains(self._tuning.measured("first")))
        finalist = await self._halve(found) if found else None
        if finalist is None:
            self._conclude_without()
            return
        await self._next_to_the_default(finalist)

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

    async def _begin(self, variants: Sequence[Configuration]) -> list[Configuration]:
        """Find out how fast the default is and how long measurements may be; the variants that can
        be told apart then."""
        opened = await self._opened(DEFAULT)
        self._tuning.description = opened.server.description
        async with AsyncExitStack() as stack:
            served = await opened.client.props()
            encoder = PromptEncoder(opened.client, bos=served.bos)
            stack.push_async_callback(encoder.aclose)
            await encoder.learn()
            stages, _ = await encode(encoder)
            self._mix = mix_of(stages, self._settings.turbo_candidates)
            self._prompt = await copy_prompt(encoder, PROBE.prompt)
            rates, _ = await opened.measured.measure(self._prompt.ids, PROBE)
            each_s = self._budget_s / _PART
            lengths = lengths_for(rates, each_s, served.context)
            self._prompt = await copy_prompt(encoder, lengths.prompt)
        self._tuning.lengths = lengths
        answer = await self._sample("first", DEFAULT)
        if self._prompt.is_copied_by(answer):
            longer = max(lengths.together, LONG_ENOUGH_TO_COPY)
            self._tuning.lengths = replace(lengths, together=longer)
            self._cost_s[DEFAULT] *= longer / lengths.together
        return self._telling(variants, copies=self._prompt.is_copied_by(answer))

    def _telling(self, variants: Sequence[Configuration], *, copies: bool) -> list[Configuration]:
        """Those of which a measurement tells something."""
        chosen = []
        for each in variants:
            batch = each.values.get("llamacpp_ubatch_size", 0)
            if "llamacpp_speculation" in each.values and not copies:
                self._tuning.unmeasured[each] = (
                    "this model does not copy a file when it is told to, so that a gain would say "
                    "nothing about work"
                )
            elif batch * 2 > len(self._prompt.ids):
                self._tuning.unmeasured[each] = (
                    f"a prompt of {len(self._prompt.ids)} tokens, which is what time allows, does "
                    "not tell it apart"
                )
            else:
                chosen.append(each)
        return chosen

    async def _first_round(self, variants: Sequence[Configuration]) -> None:
        """Each variant once, and what that did not rule out once more."""
        missed = await self._in_turn("first", variants)
        self._tuning.unmeasured.update(dict.fromkeys(missed, _NO_TIME))
        promising = worth_another_look(gains(self._tuning.measured("first")))
        await self._in_turn("first", promising)

    async def _in_turn(
        self, name: str, configurations: Sequence[Configuration]
    ) -> Sequence[Configuration]:
        """Measure each once, the default between and after them; those for which there was no
        time."""
        missed: Sequence[Configuration] = ()
        for number, each in enumerate(configurations):
            if not self._affords(each, more=2 * _PAIRS + 1):
                missed = configurations[number:]
                break
            await self._try(name, each)
            if number % 2 == 1:
                await self._sample(name, DEFAULT)
        if self._tuning.samples[-1].configuration != DEFAULT:
            await self._sample(name, DEFAULT)
        return missed

    async def _halve(self, configurations: Sequence[Configuration]) -> Configuration | None:
        """The best of these after rounds in which the better half is measured again, and more often
        than before; None when none of them is faster than the default."""
        left, number = list(configurations), 2
        known = gains(self._tuning.measured("first"))
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
        self._tuning.winner = finalist
        while len(self._pairs) < _MOST_PAIRS:
            if len(self._pairs) >= _PAIRS and not self._affords(finalist, more=1):
                break
            if len(self._pairs) > _PAIRS and is_clear(self._pairs):
                break
            await self._sample("last", DEFAULT)
            await self._try("last", finalist)
            if reason := self._tuning.refused.get(finalist):
                self._tuning.why = f"The default stays. {finalist.label}: {reason}."
                return
            default, other = self._tuning.samples[-2:]
            self._pairs.append((default.seconds, other.seconds))
        self._conclude()

    def _conclude_without(self) -> None:
        """Nothing is worth being measured next to the default."""
        tuning = self._tuning
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

    async def _try(self, name: str, configuration: Configuration) -> None:
        """A sample, or a reason why there is none."""
        try:
            await self._sample(name, configuration, limit_s=_TOO_SLOW * self._cost_s[DEFAULT])
        except (EngineError, SettingsError) as error:
            reason = error.message.splitlines()[0]
        except _TooSlowError:
            reason = f"given up: it takes more than {_TOO_SLOW} times as long as the default"
        else:
            return
        self._tuning.refused[configuration] = reason
        self._watch(name, configuration, reason)
        await self._pool.close(configuration)

    async def _sample(
        self, name: str, configuration: Configuration, limit_s: float | None = None
    ) -> str:
        """Measure once, for `limit_s` seconds at the most; what the model wrote."""
        self._watch(name, configuration, None)
        opened = await self._opened(configuration)
        began = time.monotonic()
        try:
            async with asyncio.timeout(limit_s) as limit:
                measured = opened.measured.measure(self._prompt.ids, self._tuning.lengths)
                rates, answer = await measured
        except TimeoutError:
            if limit.expired():
                raise _TooSlowError from None
            raise
        self._cost_s[configuration] = time.monotonic() - began
        sample = Sample(
            round=name,
            configuration=configuration,
            rates=rates,
            seconds=seconds(self._mix, rates),
        )
        self._tuning.samples.append(sample)
        self._watch(name, configuration, sample)
        return answer

    async def _opened(self, configuration: Configuration) -> OpenServer:
        if self._pool.is_open(configuration):
            return await self._pool.get(configuration)
        began = time.monotonic()
        opened = await self._pool.get(configuration)
        # The first answers of a server are slow, of one that does not warm up itself very much so.
        few = Lengths(prompt=_WARM_TOKENS, single=4, together=4)
        await opened.measured.measure(self._prompt.ids[:_WARM_TOKENS] or [1], few)
        self._start_s = max(self._start_s, time.monotonic() - began)
        return opened

    def _affords(self, configuration: Configuration, *, more: int) -> bool:
        """Whether there is time to measure it and then `more` times on servers that are open."""
        start_s = 0.0 if self._pool.is_open(configuration) else self._start_s
        usual_s = self._cost_s[DEFAULT]
        each_s = usual_s + (self._start_s if self._pool.crowded else 0.0)
        needed_s = start_s + self._cost_s.get(configuration, usual_s) + more * each_s
        return time.monotonic() + needed_s * _SPARE < self._ends_at
