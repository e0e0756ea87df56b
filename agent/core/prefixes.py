"""Shared prefixes in slots: computed once, saved, and restored wherever they are needed next.

Prompts form a tree: system prompt, then repository and task, then role, then the rest. A request
shares the second level with all others of its task, the third with those of its role that run at
the same time, and nearly the whole prompt with candidates that answer the same one. Before it
is sent, its slot is brought as far along these as it can be: by what the slot holds, by a restored
file, or by computing the prefix alone and saving it for those that follow. Two requests that need
the same prefix at the same time compute it once; the second one waits, with its slot in hand.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from agent.core.backend_manager import OnProgress, Progress
from agent.core.errors import RequestRefused
from agent.core.llamacpp_client import LlamaCppClient
from agent.core.llamacpp_wire import Final, Prefill
from agent.core.prefix_bank import PrefixBank
from agent.core.prompt_encoder import Encoded
from agent.core.prompts import Prompt
from agent.core.restore_probe import Restore
from agent.core.slots import Lease

_WORTH_A_FILE = 32
"""Tokens that a slot lacks. Below this, computing takes about as long as restoring (embedded model;
a larger one gains even there, but not much)."""


@dataclass(frozen=True)
class PrefixUse:
    """What was done for one request before it was sent, in tokens."""

    computed: int = 0
    """Computed ahead of it, for this and for others."""
    seconds: float = 0.0
    """What computing them took, as the server reports it."""


class Prefixes:
    """The prefixes of one server. Without a bank, or where restoring does not hold, a slot has
    what it held before, and no more."""

    def __init__(
        self,
        client: LlamaCppClient,
        bank: PrefixBank | None,
        restore: Restore,
        notice: Callable[[str], None],
    ) -> None:
        self._client = client
        self._bank = bank if restore is not Restore.NONE else None
        self._only_whole = restore is Restore.EXTENSION
        self._notice = notice
        self._under_way: dict[str, asyncio.Future[None]] = {}
        self._running: Counter[tuple[str, str, str]] = Counter()

    @contextmanager
    def announced(self, prompt: Prompt) -> Iterator[None]:
        """A request is about to come, or runs: others of its role share more with it then."""
        branch = (prompt.system, prompt.shared, prompt.role)
        self._running[branch] += 1
        try:
            yield
        finally:
            self._running[branch] -= 1
            if not self._running[branch]:
                del self._running[branch]

    async def provide(
        self, lease: Lease, asked: Prompt, prompt: Encoded, report: OnProgress, *, alike: int = 1
    ) -> PrefixUse:
        """Bring the lease's slot along the shared prefixes of what is asked, encoded as `prompt`;
        `alike` requests ask the very same.

        Raises a BackendError when the server fails; a file that cannot be used is never an error.
        """
        if self._only_whole and lease.expected_cached >= len(prompt.ids):
            # The last token is computed anyway, for which the state would have to be taken back.
            lease.expected_cached = 0
        bank = self._bank
        ends = self._ends(asked, prompt, alike) if bank is not None else []
        use = PrefixUse()
        for end in reversed(ends):
            if bank and _worth(lease, end) and await self._restore(bank, lease, prompt.ids[:end]):
                break
        if self._only_whole and not lease.expected_cached:
            # The server would use a part of what the slot holds, right or wrong: see restore_probe.
            await self._client.erase_slot(lease.slot)
        for end in ends:
            if self._bank is not None and _worth(lease, end):
                use = await self._reach(
                    self._bank, lease, prompt, end, use, report, passing=end != ends[0]
                )
        return use

    def _ends(self, asked: Prompt, prompt: Encoded, alike: int) -> list[int]:
        """Where the prefixes end that others share, in tokens."""
        ends = [prompt.shared]
        if alike > 1:
            ends.append(len(prompt.ids))
        elif self._running[asked.system, asked.shared, asked.role] > 1:
            ends.append(prompt.role)
        # The last token is computed anyway: its output is the first token of the answer.
        return [min(end, len(prompt.ids) - 1) for end in ends]

    async def read(
        self,
        lease: Lease,
        prompt: Encoded,
        ahead: PrefixUse,
        report: OnProgress,
        *,
        until: Callable[[], bool],
    ) -> None:
        """Read the whole of `prompt` into the slot and write nothing; stop early once `until`.
        `ahead` is what `provide` did for it."""
        async with self._client.completion(_reading(lease, prompt.ids), answer=0) as events:
            async for event in events:
                if isinstance(event, Prefill):
                    lease.held = prompt.ids[: event.done]
                    cached = max(0, event.cached - ahead.computed)
                    report(_progress(lease, prompt, event.done, cached))
                elif isinstance(event, Final):
                    lease.held = prompt.ids
                    lease.idle = True
                if until():
                    return

    def close(self) -> None:
        """Remove the files that only served this server."""
        if self._bank is not None:
            self._bank.close()

    async def _reach(
        self,
        bank: PrefixBank,
        lease: Lease,
        prompt: Encoded,
        end: int,
        before: PrefixUse,
        report: OnProgress,
        *,
        passing: bool,
    ) -> PrefixUse:
        """Let the slot hold the prompt's first `end` tokens, and the bank too; `before` with what
        that took."""
        ids = prompt.ids[:end]
        name = bank.name_of(ids)
        while (other := self._under_way.get(name)) is not None:
            await asyncio.shield(other)
            if await self._restore(bank, lease, ids):
                return before
            if self._bank is None:
                return before
        done = self._under_way[name] = asyncio.get_running_loop().create_future()
        try:
            # Somebody else may have saved it since it was looked for.
            if await self._restore(bank, lease, ids):
                return before
            use = await self._compute(lease, prompt, ids, before, report)
            await self._save(bank, lease, ids, name, passing=passing)
        finally:
            del self._under_way[name]
            done.set_result(None)
        return use

    async def _compute(
        self,
        lease: Lease,
        prompt: Encoded,
        ids: list[int],
        before: PrefixUse,
        report: OnProgress,
    ) -> PrefixUse:
        """Read a prefix into the slot and write nothing."""
        use = before
        async with self._client.completion(_reading(lease, ids), answer=0) as events:
            async for event in events:
                if isinstance(event, Prefill):
                    cached = max(0, event.cached - before.computed)
                    report(_progress(lease, prompt, event.done, cached))
                elif isinstance(event, Final):
                    use = replace(
                        before,
                        computed=before.computed + event.computed,
                        seconds=before.seconds + event.prefill_s,
                    )
        _now_holds(lease, ids)
        return use

    async def _save(
        self, bank: PrefixBank, lease: Lease, ids: list[int], name: str, *, passing: bool
    ) -> None:
        file = bank.new_file()
        try:
            size = await self._client.save_slot(lease.slot, file)
            kept = await asyncio.to_thread(
                bank.keep, name, file, tokens=len(ids), size=size, passing=passing
            )
        except RequestRefused as error:
            self._give_up(error.message)
        else:
            if not kept:
                self._give_up(f"{bank.folder} could not be written to the end")
        finally:
            bank.drop_file(file)  # also what a server wrote of it that died or hangs

    async def _restore(self, bank: PrefixBank, lease: Lease, ids: list[int]) -> bool:
        name = bank.name_of(ids)
        if not await asyncio.to_thread(bank.has, name):
            return False
        if not await self._client.restore_slot(lease.slot, bank.file_of(name)):
            bank.discard(name)
            _now_holds(lease, ())
            return False
        _now_holds(lease, ids)
        return True

    def _give_up(self, reason: str) -> None:
        """Saving does not work here: go on without, and say so once."""
        if self._bank is not None:
            self._bank.close()
            self._bank = None
            self._notice(f"Prefixes cannot be saved and are computed in every slot anew: {reason}")


def _reading(lease: Lease, ids: list[int]) -> dict[str, Any]:
    """The body that lets the lease's slot read these tokens and write nothing."""
    return {
        "prompt": ids,
        "id_slot": lease.slot,
        "n_predict": 0,
        "cache_prompt": True,
        "stream": True,
        "return_progress": True,
    }


def _progress(lease: Lease, prompt: Encoded, done: int, cached: int) -> Progress:
    return Progress(
        phase="prefill", slot=lease.slot, prompt=len(prompt.ids), done=done, cached=cached
    )


def _worth(lease: Lease, end: int) -> bool:
    return end - lease.expected_cached >= _WORTH_A_FILE


def _now_holds(lease: Lease, ids: Sequence[int]) -> None:
    lease.held, lease.expected_cached = ids, len(ids)
