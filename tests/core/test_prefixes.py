"""Shared prefixes on a real server: computed once, whoever needs them, and after a restart."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.core.backend_manager import Reply, Request, Usage, get_backend
from agent.core.config import Settings
from agent.core.errors import ContextTooSmall
from agent.core.folders import cache_folder
from agent.core.llamacpp_backend import LlamaCppBackend
from agent.core.llamacpp_client import LlamaCppClient
from agent.core.prefix_bank import PrefixBank, saved_prefixes
from agent.core.prompt_encoder import Encoded, PromptEncoder
from agent.core.prompts import Prompt
from agent.core.sampling import CODING
from agent.core.server_launching import open_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SHARED = "# Repository\n" + "".join(
    f"def helper_{number}(value):\n    return value + {number}\n\n" for number in range(40)
)

RULES = "".join(
    f"Rule {number}: keep the file as it is and change no more.\n" for number in range(8)
)


def ask(
    role: str, volatile: str, *, alike: int = 1, seed: int = 1, shared: str = SHARED
) -> Request:
    prompt = Prompt("You write code.", shared, f"# Role: {role}\n{RULES}", volatile)
    sampling = CODING.with_seed(seed).warmer(0.5)
    return Request(prompt=prompt, sampling=sampling, max_tokens=12, alike=alike)


@dataclass(frozen=True)
class Rig:
    """A server of our own, and both ends of what speaks to it."""

    backend: LlamaCppBackend
    client: LlamaCppClient
    bank: PrefixBank

    async def encode(self, request: Request) -> Encoded:
        encoder = PromptEncoder(self.client, bos="")
        await encoder.learn()
        return await encoder.encode(request.prompt)


@asynccontextmanager
async def rig(notices: list[str] | None = None, *, banking: bool = True) -> AsyncIterator[Rig]:
    told = notices if notices is not None else []
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_server(Settings()))
        folder = server.plan.slot_dir
        assert folder is not None
        bank = PrefixBank(folder, layout="this model", model="m", max_bytes=1 << 30)
        client = LlamaCppClient(server.url, api_key=server.api_key, stall_timeout_s=20)
        stack.push_async_callback(client.aclose)
        backend = LlamaCppBackend(
            server.url,
            api_key=server.api_key,
            stall_timeout_s=20,
            bank=bank if banking else None,
            notice=told.append,
        )
        yield Rig(await stack.enter_async_context(backend), client, bank)


def total(replies: Iterable[Reply]) -> Usage:
    return sum((reply.usage for reply in replies), Usage())


async def ideal(own: Rig, requests: Sequence[Request]) -> int:
    """Tokens when every distinct prefix is computed once, and each request's last token for it."""
    prompts = [tuple((await own.encode(request)).ids) for request in requests]
    distinct = {ids[:end] for ids in prompts for end in range(1, len(ids) + 1)}
    return len(distinct) + len(prompts) - len(set(prompts))


@pytest.mark.usefixtures("own_cache")
async def test_a_run_computes_every_distinct_token_once() -> None:
    """The traffic of one task: a plan, four candidates, their repairs, a review."""
    plan = [ask("planner", "Plan it.")]
    first = [ask("coder", "Write f.", alike=4, seed=seed) for seed in range(4)]
    repair = [ask("repair", "It fails: x != y", alike=4, seed=seed) for seed in range(4, 8)]
    review = [ask("reviewer", "+def f(x):\n+    return x")]
    async with rig() as own:
        replies = []
        for together in (plan, first, repair, review):
            replies += await asyncio.gather(
                *(own.backend.complete(request) for request in together)
            )
        used = total(replies)
        best = await ideal(own, [*plan, *first, *repair, *review])
    assert used.computed + used.cached == used.prompt
    assert used.cached == used.expected_cached
    assert not any(reply.miss for reply in replies)
    assert used.computed <= best * 1.02, (used, best)


