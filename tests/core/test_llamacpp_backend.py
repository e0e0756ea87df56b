"""The backend against faults on the wire (fake server) and against the real server's slots."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

import httpx
import pytest
from fakes.http_server import Call, FakeHttpServer, Responder
from fakes.llama_server import (
    GARBLED,
    KEY,
    FakeLlamaServer,
    answer,
    end_early,
    error,
    fail_midway,
    hang_up,
    read_on,
    refuse,
    stall,
)
from pydantic import BaseModel, Field, SecretStr
from servers import RealServer

from agent.core import llamacpp_client
from agent.core.backend_manager import Progress, Request, get_backend
from agent.core.config import Settings
from agent.core.errors import (
    BackendError,
    BackendStalled,
    BackendUnavailable,
    BadAnswer,
    ContextTooSmall,
    GarbledOutput,
    ServerError,
    SettingsError,
)
from agent.core.llamacpp_backend import LlamaCppBackend
from agent.core.prompts import Prompt
from agent.core.sampling import CODING

PROMPT = Prompt("You write code.", "repository\n", "role\n", "def f(x):")


def ask(volatile: str = "", *, tokens: int = 16, prompt: Prompt = PROMPT) -> Request:
    written = Prompt(prompt.system, prompt.shared, prompt.role, prompt.volatile + volatile)
    return Request(prompt=written, sampling=CODING, max_tokens=tokens)


@asynccontextmanager
async def backend_on(server: FakeLlamaServer, **more: object) -> AsyncIterator[LlamaCppBackend]:
    arguments = {"api_key": KEY, "stall_timeout_s": 5.0} | more
    async with LlamaCppBackend(server.url, **arguments) as backend:  # type: ignore[arg-type]
        yield backend


async def test_what_is_served_is_read_from_props() -> None:
    async with FakeLlamaServer(context=2048, slots=3) as server, backend_on(server) as backend:
        assert (backend.context, backend.slots, backend.model) == (2048, 3, "fake")


async def test_a_reply_carries_what_the_server_told() -> None:
    async with (
        FakeLlamaServer(answer("ab", "c", cached=5)) as server,
        backend_on(server) as backend,
    ):
        reply = await backend.complete(ask())
    usage = reply.usage
    assert (reply.text, reply.finish, reply.seed) == ("abc", "stop", CODING.seed)
    assert usage.cached == 5
    assert usage.computed + usage.cached == usage.prompt
    assert usage.predicted == 2
    assert (reply.timing.prefill_s, reply.timing.decode_s) == (0.002, 0.003)


async def test_what_is_sent_is_pinned_streamed_and_sampled_by_the_preset() -> None:
    async with FakeLlamaServer(answer("a")) as server, backend_on(server) as backend:
        await backend.complete(ask(tokens=7))
        (body,) = server.completions
    assert body | {"prompt": None} == {
        "prompt": None,
        "id_slot": 0,
        "n_predict": 7,
        "cache_prompt": True,
        "stream": True,
        "return_progress": True,
        "seed": 1,
        "samplers": ["top_k", "top_p", "temperature"],
        "top_k": 20,
        "top_p": 0.85,
        "temperature": 0.05,
    }


async def test_the_expectation_is_what_the_slot_held() -> None:
    both = len(f"<system>{PROMPT.system}<user>{PROMPT.user}")
    async with (
        FakeLlamaServer(
            answer("a", "b"), answer("a", "b", cached=both), answer("a", "b")
        ) as server,
        backend_on(server) as backend,
    ):
        first = await backend.complete(ask("1"))
        second = await backend.complete(ask("2"))
        again = await backend.complete(ask("2"))
    assert first.usage.expected_cached == 0
    assert second.usage.expected_cached == second.usage.prompt - len("2<assistant>")
    assert again.usage.expected_cached == again.usage.prompt - 1
    assert again.miss is not None  # this server claims that it had nothing
    assert (again.miss.expected, again.miss.cached) == (again.usage.prompt - 1, 0)
    assert again.miss.around == "<system>You "


async def test_a_prompt_is_encoded_once_and_the_template_is_not_asked_again() -> None:
    async with (
        FakeLlamaServer(*[answer("a")] * 5) as server,
        backend_on(server) as backend,
    ):
        opening = len(server.calls)
        await asyncio.gather(*(backend.complete(ask()) for _ in range(4)))
        await backend.complete(ask("other"))
        paths = [call.path for call in server.calls[opening:]]
        prompt = "".join(map(chr, server.completions[0]["prompt"]))
    assert paths.count("/apply-template") == 0
    assert paths.count("/tokenize") == 2
    assert prompt == f"<system>{PROMPT.system}<user>{PROMPT.user}<assistant>"


def shouting(system: str, user: str) -> str:
    return f"[{system}|{user.replace('<', '&lt;')}]"


def stripping(system: str, user: str) -> str:
    return f"[{system.strip()}|{user.strip()}]"


def counting(system: str, user: str) -> str:
    return f"[{len(system)}|{system}|{user}]"


def echoing(system: str, user: str) -> str:
    return f"[{system}|{user}|{system}]"


def merging(system: str, user: str) -> str:
    return f"[INST]{system}\n\n{user}[/INST]"


@pytest.mark.parametrize("template", [shouting, stripping, counting, echoing, merging])
@pytest.mark.parametrize("volatile", ["", " <b>\n"])
async def test_every_template_is_followed(
    template: Callable[[str, str], str], volatile: str
) -> None:
    async with (
        FakeLlamaServer(answer("a"), template=template) as server,
        backend_on(server) as backend,
    ):
        await backend.complete(ask(volatile))
        sent = "".join(map(chr, server.completions[0]["prompt"]))
    assert sent == template(PROMPT.system, PROMPT.user + volatile)


async def test_a_doubled_bos_is_dropped() -> None:
    async with (
        FakeLlamaServer(answer("a"), bos="^") as server,
        backend_on(server) as backend,
    ):
        await backend.complete(ask())
        ids = server.completions[0]["prompt"]
    assert "".join(map(chr, ids)).startswith("^<system>")


async def test_progress_goes_from_the_queue_to_the_last_token() -> None:
    seen: list[Progress] = []
    async with (
        FakeLlamaServer(answer("a", "b")) as server,
        backend_on(server) as backend,
    ):
        reply = await backend.complete(ask(), seen.append)
    prompt = reply.usage.prompt
    assert [(x.phase, x.slot, x.prompt, x.done) for x in seen] == [
        ("queued", None, prompt, 0),
        ("prefill", 0, prompt, prompt),
        ("decode", 0, prompt, 1),
        ("decode", 0, prompt, 2),
    ]


@pytest.mark.parametrize(
    "trouble",
    [
        refuse(503, error(503, "Loading model", "unavailable_error")),
        refuse(503, b"<html>a proxy</html>"),
        hang_up(begun=False),
    ],
)
async def test_what_patience_mends_is_sent_again(trouble: object) -> None:
    async with (
        FakeLlamaServer(trouble, trouble, answer("a")) as server,  # type: ignore[arg-type]
        backend_on(server) as backend,
    ):
        assert (await backend.complete(ask())).text == "a"


async def test_a_server_that_comes_back_in_time_is_waited_for() -> None:
    async with FakeLlamaServer() as first, backend_on(first) as backend:
        await first.stop()
        asking = asyncio.create_task(backend.complete(ask()))
        await asyncio.sleep(0.2)
        assert not asking.done()
        async with FakeLlamaServer(answer("back"), port=first.port):
            assert (await asking).text == "back"


async def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llamacpp_client, "_RETRY_FOR_S", 0.12)
    busy = refuse(503, error(503, "Loading model", "unavailable_error"))
    async with FakeLlamaServer(busy, busy) as server, backend_on(server) as backend:
        with pytest.raises(BackendUnavailable, match="not ready: Loading model"):
            await backend.complete(ask())


@pytest.mark.parametrize("trouble", [hang_up("a", "b"), end_early("a")])
async def test_a_stream_that_breaks_off_is_no_answer_and_frees_its_slot(trouble: object) -> None:
    async with (
        FakeLlamaServer(trouble, answer("c"), slots=1) as server,  # type: ignore[arg-type]
        backend_on(server) as backend,
    ):
        with pytest.raises(BackendUnavailable):
            await backend.complete(ask())
        assert (await backend.complete(ask())).text == "c"


@pytest.mark.parametrize("pings", [False, True])
async def test_silence_is_a_stall_and_pings_are_silence(pings: bool) -> None:
    async with (
        FakeLlamaServer(stall("a", pings=pings)) as server,
        backend_on(server, stall_timeout_s=0.2) as backend,
    ):
        with pytest.raises(BackendStalled, match=r"for 0\.2 s"):
            await backend.complete(ask())


async def test_progress_that_does_not_get_further_is_a_stall() -> None:
    async with (
        FakeLlamaServer(read_on(0, 1, 2, forever=True)) as server,
        backend_on(server, stall_timeout_s=0.3) as backend,
    ):
        with pytest.raises(BackendStalled, match=r"for 0\.3 s"):
            await backend.complete(ask())


async def test_progress_that_gets_further_is_life() -> None:
    steps = range(20)  # longer than the silence that is allowed
    async with (
        FakeLlamaServer(read_on(*steps, forever=False)) as server,
        backend_on(server, stall_timeout_s=0.5) as backend,
    ):
        assert (await backend.complete(ask())).usage.predicted == 0


async def test_garbled_output_is_asked_for_with_another_seed() -> None:
    garbled = error(500, GARBLED)
    async with (
        FakeLlamaServer(refuse(500, garbled), fail_midway(garbled, "a"), answer("ok")) as server,
        backend_on(server) as backend,
    ):
        reply = await backend.complete(ask())
        sent = [(body["seed"], body["temperature"]) for body in server.completions]
    assert reply.text == "ok"
    assert reply.seed == sent[-1][0]
    assert len({seed for seed, _ in sent}) == 3
    assert [temperature for _, temperature in sent] == [0.05, 0.3, 0.3]


async def test_garbled_output_is_given_up_after_two_retries() -> None:
    garbled = refuse(500, error(500, GARBLED))
    async with (
        FakeLlamaServer(garbled, garbled, garbled) as server,
        backend_on(server) as backend,
    ):
        with pytest.raises(GarbledOutput):
            await backend.complete(ask())


async def test_any_other_refusal_is_passed_on_at_once() -> None:
    bad = error(400, "unknown grammar", "invalid_request_error")
    async with FakeLlamaServer(refuse(400, bad)) as server, backend_on(server) as backend:
        with pytest.raises(BackendError, match=r"\(400\): unknown grammar"):
            await backend.complete(ask())


async def test_a_prompt_that_does_not_fit_is_not_sent() -> None:
    async with FakeLlamaServer(context=100) as server, backend_on(server) as backend:
        with pytest.raises(ContextTooSmall, match="LLAMACPP_CONTEXT_SIZE") as caught:
            await backend.complete(ask(tokens=90))
        assert server.completions == []
    assert (caught.value.answer, caught.value.context) == (90, 100)


async def test_the_servers_own_refusal_of_a_long_prompt() -> None:
    more = {"n_prompt_tokens": 300, "n_ctx": 256}
    body = error(400, "too long", "exceed_context_size_error", **more)
    async with FakeLlamaServer(refuse(400, body)) as server, backend_on(server) as backend:
        with pytest.raises(ContextTooSmall) as caught:
            await backend.complete(ask(tokens=16))
    assert (caught.value.prompt, caught.value.answer, caught.value.context) == (300, 16, 256)


async def test_a_loop_is_cut() -> None:
    async with (
        FakeLlamaServer(answer("x = 1\n", *["pass\n"] * 900)) as server,
        backend_on(server) as backend,
    ):
        reply = await backend.complete(ask(tokens=512))
    assert reply.finish == "length"
    assert 600 < len(reply.text) < 1000
    assert reply.usage.computed + reply.usage.cached == reply.usage.prompt


async def test_a_reply_in_an_unknown_form_is_an_error_of_the_server() -> None:
    async with (
        FakeLlamaServer(fail_midway({"surprise": 1})) as server,
        backend_on(server) as backend,
    ):
        with pytest.raises(BackendError, match="form that we do not know"):
            await backend.complete(ask())


async def test_a_server_that_died_says_why() -> None:
    async with (
        FakeLlamaServer(hang_up("a")) as server,
        backend_on(server, died=lambda: ServerError("llama-server was killed")) as backend,
    ):
        with pytest.raises(ServerError, match="was killed"):
            await backend.complete(ask())


class Verdict(BaseModel):
    verdict: Literal["accept", "revise"]
    reason: str = Field(max_length=40)


async def test_json_is_constrained_and_checked() -> None:
    good, bad = '{"verdict":"accept","reason":"ok"}', '{"verdict":"maybe"}'
    async with (
        FakeLlamaServer(answer(good), answer(bad), answer(good[:12], stop="limit")) as server,
        backend_on(server) as backend,
    ):
        verdict, reply = await backend.complete_json(ask(), Verdict)
        assert (verdict.verdict, reply.text) == ("accept", good)
        with pytest.raises(BadAnswer, match=r"verdict: Input should be .*reason: Field required"):
            await backend.complete_json(ask(), Verdict)
        with pytest.raises(BadAnswer, match="cut off after 1 tokens"):
            await backend.complete_json(ask(), Verdict)
        assert server.completions[0]["json_schema"].items() >= Verdict.model_json_schema().items()


def attached(url: str, key: str | None = KEY) -> Settings:
    secret = SecretStr(key) if key else None
    return Settings(llamacpp_url=url, llamacpp_api_key=secret, llamacpp_start_timeout_s=2)


async def test_attaching_waits_for_the_model() -> None:
    lines: list[str] = []
    async with FakeLlamaServer() as server:
        server.health = [503, 503]
        async with get_backend(attached(server.url + "/"), notice=lines.append) as opened:
            assert "2 slots x 1024 tokens" in opened.description
            assert opened.server_log is None
    assert server.url in lines[0]


async def test_one_that_accepts_and_never_answers_is_given_up_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(llamacpp_client, "_SILENT_AFTER_S", 0.05)
    monkeypatch.setattr(llamacpp_client, "_HUNG_AFTER_S", 0.2)
    lines: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(BackendStalled, match="LLAMACPP_URL") as caught:
            async with get_backend(attached(url), notice=lines.append):
                pass
    assert any("Waiting for" in line for line in lines)
    assert "secret" not in f"{lines} {caught.value}"


async def test_what_is_no_llama_server_is_called_so() -> None:
    async def page(call: Call, reply: Responder) -> None:
        await reply.send(404, b"<!DOCTYPE html><html>not found</html>")

    async with FakeHttpServer(page) as server:
        with pytest.raises(BackendError, match="is no llama-server") as caught:
            async with get_backend(attached(server.url)):
                pass
    assert "html" not in str(caught.value)
    assert "LLAMACPP_URL" in caught.value.fix


@pytest.mark.parametrize("key", [None, "wrong"])
async def test_a_wrong_key_names_the_setting(key: str | None) -> None:
    async with FakeLlamaServer() as server:
        with pytest.raises(BackendError, match="LLAMACPP_API_KEY"):
            async with get_backend(attached(server.url, key)):
                pass


async def test_nothing_there_names_the_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BackendUnavailable, match="LLAMACPP_URL"):
            async with get_backend(attached(url)):
                pass


async def test_no_address_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match="LLAMACPP_URL=here"):
        async with get_backend(attached("here")):
            pass


class Slots:
    """The real server's own view of its slots."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def busy(self) -> set[int]:
        slots = (await self._client.get("/slots")).json()
        return {slot["id"] for slot in slots if slot["is_processing"]}

    async def idle_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                while await self.busy():
                    await asyncio.sleep(0.005)
        except TimeoutError:
            return False
        return True


