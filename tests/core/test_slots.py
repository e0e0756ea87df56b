from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import BackendStalled
from agent.core.slot_locks import SlotLocks
from agent.core.slots import SlotPool
from agent.core.token_prefix import common_prefix, whole_prefix


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


async def test_the_lowest_priority_number_is_served_first_and_then_who_came_first() -> None:
    pool = pool_of(1)
    order: list[int] = []

    async def request(priority: int, number: int) -> None:
        async with pool.lease([1], priority=priority) as lease:
            lease.idle = True
            order.append(number)

    async with asyncio.TaskGroup() as group, pool.lease([1]) as lease:
        lease.idle = True
        for number, priority in enumerate([5, 0, 5, -1, 0]):
            group.create_task(request(priority, number))
        await asyncio.sleep(0)
        assert pool.waiting == 5
    assert order == [3, 1, 4, 0, 2]


async def test_of_two_free_slots_the_urgent_request_gets_the_one_it_wants() -> None:
    pool = pool_of(2)
    async with pool.lease([]) as one, pool.lease([]) as two:
        one.held, two.held = [1, 2, 3], [7, 8, 9]
        one.idle = two.idle = True
    assert await asyncio.gather(use(pool, [7, 8]), use(pool, [7, 8, 9])) == [(1, 2), (1, 2)]


async def test_a_slot_granted_in_the_turn_of_the_cancellation_is_not_lost() -> None:
    pool = pool_of(1)
    async with pool.lease([1]) as lease:
        waiting = asyncio.create_task(use(pool, [1]))
        await asyncio.sleep(0)
        lease.idle = True
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (pool.free, pool.waiting) == (1, 0)


async def test_who_gives_up_waiting_is_not_counted_any_more() -> None:
    pool = pool_of(1)
    async with pool.lease([1]) as lease:
        waiting = asyncio.create_task(use(pool, [1]))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert (pool.free, pool.waiting) == (0, 0)
        lease.idle = True
    assert pool.free == 1


async def test_after_a_restart_nothing_is_known_of_any_slot() -> None:
    pool = pool_of(2)
    await use(pool, [1, 2])
    async with pool.lease([5, 6]) as lease:
        pool.forget()
        # Broke off with the old server, but hears of it only now.
        lease.held, lease.idle = [5, 6], True
    assert await use(pool, [5, 6]) == (0, 0)
    assert await use(pool, [5, 6, 7]) == (0, 2)


async def test_the_owner_hears_once_of_a_wedged_slot_and_a_restart_makes_it_usable() -> None:
    busy = True
    wedged: list[int] = []

    async def is_idle(slot: int) -> bool:
        return not busy

    pool = pool_of(1, is_idle=is_idle, wedged_after_s=0.02, on_wedged=wedged.append)
    async with pool.lease([1]):
        pass
    await asyncio.sleep(0.2)
    assert wedged == [0]
    with pytest.raises(BackendStalled):
        await use(pool, [1])
    busy = False
    pool.forget()
    async with asyncio.timeout(2):
        assert (await use(pool, [1]))[0] == 0


async def test_after_a_restart_a_slot_has_the_whole_time_again_before_it_is_wedged() -> None:
    async def is_idle(slot: int) -> bool:
        return False

    wedged: list[int] = []
    pool = pool_of(1, is_idle=is_idle, wedged_after_s=0.3, on_wedged=wedged.append)
    async with pool.lease([1]):
        pass
    async with asyncio.timeout(5):
        while not wedged:
            await asyncio.sleep(0.01)
        restarted_at = asyncio.get_running_loop().time()
        pool.forget()
        with pytest.raises(BackendStalled):
            await use(pool, [1])
    assert asyncio.get_running_loop().time() - restarted_at >= 0.3
    assert wedged == [0, 0]
    await pool.aclose()


async def test_a_server_of_our_own_is_not_asked_about_slots_that_ended_well() -> None:
    async def is_idle(slot: int) -> bool:
        raise AssertionError

    pool = pool_of(1, is_idle=is_idle)
    await use(pool, [1])
    await use(pool, [1])


async def test_two_pools_share_a_slot_and_know_what_the_other_one_overwrote(tmp_path: Path) -> None:
    ours, theirs = (pool_of(1, locks=SlotLocks(tmp_path, "http://x")) for _ in range(2))
    await use(ours, [1, 2])
    assert await use(ours, [1, 2, 3]) == (0, 2)
    async with theirs.lease([9]) as lease:
        assert lease.expected_cached == 0
        waiting = asyncio.create_task(use(ours, [1, 2, 3]))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        assert (ours.free, ours.waiting) == (1, 1)
        lease.idle = True
    async with asyncio.timeout(2):
        assert await waiting == (0, 0)


