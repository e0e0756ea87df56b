"""Prompts to token ids, each prompt once, with as few round trips as can be.

A round trip costs as much as everything else that we add to a request. So a prompt that is asked
for again (all candidates of a step send the same one) is remembered, and what the model's chat
template puts around two messages is learned once instead of being asked for per prompt.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.core.llamacpp_client import LlamaCppClient
from agent.core.prompts import Prompt
from agent.core.token_prefix import common_prefix

_REMEMBERED = 64
"""Prompts; a few MB at the most."""

_BEGINNINGS = 16
"""Parts of prompts that are remembered: of one task, one and one per role."""

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
        return f"{self.beginning(prompt)}{self.after}"

    def beginning(self, prompt: Prompt) -> str:
        """The same without what the template writes after the user's message."""
        return f"{self.before}{prompt.system}{self.between}{prompt.user}"

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
    shared: int = 0
    """How many of them every prompt with the same system and shared part begins with; 0 where
    nobody wants to know."""
    role: int = 0
    """The same with the role's fixed part."""


class PromptEncoder:
    """The server's chat template and tokenizer, with a memory."""

    def __init__(self, client: LlamaCppClient, *, bos: str, beginnings: bool = True) -> None:
        """`beginnings`: whether to find out what a prompt shares with others, which costs a round
        trip per task and one per role."""
        self._client = client
        self._wants_beginnings = beginnings
        self._bos = bos
        self._known: OrderedDict[Prompt, asyncio.Task[Encoded]] = OrderedDict()
        self._beginnings: dict[Prompt, list[int]] = {}
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

    async def encode_beginning(self, prompt: Prompt) -> Encoded:
        """The tokens of a prompt that will go on: without what the template writes at its end.

        Where the template cannot be told apart from the messages, that end is part of them.
        Raises a BackendError."""
        shared = await self._beginning(replace(prompt, role="", volatile=""))
        role = await self._beginning(replace(prompt, volatile=""))
        ids = await self._tokens(await self._text_of_beginning(prompt))
        return Encoded(ids, common_prefix(ids, shared), common_prefix(ids, role))

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
        if not self._wants_beginnings:
            return Encoded(await self._tokens(text))
        ids, shared, role = await asyncio.gather(
            self._tokens(text),
            self._beginning(replace(prompt, role="", volatile="")),
            self._beginning(replace(prompt, volatile="")),
        )
        # A token at the end of a beginning may differ from the one that the whole prompt has
        # there, so only what both have in common is a prefix.
        return Encoded(ids, common_prefix(ids, shared), common_prefix(ids, role))

    async def _beginning(self, prompt: Prompt) -> Sequence[int]:
        """Tokens of a prompt of which the rest is left out."""
        if not prompt.user:
            return ()
        if prompt not in self._beginnings:
            if len(self._beginnings) >= _BEGINNINGS:
                self._beginnings.clear()
            text = await self._text_of_beginning(prompt)
            self._beginnings[prompt] = await self._tokens(text)
        return self._beginnings[prompt]

    async def _text_of_beginning(self, prompt: Prompt) -> str:
        if self._frame is not None:
            return self._frame.beginning(prompt)
        return await self._client.apply_template(prompt.messages)

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