@pytest.fixture
async def slots(real_server: RealServer) -> AsyncIterator[Slots]:
    async with httpx.AsyncClient(
        base_url=real_server.url, headers=real_server.headers, trust_env=False
    ) as client:
        yield Slots(client)


def ask_long(seed: int, *, items: int = 300) -> Request:
    """An answer of some tokens for each item, whatever the model would like to say."""
    many = {
        "type": "array",
        "items": {"type": "integer", "minimum": 0, "maximum": 999999},
        "minItems": items,
        "maxItems": items,
    }
    hot = CODING.warmer(1.5).with_seed(seed)
    return Request(prompt=PROMPT, sampling=hot, max_tokens=3500, json_schema=many)


async def until_decoding(task: asyncio.Task[object], seen: list[Progress]) -> None:
    async with asyncio.timeout(20):
        while not task.done() and not any(x.phase == "decode" for x in seen):
            await asyncio.sleep(0.002)


async def test_cancelling_frees_the_real_slot_long_before_the_answer_would_end(
    real_server: RealServer, slots: Slots
) -> None:
    async with get_backend(real_server.settings) as opened:
        for seed in range(1, 5):
            seen: list[Progress] = []
            task = asyncio.create_task(
                opened.backend.complete(ask_long(seed, items=700), seen.append)
            )
            await until_decoding(task, seen)
            assert len(await slots.busy()) == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await slots.idle_within(1)


