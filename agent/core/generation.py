"""One running generation: what its events add up to."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic
from typing import Literal

from agent.core.backend_manager import OnProgress, Progress, Reply, Timing, Usage
from agent.core.llamacpp_wire import Event, Final, Piece, Prefill
from agent.core.prefixes import PrefixUse
from agent.core.repetition import RepetitionWatch
from agent.core.slots import Lease


@dataclass(kw_only=True)
class Generation:
    """What is known of one running request; keeps the lease's book as it goes."""

    ids: list[int]
    lease: Lease
    sent_at: float
    ahead: PrefixUse = field(default_factory=PrefixUse)
    """What was computed for this request before it was sent: its own cost all the same."""
    text: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    predicted: int = 0
    processed: int = 0
    cached: int = 0
    first_token_at: float | None = None
    final: Final | None = None
    watch: RepetitionWatch = field(default_factory=RepetitionWatch)

    def take(self, event: Event, report: OnProgress) -> bool:
        """Account for one event. False when the rest is not worth having."""
        match event:
            case Piece():
                if self.first_token_at is None:
                    self.first_token_at = monotonic()
                self.text.append(event.text)
                self.tokens += event.tokens
                self.predicted = event.predicted
                self.processed = len(self.ids)
                self._report(report, "decode", event.predicted)
                return not self.watch.feed(event.text)
            case Prefill():
                self.cached = self._not_ours(event.cached)
                self.processed = event.done
                self._report(report, "prefill", event.done)
            case Final():
                self.text.append(event.text)
                self.predicted = event.predicted
                self.final = event
                self.lease.idle = True
        return True

    def reply(self, *, seed: int, queued_s: float) -> Reply:
        """The whole answer, after the last event or after a loop was cut."""
        final = self.final
        now = monotonic()
        first = self.first_token_at if self.first_token_at is not None else now
        prompt = len(self.ids)
        if final is not None:
            told = final.cached if final.cached is not None else prompt - final.computed
            self.cached = self._not_ours(told)
        # The last prompt token is always computed: its output is the first token of the answer.
        expected = self._not_ours(min(self.lease.expected_cached, prompt - 1))
        return Reply(
            text="".join(self.text),
            finish="length" if final is None or final.cut else "stop",
            usage=Usage(
                prompt=prompt,
                computed=prompt - self.cached,
                cached=self.cached,
                expected_cached=expected,
                predicted=self.predicted,
                drafted=final.drafted if final else 0,
                accepted=final.accepted if final else 0,
            ),
            timing=Timing(
                queued_s=queued_s,
                first_token_s=first - self.sent_at,
                prefill_s=final.prefill_s + self.ahead.seconds if final else first - self.sent_at,
                decode_s=final.decode_s if final else now - first,
            ),
            seed=seed,
            slot=self.lease.slot,
        )

    def held(self) -> list[int]:
        """Tokens that the slot's cache holds by what was seen so far."""
        # The newest token is in the cache only once the next one is computed.
        return self.ids[: self.processed] + self.tokens[:-1]

    def _not_ours(self, cached: int) -> int:
        """Cached tokens without those that were computed for this very request."""
        return max(0, cached - self.ahead.computed)

    def _report(self, report: OnProgress, phase: Literal["prefill", "decode"], done: int) -> None:
        report(
            Progress(
                phase=phase,
                slot=self.lease.slot,
                prompt=len(self.ids),
                done=done,
                cached=self.cached,
            )
        )
