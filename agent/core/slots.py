"""Leases of server slots: one request in flight per slot, and the queue on our side.

A request pinned to a busy slot can corrupt what runs there, and the server's own queue blocks at
its head (``llama_server_facts.md`` rule 1). So the server never sees more requests than it has
slots, and a slot whose request was given up is handed on only when the server says it is idle.

The way of a slot: free -> (asked about, when others may use the server too) -> ready -> leased ->
(settling, when its request was given up) -> free. A request waits only for those of a lower
priority number and for those of its own that came earlier; so it is served unless a stream of
more urgent ones never ends.

All book-keeping happens between two awaits of one event loop, which needs no lock; the locks here
are between processes.
"""

from __future__ import annotations

import asyncio
import math
from bisect import insort
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count as counter
from typing import NamedTuple

from agent.core.errors import BackendStalled
from agent.core.slot_locks import SlotLocks
from agent.core.token_prefix import common_prefix

_LOOK_AGAIN_S = 0.01
_PAUSES_S = (0.01, *[0.02] * 12)
"""Between looks at a slot that was given up; within them a slot that writes becomes idle."""
_QUIET_S = 1.1
"""After these. A slot that reads a prompt learns that its connection was closed only once the
server had nothing to send to anybody for a second, and the answer to a look counts (b10434, see
benchmarks/release.py)."""
_FIRST_POLL_S, _LONGEST_POLL_S = 0.02, 0.25


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
    """Served in this order; no two have both the same priority and the same number."""

    priority: int
    number: int
    wanted: Sequence[int]
    granted: asyncio.Future[int]


