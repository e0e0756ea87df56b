"""Prompts to token ids, each prompt once.

All candidates of a step send the same prompt, and the two round trips (chat template, tokenizer)
cost as much as everything else that we add to a request.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from agent.core.llamacpp_client import LlamaCppClient
from agent.core.prompts import Prompt

_REMEMBERED = 64
"""Prompts; a few MB at the most."""


class PromptEncoder:
    """The server's chat template and tokenizer, with a memory."""

    def __init__(self, client: LlamaCppClient, *, bos: str) -> None:
        self._client = client
        self._bos_text = bos
        self._known: OrderedDict[Prompt, asyncio.Task[list[int]]] = OrderedDict()

    async def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of the whole prompt, BOS included where the model wants one."""
        task = self._known.get(prompt)
        if task is None:
            task = asyncio.create_task(self._fetch(prompt))
            self._known[prompt] = task
            task.add_done_callback(lambda done: self._forget_failure(prompt, done))
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(prompt)
        # Shielded: of several who wait for the same prompt, one may be cancelled.
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """Stop what is under way."""
        tasks = [task for task in self._known.values() if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, prompt: Prompt) -> list[int]:
        text = await self._client.apply_template(prompt.messages)
        ids = await self._client.tokenize(text, add_special=True)
        # A template that writes BOS itself, on a build that does not strip it, would double it.
        if len(ids) > 1 and ids[0] == ids[1] and ids[0] == await self._bos_id():
            return ids[1:]
        return ids

    async def _bos_id(self) -> int | None:
        if not self._bos_text:
            return None
        ids = await self._client.tokenize(self._bos_text, add_special=False)
        return ids[0] if len(ids) == 1 else None

    def _forget_failure(self, prompt: Prompt, task: asyncio.Task[list[int]]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._known.pop(prompt, None)
