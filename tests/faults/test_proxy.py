"""A wire that cuts, delays, repeats, loses and garbles what the server says."""

from __future__ import annotations

import asyncio

import pytest
from faults.conftest import Place
from faults.proxy import Chance, faulty_proxy
from servers import RealServer

from agent.core.backend_manager import Request, get_backend
from agent.core.errors import BackendError
from agent.core.prompts import Prompt
from agent.core.sampling import CODING


@pytest.mark.parametrize("seed", range(4))
async def test_a_run_over_a_bad_wire_ends_in_order_and_goes_on_over_a_good_one(
    place: Place, real_server: RealServer, seed: int
) -> None:
    chance = Chance(seed, every=40)
    good = real_server.settings
    async with asyncio.timeout(40), faulty_proxy(real_server.url, chance) as url:
        bad = good.model_copy(update={"llamacpp_url": url, "request_timeout_s": 0.5})
        ended = (await place.here(bad)).result
    if ended.status != "accepted":
        assert ended.exit_code in (1, 3)
        assert ended.reason
        place.check(branches=0)
        assert ended.resumable == (ended.exit_code == 3)
    if ended.resumable:
        ended = (await place.here(good, resume=ended.run)).result
        assert ended.status == "accepted", ended.reason
    if ended.status == "accepted":
        place.check_accepted()


async def test_whatever_a_wire_does_is_an_error_of_ours(real_server: RealServer) -> None:
    """Fifty requests, and what goes before them; a bug would be another exception."""
    prompt = Prompt("You write code.", "def add(a, b):\n", "Complete the code.\n", "Go on: ")
    request = Request(prompt=prompt, sampling=CODING, max_tokens=24)
    kinds = ("cut", "reset", "twice", "lost", "garbled", "garbled")
    chance = Chance(7, every=20, kinds=kinds)
    answered, failed, without = 0, 0, []
    async with asyncio.timeout(40), faulty_proxy(real_server.url, chance) as url:
        settings = real_server.settings.model_copy(
            update={"llamacpp_url": url, "request_timeout_s": 0.3}
        )
        while answered + failed < 50:
            try:
                async with get_backend(settings) as opened:
                    while answered + failed < 50:
                        await opened.backend.complete(request)
                        answered += 1
            except BackendError as error:
                failed += 1
                without += [] if error.fix else [error]
    assert answered
    assert failed
    assert without == []
