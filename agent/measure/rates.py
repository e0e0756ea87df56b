"""How fast one open server reads and writes, measured with requests like those of a workflow.

One slot reads the whole prompt and writes alone; then all slots write at the same time from the
same prompt, which is not read again. Every answer has a fixed length, so that configurations are
compared at the same work.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.core.errors import BackendError, BackendUnavailable, RequestRefused
from agent.core.llamacpp_client import LlamaCppClient
from agent.core.llamacpp_wire import Final, Piece
from agent.core.sampling import CODING, Sampling, candidate_sampling
from agent.measure.lengths import Lengths, Rates

_WILD = replace(CODING, temperature=3.0, top_p=1.0)
"""Text that hardly ever repeats itself, so that what one stream writes is no gift to speculation; a
smaller nucleus would leave a loop the likeliest."""


@dataclass(frozen=True)
class _Answer:
    final: Final
    pieces: list[tuple[float, int]]
    """When a piece came, and tokens of the answer until then."""
    text: str


class Measured:
    """An open server that can be measured again and again."""

    def __init__(self, client: LlamaCppClient, *, slots: int, slot_dir: Path | None) -> None:
        """`slot_dir` is where the server saves slots; None when it saves none."""
        self._client = client
        self._slots = slots
        self._slot_dir = slot_dir

    async def measure(self, ids: Sequence[int], lengths: Lengths) -> tuple[Rates, str]:
        """The rates on the prompt `ids`, and what the first slot made of it at the lowest
        temperature. Raises a BackendError or ServerError."""
        prompt = list(ids)
        alone = await self._ask(prompt, 0, lengths.single, _WILD, cached=False)
        await self._hand_over()
        answers = await asyncio.gather(
            *(
                self._ask(prompt, slot, lengths.together, candidate_sampling(slot, seed=1))
                for slot in range(self._slots)
            )
        )
        rates = Rates(
            prefill=alone.final.computed / alone.final.prefill_s,
            # The first token comes of the prompt.
            single=(alone.final.predicted - 1) / alone.final.decode_s,
            together=_together(answers),
            slots=self._slots,
        )
        return rates, answers[0].text

    async def _hand_over(self) -> None:
        """Fill the other slots from the first. Where that is not possible they read the prompt,
        which takes longer and does not count."""
        if self._slot_dir is None or self._slots == 1:
            return
        file = f"new-tune-{secrets.token_hex(8)}.kv"
        try:
            with contextlib.suppress(RequestRefused):
                await self._client.save_slot(0, file)
                for slot in range(1, self._slots):
                    await self._client.restore_slot(slot, file)
        finally:
            (self._slot_dir / file).unlink(missing_ok=True)

    async def _ask(
        self, prompt: list[int], slot: int, tokens: int, sampling: Sampling, *, cached: bool = True
    ) -> _Answer:
        body: dict[str, Any] = {
            "prompt": prompt,
            "id_slot": slot,
            "n_predict": tokens,
            "ignore_eos": True,
            "cache_prompt": cached,
            "stream": True,
            "seed": sampling.seed,
            "samplers": ["top_k", "top_p", "temperature"],
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "temperature": sampling.temperature,
        }
        pieces, text = [], ""
        async with self._client.completion(body, answer=tokens) as events:
            async for event in events:
                if isinstance(event, Piece):
                    pieces.append((time.perf_counter(), event.predicted))
                    text += event.text
                elif isinstance(event, Final):
                    pieces.append((time.perf_counter(), event.predicted))
                    if event.predicted < 2 or event.decode_s <= 0 or event.prefill_s <= 0:
                        raise BackendError(f"An answer of {event.predicted} tokens came untimed.")
                    return _Answer(event, pieces, text + event.text)
        raise BackendUnavailable("The server ended a stream before the answer was complete.")


def _together(answers: Sequence[_Answer]) -> float:
    """Tokens per second while every one of the streams was writing."""
    began = max(answer.pieces[0][0] for answer in answers)
    ended = min(answer.pieces[-1][0] for answer in answers)
    tokens = 0
    for answer in answers:
        counts = [count for at, count in answer.pieces if began <= at <= ended]
        tokens += counts[-1] - counts[0] if counts else 0
    if tokens > 0 and ended > began:
        return tokens / (ended - began)
    # They did not overlap: what all of it took.
    whole = max(x.pieces[-1][0] for x in answers) - min(x.pieces[0][0] for x in answers)
    return sum(x.final.predicted - 1 for x in answers) / max(whole, 1e-6)
