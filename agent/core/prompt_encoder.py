"""Prompts to token ids, each prompt once, with as few round trips as can be.

A round trip costs as much as everything else that we add to a request. So a prompt that is asked
for again (all candidates of a step send the same one) is remembered, and what the model's chat
template puts around two messages is learned once instead of being asked for per prompt.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from agent.core.llamacpp_client import LlamaCppClient
from agent.core.prompts import Prompt
from agent.core.slots import common_prefix

_REMEMBERED = 64
"""Prompts; a few MB at the most."""

_PROBES = (
    Prompt('A{"s": 1}\n\n <y> é', "B{{u}}\n\n\tif a < b & c:\n", "", "    'x'  \\n"),
    Prompt("Zz", "1\n# <!-- ? -->\n\n", "", "%s"),
)
"""What a template could escape, collapse or rewrite. They neither begin nor end with white space:
many templates strip that, which `ChatFrame.render` leaves to them."""


@dataclass(frozen=True)
class ChatFrame:
    """What a chat template writes before, between and after one system and one user message."""

    before: str
    between: str
    after: str

    def render(self, prompt: Prompt) -> str | None:
        """The same text as the template's, or None where only the template itself can tell."""
        system, user = prompt.system, prompt.user
        if system != system.strip() or user != user.strip() or not (system and user):
            return None
        return f"{self.beginning(prompt)}{prompt.role}{prompt.volatile}{self.after}"

    def beginning(self, prompt: Prompt) -> str:
        """What all prompts with the same system and shared part begin with."""
        return f"{self.before}{prompt.system}{self.between}{prompt.shared}"

    @classmethod
    def around(cls, prompt: Prompt, rendered: str) -> ChatFrame | None:
        """The frame in which `rendered` shows the messages of `prompt`; None where it changed
        them or has them not exactly once."""
        before, system, rest = rendered.partition(prompt.system)
        between, user, after = rest.partition(prompt.user)
        frame = cls(before, between, after)
        return frame if system and user and frame.render(prompt) == rendered else None


@dataclass(frozen=True)
class Encoded:
    """A prompt as the server reads it."""

    ids: list[int]
    """Token ids of the whole prompt, BOS included where the model wants one."""
    shared: int
    """How many of them every prompt with the same system and shared part begins with."""


class PromptEncoder:
    """The server's chat template and tokenizer, with a memory."""

    def __init__(self, client: LlamaCppClient, *, bos: str) -> None:
        self._client = client
        self._bos = bos
        self._known: OrderedDict[Prompt, asyncio.Task[Encoded]] = OrderedDict()
        self._shared: dict[tuple[str, str], list[int]] = {}
        self._frame: ChatFrame | None = None

    async def learn(self) -> None:
        """Learn the frame of the server's chat template. Without it every prompt is rendered by
        the server, as it is when the template treats different texts differently."""
        frames = {
            ChatFrame.around(probe, await self._client.apply_template(probe.messages))
            for probe in _PROBES
        }
        self._frame = frames.pop() if len(frames) == 1 else None

    async def encode(self, prompt: Prompt) -> Encoded:
        """The prompt's tokens. Raises a BackendError."""
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

    async def _fetch(self, prompt: Prompt) -> Encoded:
        text = self._frame.render(prompt) if self._frame is not None else None
        if text is None:
            text = await self._client.apply_template(prompt.messages)
        ids = await self._tokens(text)
        return Encoded(ids, common_prefix(ids, await self._shared_tokens(prompt)))

    async def _shared_tokens(self, prompt: Prompt) -> Sequence[int]:
        """Tokens of the shared part alone. A token at its end may differ from the one that the
        whole prompt has there, so only what both have in common is a prefix."""
        if not prompt.shared:
            return ()
        key = (prompt.system, prompt.shared)
        if key not in self._shared:
            self._shared.clear()  # a session serves one repository and task at a time
            if self._frame is not None:
                text = self._frame.beginning(prompt)
            else:
                alone = Prompt(prompt.system, prompt.shared, "", "")
                text = await self._client.apply_template(alone.messages)
            self._shared[key] = await self._tokens(text)
        return self._shared[key]

    async def _tokens(self, text: str) -> list[int]:
        ids = await self._client.tokenize(text, add_special=True)
        # A template that writes BOS itself, on a build that does not strip it, would double it.
        if len(ids) > 1 and ids[0] == ids[1] and ids[0] == await self._bos_id():
            return ids[1:]
        return ids

    async def _bos_id(self) -> int | None:
        if not self._bos:
            return None
        ids = await self._client.tokenize(self._bos, add_special=False)
        return ids[0] if len(ids) == 1 else None

    def _forget_failure(self, prompt: Prompt, task: asyncio.Task[Encoded]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._known.pop(prompt, None)
