from __future__ import annotations

import asyncio
import socket

import pytest
from fakes.http_server import Call, Hangup, Responder
from fakes.ollama_server import (
    MODEL,
    TOO_LONG,
    Chat,
    FakeOllama,
    end,
    line,
    piece,
    refuse,
    say,
)
from pydantic import BaseModel, Field

from agent.core.backend_manager import Progress, Request, get_backend
from agent.core.config import Settings
from agent.core.errors import (
    BackendError,
    BackendStalled,
    BackendUnavailable,
    BadAnswer,
    ContextTooSmall,
    SettingsError,
)
from agent.core.prompts import Prompt
from agent.core.sampling import CODING

PROMPT = Prompt("You write code.", "repository\n", "role\n", "def f(x):\n")
ASK = Request(prompt=PROMPT, sampling=CODING, max_tokens=16)


def settings(url: str, *, model: str = MODEL, stall_s: float = 5.0) -> Settings:
    return Settings(
        backend="ollama", ollama_local=url, ollama_model=model, request_timeout_s=stall_s
    )


async def test_opening_reads_what_is_there() -> None:
    lines: list[str] = []
    async with (
        FakeOllama() as server,
        get_backend(settings(server.url + "/"), notice=lines.append) as opened,
    ):
        backend = opened.backend
        assert (backend.name, backend.model, backend.slots) == ("ollama", MODEL, 1)
        assert backend.context == 2048, "the model's own limit holds"
        assert "0.34.0" in opened.description
    assert len(lines) == 1


async def test_an_old_ollama_that_cuts_silently_is_named() -> None:
    lines: list[str] = []
    async with (
        FakeOllama(version="0.5.7") as server,
        get_backend(settings(server.url), notice=lines.append),
    ):
        pass
    assert "0.5.7 cuts prompts" in lines[0]


async def test_a_model_that_was_not_pulled() -> None:
    async with FakeOllama() as server:
        with pytest.raises(BackendError, match="ollama pull absent:7b") as caught:
            async with get_backend(settings(server.url, model="absent:7b")):
                pass
    assert MODEL in str(caught.value)


async def test_nothing_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BackendUnavailable, match="ollama serve"):
            async with get_backend(settings(url)):
                pass


async def test_no_address() -> None:
    with pytest.raises(SettingsError, match="OLLAMA_LOCAL"):
        async with get_backend(settings("nowhere")):
            pass


async def test_what_is_sent_and_what_comes_back() -> None:
    chat = say(piece("ab"), piece("c") + end(30, 2, cached=20)[:9], end(30, 2, cached=20)[9:])
    seen: list[Progress] = []
    async with FakeOllama(chat) as server, get_backend(settings(server.url)) as opened:
        reply = await opened.backend.complete(ASK, seen.append)
        (body,) = server.chats
    assert (reply.text, reply.finish, reply.seed, reply.slot) == ("abc", "stop", 1, None)
    usage = reply.usage
    assert (usage.prompt, usage.computed, usage.cached, usage.predicted) == (30, 10, 20, 2)
    assert (reply.timing.prefill_s, reply.timing.decode_s) == (0.002, 0.003)
    assert [x.phase for x in seen] == ["queued", "prefill", "decode", "decode"]
    assert body["messages"] == PROMPT.messages
    assert (body["stream"], body["think"], body["truncate"], body["shift"]) == (True, *[False] * 3)
    assert body["options"] == {
        "num_ctx": 2048,
        "num_predict": 16,
        "seed": 1,
        "temperature": 0.05,
        "top_k": 20,
        "top_p": 0.85,
        "repeat_penalty": 1.0,
    }
    assert "format" not in body


async def test_without_a_cached_count_everything_counts_as_computed() -> None:
    async with (
        FakeOllama(say(piece("a"), end(30, 1, "length"))) as server,
        get_backend(settings(server.url)) as opened,
    ):
        reply = await opened.backend.complete(ASK)
    assert (reply.finish, reply.usage.computed, reply.usage.cached) == ("length", 30, 0)


async def hang_up(call: Call, reply: Responder) -> None:
    await reply.begin()
    await reply.chunk(piece("a"))
    raise Hangup


async def stall(call: Call, reply: Responder) -> None:
    await reply.begin()
    await asyncio.sleep(30)


@pytest.mark.parametrize(
    ("chat", "error", "words"),
    [
        (refuse(400, TOO_LONG), ContextTooSmall, "LLAMACPP_CONTEXT_SIZE"),
        (refuse(500, "no memory"), BackendError, r"\(500\): no memory"),
        (refuse(503, "queue is full"), BackendUnavailable, "queue is full"),
        (say(piece("a"), line({"error": "runner died"})), BackendError, "runner died"),
        (say(piece("a")), BackendUnavailable, "ended the stream"),
        (say(b"<html>\n"), BackendError, "form that we do not know"),
        (hang_up, BackendUnavailable, "was lost"),
        (stall, BackendStalled, r"for 0\.3 s"),
    ],
)
async def test_failures(chat: Chat, error: type[BackendError], words: str) -> None:
    async with (
        FakeOllama(chat, say(piece("b"), end(9, 1))) as server,
        get_backend(settings(server.url, stall_s=0.3)) as opened,
    ):
        with pytest.raises(error, match=words):
            await opened.backend.complete(ASK)
        assert (await opened.backend.complete(ASK)).text == "b", "the turn must be free again"


async def test_a_prompt_that_is_surely_too_long_is_not_sent() -> None:
    long = Request(prompt=Prompt("", "word " * 2000, "", ""), sampling=CODING, max_tokens=16)
    async with FakeOllama() as server, get_backend(settings(server.url)) as opened:
        with pytest.raises(ContextTooSmall):
            await opened.backend.complete(long)
        assert server.chats == []


async def test_a_loop_is_cut() -> None:
    async with (
        FakeOllama(say(*[piece("pass\n")] * 900, end(9, 900))) as server,
        get_backend(settings(server.url)) as opened,
    ):
        reply = await opened.backend.complete(ASK)
    assert reply.finish == "length"
    assert len(reply.text) < 1000


class Note(BaseModel):
    note: str = Field(max_length=20)


async def test_json_has_the_schema_as_format_and_is_checked() -> None:
    async with (
        FakeOllama(say(piece('{"note":"x"}'), end(9, 5)), say(piece("x"), end(9, 1))) as server,
        get_backend(settings(server.url)) as opened,
    ):
        note, _ = await opened.backend.complete_json(ASK, Note)
        assert note.note == "x"
        assert server.chats[0]["format"] == Note.model_json_schema()
        with pytest.raises(BadAnswer, match="It begins: x"):
            await opened.backend.complete_json(ASK, Note)


async def test_requests_wait_for_one_another() -> None:
    running = 0

    async def chat(call: Call, reply: Responder) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.02)
        running -= 1
        await say(piece("a"), end(9, 1))(call, reply)

    async with FakeOllama(chat, chat, chat) as server, get_backend(settings(server.url)) as opened:
        replies = await asyncio.gather(*(opened.backend.complete(ASK) for _ in range(3)))
    assert max(reply.timing.queued_s for reply in replies) > 0.03
