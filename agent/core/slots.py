"""Leases of server slots: one request in flight per slot, and the queue on our side.

A request pinned to a busy slot can corrupt what runs there, and the server's own queue blocks at
its head (``llama_server_facts.md`` rule 1). So the server never sees more requests than it has
slots, and a slot whose request was given up is handed on only when the server says it is idle.

All book-keeping happens between two awaits of one event loop, which is why there is no lock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from agent.core.errors import BackendStalled

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.25


@dataclass(kw_only=True)
class Lease:
    """The right to use one slot until the ``async with`` ends."""

    slot: int
    expected_cached: int
    """Leading tokens of the wanted prompt that the slot already holds, by our book."""
    held: Sequence[int] = ()
    """What the slot holds now; whoever uses the lease writes it. Empty when unknown."""
    idle: bool = False
    """True once the server ended the request, so that the slot needs no look before it is freed."""


class _Waiter(NamedTuple):
    granted: asyncio.Future[int]
    wanted: Sequence[int]


class SlotPool:
    """All slots of one server."""

    def __init__(
        self, count: int, *, is_idle: Callable[[int], Awaitable[bool]], wedged_after_s: float
    ) -> None:
        """`is_idle` asks the server about one slot and does not raise; a slot that is still busy
        `wedged_after_s` seconds after its request was given up counts as wedged."""
        self._is_idle = is_idle
        self._wedged_after_s = wedged_after_s
        self._held: list[Sequence[int]] = [()] * count
        self._free = set(range(count))
        self._wedged: set[int] = set()
        self._waiting: deque[_Waiter] = deque()
        self._settling: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """Slots, free or not."""
        return len(self._held)

    @property
    def free(self) -> int:
        """Slots that a lease would get at once."""
        return len(self._free)

    @property
    def waiting(self) -> int:
        """Leases that wait for a slot."""
        return len(self._waiting)

    @asynccontextmanager
    async def lease(self, wanted: Sequence[int]) -> AsyncIterator[Lease]:
        """Use one slot for a prompt of the tokens `wanted`; first come, first served.

        Of several free slots the one that holds the longest part of the prompt is taken.
        Raises BackendStalled when every slot of the server is wedged.
        """
        slot = await self._acquire(wanted)
        lease = Lease(slot=slot, expected_cached=common_prefix(self._held[slot], wanted))
        try:
            yield lease
        finally:
            self._held[slot] = lease.held
            if lease.idle:
                self._release(slot)
            else:
                task = asyncio.create_task(self._settle(slot))
                self._settling.add(task)
                task.add_done_callback(self._settling.discard)

    async def aclose(self) -> None:
        """Stop looking after slots that were given up."""
        tasks = list(self._settling)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _acquire(self, wanted: Sequence[int]) -> int:
        if self._free:
            # Ties go to an empty slot first, so that no prefix is overwritten without need.
            slot = max(
                sorted(self._free),
                key=lambda x: (common_prefix(self._held[x], wanted), -len(self._held[x])),
            )
            self._free.remove(slot)
            return slot
        if len(self._wedged) == self.count:
            raise self._all_wedged()
        waiter = _Waiter(asyncio.get_running_loop().create_future(), wanted)
        self._waiting.append(waiter)
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled():
                # The slot was handed over in the same turn in which we were cancelled.
                if waiter.granted.exception() is None:
                    self._release(waiter.granted.result())
            else:
                self._waiting.remove(waiter)
            raise

    def _release(self, slot: int) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.granted.done():
                waiter.granted.set_result(slot)
                return
        self._free.add(slot)

    async def _settle(self, slot: int) -> None:
        """Free a slot once it is idle: a closed stream takes the server some 10 ms to notice,
        and the whole of a running batch while it reads a prompt."""
        loop = asyncio.get_running_loop()
        wedged_at = loop.time() + self._wedged_after_s
        pause = _FIRST_PAUSE_S
        looks = 0
        # Two looks: a request that the server has received but not begun leaves its slot idle.
        while looks < 2:
            if await self._is_idle(slot):
                looks += 1
                pause = _FIRST_PAUSE_S
            else:
                looks = 0
                if loop.time() > wedged_at and slot not in self._wedged:
                    self._mark_wedged(slot)
            if looks < 2:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
        self._wedged.discard(slot)
        self._release(slot)

    def _mark_wedged(self, slot: int) -> None:
        self._wedged.add(slot)
        if len(self._wedged) == self.count:
            while self._waiting:
                waiter = self._waiting.popleft()
                if not waiter.granted.done():
                    waiter.granted.set_exception(self._all_wedged())

    def _all_wedged(self) -> BackendStalled:
        return BackendStalled(
            f"All {self.count} slots of the server are still busy {self._wedged_after_s:g} s "
            "after their requests were given up.",
            fix="Restart the server; its log may say what it hangs on.",
        )


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Leading items that both have in common. Halving: slices compare much faster than a loop."""
    low, high = 0, min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low