@pytest.mark.usefixtures("own_cache")
async def test_different_prompts_at_the_same_time_compute_what_they_share_once() -> None:
    """Repository and task, and the words of their role."""
    requests = [ask("reviewer", f"{number}: is this right?") for number in range(6)]
    async with rig() as own:
        replies = await asyncio.gather(*(own.backend.complete(request) for request in requests))
        best = await ideal(own, requests)
    assert total(replies).computed <= best * 1.02
    assert len({reply.slot for reply in replies}) == 4


@pytest.mark.usefixtures("own_cache")
async def test_the_next_server_finds_the_shared_part_computed() -> None:
    async with get_backend(Settings()) as engine:
        first = await engine.backend.complete(ask("planner", "Plan it."))
    async with get_backend(Settings()) as engine:
        again = await engine.backend.complete(ask("planner", "Plan it."))
        shared = await engine.backend.count_tokens(SHARED)
    assert first.usage.cached == 0
    assert again.usage.cached >= shared - 2 > 500
    assert again.text == first.text


@pytest.mark.usefixtures("own_cache")
async def test_what_does_not_fit_is_refused_before_a_token_is_computed() -> None:
    """Shared prefix, suffix and answer count together, to the token."""
    async with rig() as own:
        context = own.backend.context
        short, longer = [len((await own.encode(filled(count))).ids) for count in (0, 100)]
        fitting = filled(100 * (context - 40 - short) // (longer - short))
        prompt = len((await own.encode(fitting)).ids)
        answer = context - prompt
        assert 0 < answer < 100
        with pytest.raises(ContextTooSmall) as caught:
            await own.backend.complete(replace(fitting, max_tokens=answer + 1))
        assert not saved_prefixes(own.bank.folder)
        reply = await own.backend.complete(replace(fitting, max_tokens=answer))
    told = [int(number) for number in re.findall(r"\d+", caught.value.message)]
    assert told == [prompt, answer + 1, context]
    assert f"Raise LLAMACPP_CONTEXT_SIZE to at least {context + 1}" in caught.value.fix
    assert reply.text
    assert reply.usage.cached == 0, "the refused one was read"


def filled(count: int) -> Request:
    return ask("coder", "Write f. " + "More is to be said. " * count)


@pytest.mark.usefixtures("own_cache")
async def test_no_bank_when_it_is_switched_off() -> None:
    async with get_backend(Settings(prefix_bank_max_mb=0)) as engine:
        for _ in range(2):
            await engine.backend.complete(ask("planner", "Plan it."))
    assert not list(cache_folder("prefixes").iterdir())


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(
    "damage",
    [
        lambda path, _: path.write_bytes(path.read_bytes()[:1000]),
        lambda path, _: path.write_bytes(path.read_bytes()[::-1]),
        lambda path, other: path.write_bytes(other.read_bytes()),
        lambda path, _: path.unlink(),
        lambda path, _: path.with_suffix(".json").unlink(),
    ],
    ids=["truncated", "scrambled", "of other tokens", "gone", "without its note"],
)
async def test_a_bad_file_is_a_miss_and_nothing_else(damage: object) -> None:
    folder = cache_folder("prefixes")
    async with rig() as own:
        first = await own.backend.complete(ask("planner", "Plan it."))
        wanted = {entry.name for entry in saved_prefixes(folder)}
        await own.backend.complete(ask("planner", "Plan it.", shared=SHARED[::-1]))
        (other,) = {entry.name for entry in saved_prefixes(folder)} - wanted
    (name,) = wanted
    assert callable(damage)
    damage(folder / f"{name}.kv", folder / f"{other}.kv")
    notices: list[str] = []
    async with rig(notices) as own:
        again = await own.backend.complete(ask("planner", "Plan it."))
    assert again.text == first.text
    assert again.usage.cached == again.usage.expected_cached == 0
    assert not [notice for notice in notices if "Prefixes" in notice]


@pytest.mark.usefixtures("own_cache")
async def test_a_file_that_only_the_server_refuses_is_a_miss() -> None:
    """Its note is right, but it is no state of this model."""
    request = ask("planner", "Plan it.")
    async with rig() as own:
        ids, bank = await own.encode(request), own.bank
        file = bank.new_file()
        (bank.folder / file).write_bytes(b"nonsense" * 1000)
        name = bank.name_of(ids.ids[: ids.shared])
        assert bank.keep(name, file, tokens=ids.shared, size=8000, passing=False)
        reply = await own.backend.complete(request)
        again = await own.backend.complete(ask("coder", "Write f."))
    assert reply.usage.cached == reply.usage.expected_cached == 0
    assert reply.miss is None
    assert again.usage.cached >= ids.shared


@pytest.mark.usefixtures("own_cache")
async def test_a_disk_that_is_full_costs_a_notice_and_the_gain() -> None:
    notices: list[str] = []
    requests = [ask("coder", f"Write function number {number}.") for number in range(3)]
    async with rig(notices) as own:
        for number in range(100):
            for path in _next_names(cache_folder("prefixes"), number):
                path.symlink_to("/dev/full")
        replies = await asyncio.gather(*(own.backend.complete(request) for request in requests))
        used = total(replies)
    assert all(reply.text for reply in replies)
    assert used.computed == used.prompt
    assert len([notice for notice in notices if "Prefixes cannot be saved" in notice]) == 1


def _next_names(folder: Path, number: int) -> list[Path]:
    """Where the bank of this process lets the server write next."""
    bank = PrefixBank(folder, layout="", model="", max_bytes=0)
    for _ in range(number):
        bank.new_file()
    path = folder / bank.new_file()
    return [] if path.exists() else [path]


@pytest.mark.usefixtures("own_cache")
async def test_a_folder_that_vanished_costs_a_notice_and_the_gain() -> None:
    notices: list[str] = []
    async with rig(notices) as own:
        folder = cache_folder("prefixes")
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        replies = [await own.backend.complete(ask("coder", f"Write {name}.")) for name in "fgh"]
    assert all(reply.text for reply in replies)
    assert len([notice for notice in notices if "Prefixes cannot be saved" in notice]) == 1


@pytest.mark.usefixtures("own_cache")
async def test_one_that_is_cancelled_while_it_computes_for_others_leaves_them_whole() -> None:
    requests = [ask("coder", "Write f.", alike=3, seed=seed) for seed in range(3)]
    async with rig() as own:
        for delay_s in (0.0, 0.002, 0.01, 0.03):
            tasks = [asyncio.create_task(own.backend.complete(request)) for request in requests]
            await asyncio.sleep(delay_s)
            tasks[0].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for reply in results[1:]:
                assert isinstance(reply, Reply)
                assert reply.miss is None
                assert reply.usage.computed + reply.usage.cached == reply.usage.prompt


@pytest.mark.usefixtures("own_cache")
async def test_a_server_that_lost_its_slots_is_a_miss_that_says_where() -> None:
    async with rig(banking=False) as own:
        first = await own.backend.complete(ask("coder", "Write f."))
        assert first.slot is not None
        await own.client.erase_slot(first.slot)
        reply = await own.backend.complete(ask("coder", "Write f."))
        third = await own.backend.complete(ask("coder", "Write f."))
    assert reply.text == first.text
    assert reply.miss is not None
    assert (reply.miss.slot, reply.miss.cached) == (first.slot, 0)
    assert reply.miss.expected == reply.usage.prompt - 1
    assert reply.miss.around.startswith("<|im_start|>system\nYou write")
    assert third.miss is None


@pytest.mark.usefixtures("own_cache")
async def test_speculation_tells_what_it_guessed_and_changes_no_answer() -> None:
    """A schema that makes the model copy what its prompt holds: nothing is easier to guess."""
    text = ", ".join(f"item {number} costs {number * 7 % 23}" for number in range(60))
    request = replace(
        ask("coder", f"Copy this: {text}"), json_schema={"const": text}, max_tokens=900
    )
    replies = []
    for way in ("off", "ngram"):
        async with get_backend(Settings.model_validate({"llamacpp_speculation": way})) as engine:
            replies.append(await engine.backend.complete(request))
    plain, guessed = replies
    assert guessed.text == plain.text
    assert plain.usage.drafted == 0
    assert guessed.usage.drafted >= guessed.usage.accepted > 50