async def test_a_slot_that_others_overwrote_is_not_preferred(tmp_path: Path) -> None:
    ours, theirs = (pool_of(2, locks=SlotLocks(tmp_path, "http://x")) for _ in range(2))
    async with ours.lease([]) as one, ours.lease([]) as two:
        one.held, two.held = [1, 2, 3], [1, 2]
        one.idle = two.idle = True
    assert (await use(theirs, [9]))[0] == 0
    assert await use(ours, [1, 2, 3]) == (1, 2)


async def test_the_lock_of_a_slot_given_up_is_kept_until_it_is_idle(tmp_path: Path) -> None:
    busy = False

    async def is_idle(slot: int) -> bool:
        return not busy

    theirs = SlotLocks(tmp_path, "http://x")
    pool = pool_of(1, is_idle=is_idle, locks=SlotLocks(tmp_path, "http://x"))
    async with pool.lease([1]):
        busy = True
    await asyncio.sleep(0.05)
    assert not theirs.try_acquire(0)
    busy = False
    async with asyncio.timeout(2):
        while not theirs.try_acquire(0):
            await asyncio.sleep(0.01)
    theirs.close()


async def test_a_slot_that_a_stranger_uses_is_passed_over(tmp_path: Path) -> None:
    async def is_idle(slot: int) -> bool:
        return slot != 0

    pool = pool_of(2, is_idle=is_idle, locks=SlotLocks(tmp_path, "http://x"))
    assert (await use(pool, [1]))[0] == 1
    assert (await use(pool, [1])) == (1, 1)
    await pool.aclose()


async def test_a_stranger_is_waited_for_and_what_the_slot_held_is_gone(tmp_path: Path) -> None:
    busy = False

    async def is_idle(slot: int) -> bool:
        return not busy

    wedged: list[int] = []
    locks = SlotLocks(tmp_path, "http://x")
    pool = pool_of(1, is_idle=is_idle, wedged_after_s=0.01, on_wedged=wedged.append, locks=locks)
    await use(pool, [1])
    busy = True
    waiting = asyncio.create_task(use(pool, [1]))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    busy = False
    async with asyncio.timeout(2):
        assert await waiting == (0, 0)
    assert wedged == []


async def test_an_answer_that_comes_late_costs_nobody_the_prefix(tmp_path: Path) -> None:
    async def is_idle(slot: int) -> bool:
        await asyncio.sleep(0.02 if slot == 0 else 0)
        return True

    pool = pool_of(2, is_idle=is_idle, locks=SlotLocks(tmp_path, "http://x"))
    async with pool.lease([]) as one, pool.lease([]) as two:
        one.held, two.held = [1, 2, 3], [7, 8, 9]
        one.idle = two.idle = True
    assert await asyncio.gather(use(pool, [1, 2]), use(pool, [7, 8])) == [(0, 2), (1, 2)]


async def test_closing_ends_the_looking(tmp_path: Path) -> None:
    async def is_idle(slot: int) -> bool:
        return False

    theirs = SlotLocks(tmp_path, "http://x")
    pool = pool_of(2, is_idle=is_idle, locks=SlotLocks(tmp_path, "http://x"))
    assert theirs.try_acquire(1)
    waiting = asyncio.create_task(use(pool, [1]))
    await asyncio.sleep(0.05)
    await pool.aclose()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert asyncio.all_tasks() == {asyncio.current_task()}
    theirs.close()


async def test_closing_ends_the_waiting_for_locks(tmp_path: Path) -> None:
    theirs = SlotLocks(tmp_path, "http://x")
    pool = pool_of(1, locks=SlotLocks(tmp_path, "http://x"))
    assert theirs.try_acquire(0)
    waiting = asyncio.create_task(use(pool, [1]))
    await asyncio.sleep(0.01)
    await pool.aclose()
    theirs.close()
    await asyncio.sleep(0.1)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_a_model_that_cannot_take_back_needs_a_slot_whose_tokens_all_fit() -> None:
    pool = pool_of(2, reusable=whole_prefix)
    for held in ([1, 2, 3, 9], [1, 2]):
        async with pool.lease([7]) as lease:
            lease.held, lease.idle = held, True
    async with pool.lease([1, 2, 3, 4]) as lease:
        assert lease.expected_cached == 2
        async with pool.lease([1, 2, 3, 4]) as other:
            assert other.expected_cached == 0
