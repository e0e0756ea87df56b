"""Random schedules of leases, turn by turn, against a model of the server.

The loop takes exactly one turn when a rule says so and its clock stands still otherwise, so that
every order of events can be reached and none costs time. A schedule is a string of bytes, three to
an operation: that is what hypothesis draws and shrinks fastest, and rare orders need many tries.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from agent.core.slot_locks import SlotLocks
from agent.core.slots import SlotPool
from agent.core.token_prefix import common_prefix

Ending = Literal["ends", "gives up", "raises"]
ENDINGS: tuple[Ending, ...] = ("ends", "ends", "gives up", "raises")
PROMPTS = [list(x) for length in range(4) for x in product((0, 1), repeat=length)]
PAUSES_S = (0.01, 0.05, 0.3)
TURNS = (1, 1, 1, 4, 8)
LAST_TURNS = 3000


class SteppedLoop(asyncio.SelectorEventLoop):
    """Takes one turn at a time, in a time of its own."""

    now = 0.0
    turns = 0

    def time(self) -> float:
        return self.now

    def step(self) -> None:
        self.turns += 1
        self.call_soon(self.stop)
        self.run_forever()


@dataclass
class Slot:
    """One slot as the server sees it."""

    holds: list[int] = field(default_factory=list)
    leased: bool = False
    busy: int = 0
    """Looks for which a request that was given up still runs."""
    strange: int = 0
    """Looks for which the request of somebody without locks runs."""
    blurred: bool = False
    """He came while we had the slot, where we cannot tell his request from ours."""

    @property
    def is_ours(self) -> bool:
        return self.leased or self.busy > 0


@dataclass
class Request:
    number: int
    priority: int
    wanted: list[int]
    queued_in: int
    """Turn of the loop."""
    task: asyncio.Task[None] = field(init=False)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    ending: Ending = "ends"
    busy_looks: int = 0
    waits: bool = True
    outdated: bool = False
    """The server it runs on was restarted."""


class World:
    """A pool, its users, the server below it and others who use that, too, when it is shared."""

    def __init__(self, count: int, *, delay: int, shared: bool, folder: Path) -> None:
        self.loop = SteppedLoop()
        self.delay = delay
        self.shared = shared
        self.slots = [Slot() for _ in range(count)]
        self.requests: list[Request] = []
        self.locks, self.others = SlotLocks(folder, "x"), SlotLocks(folder, "x")
        self.foreign: set[int] = set()
        self.overtaken: list[tuple[int, Request]] = []
        """Who has to be served in which turn at the latest."""
        self.pool = SlotPool(
            count,
            is_idle=self.is_idle,
            wedged_after_s=1e9,
            locks=self.locks if shared else None,
        )
        # Slots have to lie idle now and then, and to keep what they hold for a while.
        weights: dict[Callable[[int, int], None], int] = {
            self.turn: 6,
            self.wait: 4 if shared else 2,
            self.start: 4,
            self.finish: 8,
            self.cancel: 1,
            self.cancel_the_next: 1,
            self.restart: 1,
            self.stranger: 2 if shared else 0,
            self.other_process: 2 if shared else 0,
        }
        self.operations = [x for x, weight in weights.items() for _ in range(weight)]

    async def is_idle(self, number: int) -> bool:
        for _ in range(self.delay):
            await asyncio.sleep(0)
        slot = self.slots[number]
        assert not slot.leased, "asked about a slot in use"
        if slot.busy > 0:
            slot.busy -= 1
            return False
        if slot.strange > 0:
            slot.strange -= 1
            slot.holds = [7]
            return False
        return True

    async def run(self, request: Request) -> None:
        try:
            async with self.pool.lease(request.wanted, priority=request.priority) as lease:
                self.check_turn_of(request)
                slot = self.slots[lease.slot]
                assert not slot.leased, "leased twice"
                assert slot.busy == 0, "handed on while the server was busy"
                assert lease.slot not in self.foreign, "leased against a lock"
                real = common_prefix(slot.holds, request.wanted)
                assert lease.expected_cached == real or self.shared
                assert lease.expected_cached <= real or slot.blurred, "the book claims too much"
                slot.blurred = slot.strange > 0
                slot.leased = True
                try:
                    await request.go.wait()
                    if request.ending == "raises":
                        raise ValueError
                finally:
                    slot.leased = False
                    slot.holds = [] if request.outdated else request.wanted
                    lease.held = request.wanted
                    lease.idle = request.ending == "ends" and not request.task.cancelling()
                    slot.busy = 0 if lease.idle else request.busy_looks
        finally:
            request.waits = False

    def check_turn_of(self, request: Request) -> None:
        request.waits = False
        turn = self.loop.turns
        for other in self.requests:
            if not other.waits or other.task.cancelling() or other.priority > request.priority:
                continue
            if request.queued_in == turn:
                # Served without waiting: who came before has a slot and goes on in the next turn.
                if other.number < request.number:
                    self.overtaken.append((turn + 1, other))
            elif other.priority == request.priority:
                assert other.number > request.number, "not first come, first served"
            else:
                # Granted one turn before it goes on: who came in that turn came too late.
                assert other.queued_in >= turn - 1, "served before a more urgent one"

    def play(self, schedule: bytes) -> None:
        for which, one, two in zip(schedule[::3], schedule[1::3], schedule[2::3], strict=True):
            operation = self.operations[which % len(self.operations)]
            note(f"{operation.__name__}({one}, {two})")
            operation(one, two)
            self.check_invariants()

    def turn(self, one: int = 0, _two: int = 0) -> None:
        for _ in range(TURNS[one % len(TURNS)]):
            self.loop.step()

    def wait(self, one: int, _two: int) -> None:
        self.loop.now += PAUSES_S[one % len(PAUSES_S)]
        self.loop.step()

    def start(self, one: int, two: int) -> None:
        request = Request(
            number=len(self.requests),
            priority=one % 3,
            wanted=PROMPTS[two % len(PROMPTS)],
            queued_in=self.loop.turns + 1,  # the one that follows
            busy_looks=one // 3 % 4,
        )
        request.task = self.loop.create_task(self.run(request))
        self.requests.append(request)

    def finish(self, one: int, two: int) -> None:
        running = [x for x in self.alive() if not x.go.is_set()]
        if running:
            request = running[one % len(running)]
            request.ending = ENDINGS[two % len(ENDINGS)]
            request.go.set()

    def cancel(self, one: int, _two: int) -> None:
        if alive := self.alive():
            alive[one % len(alive)].task.cancel()

    def cancel_the_next(self, _one: int, _two: int) -> None:
        """Hits a request between the grant of its slot and its next step more often."""
        if waiting := [x for x in self.alive() if x.waits]:
            min(waiting, key=lambda x: (x.priority, x.number)).task.cancel()

    def restart(self, _one: int, _two: int) -> None:
        def now() -> None:
            for slot in self.slots:
                slot.holds = []
            for request in self.requests:
                request.outdated = not request.waits
            self.pool.forget()

        self.loop.call_soon(now)
        self.loop.step()

    def stranger(self, one: int, two: int) -> None:
        """Somebody without locks; what he did shows once the server was asked."""
        number = one % len(self.slots)
        slot = self.slots[number]
        if not slot.is_ours:
            slot.strange = 1 + two % 4
            if number not in self.foreign:
                slot.blurred |= not self.others.try_acquire(number)
                self.others.release(number)

    def other_process(self, one: int, _two: int) -> None:
        number = one % len(self.slots)
        if number in self.foreign:
            self.others.release(number)
            self.foreign.remove(number)
        elif self.others.try_acquire(number):
            assert not self.slots[number].is_ours, "a slot in use was not locked"
            self.others.stamp(number)
            self.foreign.add(number)
            self.slots[number].holds = [7]

    def alive(self) -> list[Request]:
        return [x for x in self.requests if not x.task.done() and not x.task.cancelling()]

    def check_invariants(self) -> None:
        if not self.shared:
            assert not (self.pool.free and self.pool.waiting), "a slot lies idle"
        leased = sum(slot.leased for slot in self.slots)
        assert leased + self.pool.free <= self.pool.count, "more leases than slots"
        for turn, other in self.overtaken:
            late = other.waits and not other.task.cancelling() and self.loop.turns >= turn
            assert not late, "served without waiting while others did"
        for request in self.requests:
            if request.task.done() and not request.task.cancelled():
                error = request.task.exception()
                assert error is None or isinstance(error, ValueError), error

    def end(self) -> None:
        """Everybody comes to an end, and then everything is as it was at the beginning."""
        self.others.close()
        self.foreign.clear()
        for request in self.requests:
            request.go.set()
        for _ in range(LAST_TURNS):
            if not asyncio.all_tasks(self.loop):
                break
            self.loop.now += 0.1
            self.turn()
            self.check_invariants()
        assert [x.number for x in self.requests if not x.task.done()] == [], "never served"
        assert (self.pool.free, self.pool.waiting) == (self.pool.count, 0), "a slot was lost"
        for number in range(self.pool.count):
            assert self.others.try_acquire(number), "a lock was lost"

    def close(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        for _ in range(5):
            self.turn()
        self.loop.close()
        self.locks.close()
        self.others.close()


@pytest.mark.parametrize("shared", [False, True])
@settings(max_examples=250, deadline=None)
@given(
    count=st.integers(1, 4),
    delay=st.integers(0, 2),
    schedule=st.integers(0, 200).flatmap(lambda x: st.binary(min_size=3 * x, max_size=3 * x)),
)
def test_any_schedule(shared: bool, count: int, delay: int, schedule: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(count, delay=delay, shared=shared, folder=Path(folder))
        try:
            world.play(schedule)
            world.end()
        finally:
            world.close()
