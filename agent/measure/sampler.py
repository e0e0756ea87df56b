"""Measurements of configurations, one after the other, within the time that there is."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace

from agent.core.errors import EngineError, SettingsError
from agent.core.prompt_encoder import PromptEncoder
from agent.measure.configuration import DEFAULT, Configuration
from agent.measure.copy_prompt import CopyPrompt, copy_prompt
from agent.measure.lengths import LONG_ENOUGH_TO_COPY, PROBE, Lengths, lengths_for
from agent.measure.score import Mix, mix_of, seconds
from agent.measure.server_pool import OpenServer, ServerPool
from agent.measure.traffic import encode
from agent.measure.tuning import Sample, Tuning, Watch

_PART = 120
"""One part in so many of the budget, less the start-ups, is what a short measurement gives to each
rate."""
_LEAST = 0.5
"""Of the budget for measuring, however long start-ups take."""
_TOO_SLOW = 3
"""Times as long as the default: no gain elsewhere makes up for that."""
_TELLING = 24
"""Tokens of an answer that show whether it copies."""
_WARM_TOKENS = 16
_SPARE = 1.3
"""A measurement may take so much longer than the last one did."""


class _TooSlowError(Exception):
    """A measurement took too long to go on with it."""


class Sampler:
    """Fills a tuning with samples."""

    def __init__(self, tuning: Tuning, pool: ServerPool, budget_s: float, watch: Watch) -> None:
        """The time ends `budget_s` seconds from now."""
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
        self.copies = False
        """The model does what the prompt asks for."""

    @property
    def prompt_tokens(self) -> int:
        """Of the prompt on which all are measured."""
        return len(self._prompt.ids)

    async def begin(self, candidates: int, servers: int) -> None:
        """Find out how fast the default is and how long measurements may be, for a workflow with
        so many candidates and so many servers to be started; and measure the default.

        Raises an EngineError."""
        opened = await self._opened(DEFAULT)
        self._tuning.description = opened.server.description
        async with AsyncExitStack() as stack:
            served = await opened.client.props()
            encoder = PromptEncoder(opened.client, bos=served.bos)
            stack.push_async_callback(encoder.aclose)
            await encoder.learn()
            stages, _ = await encode(encoder)
            self._mix = mix_of(stages, candidates)
            self._prompt = await copy_prompt(encoder, PROBE.prompt)
            rates, _ = await opened.measured.measure(self._prompt.ids, PROBE)
            measuring_s = self._budget_s - servers * self._start_s
            each_s = max(self._budget_s * _LEAST, measuring_s) / _PART
            lengths = lengths_for(rates, each_s, served.context)
            self._prompt = await copy_prompt(encoder, lengths.prompt)
        self._tuning.lengths = replace(lengths, together=max(lengths.together, _TELLING))
        self.copies = self._prompt.is_copied_by(await self.sample("first", DEFAULT))
        self._tuning.lengths = lengths

    def affords(self, configuration: Configuration, *, more: int) -> bool:
        """Whether there is time to measure it and then `more` times on servers that are open."""
        start_s = 0.0 if self._pool.is_open(configuration) else self._start_s
        usual_s = self._cost_s[DEFAULT]
        each_s = usual_s + (self._start_s if self._pool.crowded else 0.0)
        own_s = self._cost_s.get(configuration, usual_s * self._longer(configuration))
        needed_s = start_s + own_s + more * each_s
        return time.monotonic() + needed_s * _SPARE < self._ends_at

    async def attempt(self, name: str, configuration: Configuration) -> None:
        """A sample, or a reason why there is none."""
        try:
            limit_s = _TOO_SLOW * self._cost_s[DEFAULT] * self._longer(configuration)
            await self.sample(name, configuration, limit_s)
        except (EngineError, SettingsError) as error:
            reason = error.message.splitlines()[0]
        except _TooSlowError:
            reason = f"given up: it takes more than {_TOO_SLOW} times as long as the default"
        else:
            return
        self._tuning.refused[configuration] = reason
        self._watch(name, configuration, reason)
        await self._pool.close(configuration)

    async def sample(
        self, name: str, configuration: Configuration, limit_s: float | None = None
    ) -> str:
        """Measure once, for `limit_s` seconds at the most; what the model wrote.

        Raises an EngineError or SettingsError."""
        self._watch(name, configuration, None)
        opened = await self._opened(configuration)
        began = time.monotonic()
        try:
            async with asyncio.timeout(limit_s) as limit:
                lengths = self._lengths(configuration)
                rates, answer = await opened.measured.measure(self._prompt.ids, lengths)
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

    def _lengths(self, configuration: Configuration) -> Lengths:
        """As for all, but speculation drafts only after some tokens."""
        lengths = self._tuning.lengths
        if "llamacpp_speculation" not in configuration.values:
            return lengths
        return replace(lengths, together=max(lengths.together, LONG_ENOUGH_TO_COPY))

    def _longer(self, configuration: Configuration) -> float:
        """How many times as long the answers of this one are."""
        return self._lengths(configuration).together / self._tuning.lengths.together

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
