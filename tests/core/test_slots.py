from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.errors import BackendStalled
from agent.core.slots import SlotPool, common_prefix


async def always_idle(slot: int) -> bool:
    return True


def pool_of(count: int, **more: object) -> SlotPool:
    return SlotPool(count, **({"is_idle": always_idle, "wedged_after_s": 5.0} | more))  # type: ignore[arg-type]


async def use(pool: SlotPool, wanted: Sequence[int]) -> tuple[int, int]:
    """Run one request that ends well; its slot and what was expected to be cached."""
    async with pool.lease(wanted) as lease:
        lease.held, lease.idle = wanted, True
        return lease.slot, lease.expected_cached


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_common_prefix(left: list[int], right: list[int]) -> None:
    found = common_prefix(left, right)
    assert left[:found] == right[:found]
    assert found == min(len(left), len(right)) or left[found] != right[found]


async def test_the_slot_with_the_longest_prefix_is_taken() -> None:
    pool = pool_of(3)
    assert await use(pool, [1, 2, 3]) == (0, 0)
    assert await use(pool, [5, 6, 7]) == (1, 0)
    assert await use(pool, [5, 6, 9]) == (1, 2)
    assert await use(pool, [1, 2, 3, 4]) == (0, 3)
    assert await use(pool, [8]) == (2, 0)


async def test_first_come_first_served() -> None:
    pool = pool_of(1)
    order: list[int] = []

    async def request(number: int) -> None:
        async with pool.lease([number]) as lease:
            order.append(number)
            await asyncio.sleep(0)
            lease.idle = True

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(request(number))
    assert order == list(range(6))


async def test_a_slot_given_up_is_free_only_when_the_server_says_so() -> None:
    busy = True

    async def is_idle(slot: int) -> bool:
        return not busy

    pool = pool_of(1, is_idle=is_idle)
    async with pool.lease([1]):
        pass
    waiting = asyncio.create_task(use(pool, [1]))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    busy = False
    async with asyncio.timeout(1):
        assert (await waiting)[0] == 0
    await pool.aclose()


async def test_a_wedged_slot_is_passed_over_and_comes_back() -> None:
    wedged = {0}

    async def is_idle(slot: int) -> bool:
        return slot not in wedged

    pool = pool_of(2, is_idle=is_idle, wedged_after_s=0.02)
    async with pool.lease([1]) as lease:
        assert lease.slot == 0
    assert (await use(pool, [1]))[0] == 1
    wedged.clear()
    async with asyncio.timeout(2):
        while pool.free < 2:
            await asyncio.sleep(0.01)
    await pool.aclose()


async def test_waiting_ends_when_every_slot_is_wedged() -> None:
    async def is_idle(slot: int) -> bool:
        return False

    pool = pool_of(1, is_idle=is_idle, wedged_after_s=0.03)
    async with pool.lease([1]):
        pass
    with pytest.raises(BackendStalled, match="All 1 slots"):
        await use(pool, [1])
    with pytest.raises(BackendStalled):
        await use(pool, [1])
    await pool.aclose()


ENDINGS = st.sampled_from(["ends", "gives up", "raises", "is cancelled"])
ACTIONS = st.lists(st.tuples(ENDINGS, st.integers(0, 6), st.integers(0, 6)), max_size=25)


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 4), actions=ACTIONS, busy_looks=st.integers(0, 2))
def test_no_slot_is_leased_twice_and_none_is_lost(
    count: int, actions: list[tuple[str, int, int]], busy_looks: int
) -> None:
    asyncio.run(_simulate(count, actions, busy_looks))


async def _simulate(count: int, actions: list[tuple[str, int, int]], busy_looks: int) -> None:
    leased: set[int] = set()
    running: set[int] = set()
    looks = dict.fromkeys(range(count), 0)

    async def is_idle(slot: int) -> bool:
        await asyncio.sleep(0)
        if looks[slot] > 0:
            looks[slot] -= 1
            return False
        running.discard(slot)
        return True

    pool = pool_of(count, is_idle=is_idle)

    async def request(ending: str, turns: int) -> None:
        async with pool.lease([turns]) as lease:
            assert lease.slot not in leased, "leased twice"
            assert lease.slot not in running, "handed on while the server was busy"
            leased.add(lease.slot)
            running.add(lease.slot)
            looks[lease.slot] = busy_looks
            try:
                for _ in range(turns):
                    await asyncio.sleep(0)
                if ending == "raises":
                    raise ValueError
                if ending == "ends":
                    running.discard(lease.slot)
                    lease.idle = True
            finally:
                leased.discard(lease.slot)

    tasks = []
    for ending, turns, later in actions:
        task = asyncio.create_task(request(ending, turns))
        tasks.append(task)
        for _ in range(later):
            await asyncio.sleep(0)
        if ending == "is cancelled":
            task.cancel()
    async with asyncio.timeout(20):
        for task in tasks:
            with contextlib.suppress(ValueError, asyncio.CancelledError):
                await task
        while pool.free < count:
            await asyncio.sleep(0.001)
    assert pool.waiting == 0
    await pool.aclose()