class SlotPool:
    """All slots of one server."""

    def __init__(
        self,
        count: int,
        *,
        is_idle: Callable[[int], Awaitable[bool]],
        wedged_after_s: float,
        on_wedged: Callable[[int], None] | None = None,
        locks: SlotLocks | None = None,
        reusable: Callable[[Sequence[int], Sequence[int]], int] | None = None,
    ) -> None:
        """`is_idle` asks the server about one slot and does not raise.

        A slot that is still busy `wedged_after_s` seconds after its request was given up counts as
        wedged: `on_wedged` is called with it, once until it was idle again, and must not raise.
        `locks` are those of a server that others use too, and stay their owner's to close; None
        when the server is ours alone. `reusable` tells how many leading tokens of a wanted prompt
        a slot serves that holds the given ones; by default those that both have in common.
        """
        self._is_idle = is_idle
        self._wedged_after_s = wedged_after_s
        self._on_wedged = on_wedged
        self._locks = locks
        self._reusable = reusable or common_prefix
        self._held: list[Sequence[int]] = [()] * count
        self._epoch = 0
        self._free = set(range(count))
        self._asked: set[int] = set()
        self._ready: set[int] = set()
        self._given_up_at: dict[int, float] = {}
        self._wedged: set[int] = set()
        self._numbers = counter()
        self._waiting: list[_Waiter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._poll: asyncio.TimerHandle | None = None
        self._poll_s = _FIRST_POLL_S

    @property
    def count(self) -> int:
        """Slots, free or not."""
        return len(self._held)

    @property
    def free(self) -> int:
        """Slots that nothing of ours uses or looks after."""
        return len(self._free)

    @property
    def waiting(self) -> int:
        """Leases that wait for a slot."""
        return len(self._waiting)

    @asynccontextmanager
    async def lease(self, wanted: Sequence[int], *, priority: int = 0) -> AsyncIterator[Lease]:
        """Use one slot for a prompt of the tokens `wanted`; the lowest `priority` is served first,
        and of the same priority who came first.

        Of several free slots the one that holds the longest part of the prompt is taken. Slots that
        others use are waited for without limit. Raises BackendStalled when every slot of the server
        is wedged.
        """
        slot = await self._acquire(wanted, priority)
        epoch = self._epoch
        lease = Lease(slot=slot, expected_cached=self._reusable(self._held[slot], wanted))
        try:
            yield lease
        finally:
            self._held[slot] = lease.held if epoch == self._epoch else ()
            if lease.idle:
                self._release(slot)
            else:
                self._given_up_at[slot] = asyncio.get_running_loop().time()
                self._start(self._settle(slot))

    def forget(self) -> None:
        """Forget what the slots hold and which are wedged: the server was started anew.

        Leases that are out write nothing back either, not even what their users say from now on:
        a request that broke off with the old server reports what that one held, and now and then
        does so only after this call.
        """
        self._epoch += 1
        self._held = [()] * self.count
        self._wedged.clear()
        now = asyncio.get_running_loop().time()
        self._given_up_at = dict.fromkeys(self._given_up_at, now)

    async def aclose(self) -> None:
        """Stop looking after slots; those that were given up stay locked until the locks close."""
        if self._poll is not None:
            self._poll.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _acquire(self, wanted: Sequence[int], priority: int) -> int:
        if len(self._wedged) == self.count:
            raise self._all_wedged()
        granted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        insort(self._waiting, _Waiter(priority, next(self._numbers), wanted, granted))
        self._serve()
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.cancelled() or granted.exception() is not None:
                self._serve()
            else:  # The slot was handed over in the same turn in which we were cancelled.
                self._release(granted.result())
            raise

    def _serve(self) -> None:
        """Bring slots and waiters together; called whenever one of either came or went."""
        self._waiting = [x for x in self._waiting if not x.granted.done()]
        self._reserve()
        while self._waiting and (self._ready or self._asked):
            slot = self._best(self._ready | self._asked, self._waiting[0].wanted)
            if slot in self._asked:
                return  # One round trip is less than the prefix that another slot lacks.
            self._ready.remove(slot)
            self._waiting.pop(0).granted.set_result(slot)
        while self._ready and not self._waiting:
            self._put_back(self._ready.pop())

    def _reserve(self) -> None:
        """Take as many free slots as there are waiters, each the best for one of them."""
        while self._free and len(self._waiting) > (taken := len(self._asked) + len(self._ready)):
            slot = self._take(self._waiting[taken].wanted)
            if slot is None:
                self._poll_later()
                return
            if self._locks is None:
                self._ready.add(slot)
            else:  # A client that knows nothing of our locks may use it.
                self._asked.add(slot)
                self._start(self._ask(slot))
        self._poll_s = _FIRST_POLL_S

    def _take(self, wanted: Sequence[int]) -> int | None:
        """The best free slot, locked; None when others hold the locks of all of them."""
        left = set(self._free)
        while left:
            slot = self._best(left, wanted)
            if self._locks is not None:
                if not self._locks.try_acquire(slot):
                    left.remove(slot)
                    continue
                if self._held[slot] and self._locks.used_by_others(slot):
                    self._held[slot] = ()
                    self._locks.release(slot)
                    continue  # Another one may be the best now.
                self._locks.stamp(slot)
            self._free.remove(slot)
            return slot
        return None

    def _best(self, slots: set[int], wanted: Sequence[int]) -> int:
        # Ties go to an empty slot first, so that no prefix is overwritten without need.
        return max(
            sorted(slots),
            key=lambda x: (self._reusable(self._held[x], wanted), -len(self._held[x])),
        )

    def _poll_later(self) -> None:
        """Nobody tells us when a lock of another process is released."""
        if self._poll is None:
            self._poll = asyncio.get_running_loop().call_later(self._poll_s, self._poll_now)
            self._poll_s = min(2 * self._poll_s, _LONGEST_POLL_S)

    def _poll_now(self) -> None:
        self._poll = None
        self._serve()

    def _release(self, slot: int) -> None:
        self._put_back(slot)
        self._serve()

    def _put_back(self, slot: int) -> None:
        if self._locks is not None:
            self._locks.release(slot)
        self._free.add(slot)

    async def _ask(self, slot: int) -> None:
        idle = await self._is_idle(slot)
        self._asked.remove(slot)
        if idle:
            self._ready.add(slot)
        else:
            self._held[slot] = ()
            self._start(self._settle(slot))
        self._serve()

    async def _settle(self, slot: int) -> None:
        """Free a slot once it is idle: the server notices a closed stream when it has the next
        token for it, and while it reads a prompt only at the end of a batch."""
        loop = asyncio.get_running_loop()
        pauses = iter(_PAUSES_S)
        looks = 0
        # Two looks: a request that the server has received but not begun leaves its slot idle.
        while looks < 2:
            if await self._is_idle(slot):
                looks += 1
                pause = _LOOK_AGAIN_S
            else:
                looks = 0
                pause = next(pauses, _QUIET_S)
                # What somebody else runs there was not given up and may take its time.
                given_up_at = self._given_up_at.get(slot, math.inf)
                if loop.time() > given_up_at + self._wedged_after_s and slot not in self._wedged:
                    self._mark_wedged(slot)
            if looks < 2:
                await asyncio.sleep(pause)
        self._given_up_at.pop(slot, None)
        self._wedged.discard(slot)
        self._release(slot)

    def _mark_wedged(self, slot: int) -> None:
        self._wedged.add(slot)
        if self._on_wedged is not None:
            self._on_wedged(slot)
        if len(self._wedged) == self.count:
            for waiter in self._waiting:
                if not waiter.granted.done():
                    waiter.granted.set_exception(self._all_wedged())
            self._waiting.clear()

    def _all_wedged(self) -> BackendStalled:
        return BackendStalled(
            f"All {self.count} slots of the server are still busy {self._wedged_after_s:g} s "
            "after their requests were given up.",
            fix="Restart the server; its log may say what it hangs on.",
        )

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