async def test_requests_spread_over_the_slots_and_never_share_one(real_server: RealServer) -> None:
    running: list[int] = []
    most = 0

    async def one(request: Request) -> int:
        nonlocal most
        mine: int | None = None

        def watch(progress: Progress) -> None:
            nonlocal most, mine
            if progress.slot is not None and mine is None:
                mine = progress.slot
                assert mine not in running, "two requests in one slot"
                running.append(mine)
                most = max(most, len(running))

        reply = await opened.backend.complete(request, watch)
        assert reply.slot == mine is not None
        running.remove(mine)
        return mine

    async with get_backend(real_server.settings) as opened:
        assert opened.backend.slots == real_server.slots == 4
        used = await asyncio.gather(*(one(ask_long(x, items=200)) for x in range(4)))
        assert set(used) == {0, 1, 2, 3}
        used = await asyncio.gather(*(one(ask_long(x, items=20)) for x in range(8)))
        assert len(used) == 8
    assert most == 4


async def test_the_second_time_a_prompt_comes_from_the_cache(real_server: RealServer) -> None:
    prompt = Prompt("You write code.", "shared words " * 50, "role\n", "cache test")
    async with get_backend(real_server.settings) as opened:
        await opened.backend.complete(ask(prompt=prompt, tokens=4))
        again = await opened.backend.complete(ask(prompt=prompt, tokens=4))
    assert again.usage.computed == 1
    assert again.usage.cached == again.usage.expected_cached == again.usage.prompt - 1
