"""What a restored prefix is good for, by how a model keeps its past: on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny_models import WINDOW, Kind, write_tiny_model

from agent.core.backend_manager import Reply, Request, Usage, get_backend
from agent.core.config import Settings, cache_dir, embedded_model
from agent.core.gguf_info import read_gguf
from agent.core.kv_layout import layout_of
from agent.core.llamacpp_binary import find_binary
from agent.core.llamacpp_client import LlamaCppClient
from agent.core.prefix_bank import PrefixBank
from agent.core.prompts import Prompt
from agent.core.restore_probe import Restore, find_restore
from agent.core.sampling import CODING
from agent.core.server_launching import open_server

KINDS: tuple[Kind, ...] = ("recurrent", "hybrid", "window")
RULES = "".join(f"Rule {x}: change no more. " for x in range(12))
SYSTEM = f"You write code. {RULES}"
HELPERS = [f"def helper_{x}(value):\n    return value + {x}\n\n" for x in range(30)]
SHARED = "# Repository\n" + "".join(HELPERS)
OTHER = "# Repository\n" + "".join(HELPERS[::-1])
PARTED = "# Repository\n" + "".join(HELPERS[:16]) + "class Other:\n    pass\n\n" * 5
"""Begins as SHARED does, and parts from it long before its end."""


def ask(
    role: str, volatile: str, *, shared: str = SHARED, tokens: int = 10, alike: int = 1
) -> Request:
    prompt = Prompt(SYSTEM, shared, f"# Role: {role}\nKeep the file as it is.\n", volatile)
    return Request(prompt=prompt, sampling=CODING, max_tokens=tokens, alike=alike)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    paths = {kind: folder / f"{kind}.gguf" for kind in KINDS}
    for kind, path in paths.items():
        write_tiny_model(kind, path)
    return {**paths, "full": embedded_model()}


def without_full_window(folder: Path) -> Path:
    """A llama-server that does not know --swa-full."""
    real = find_binary(Settings(), cache=cache_dir() / "binaries").path
    path = folder / "llama-server"
    path.write_text(
        "#!/bin/sh\n"
        f'case $1 in --help) {real} --help | grep -v -e --swa-full;; *) exec {real} "$@";; esac\n'
    )
    path.chmod(0o755)
    return path


async def restore_on(settings: Settings) -> Restore:
    async with open_server(settings) as server:
        folder = server.plan.slot_dir
        assert folder is not None
        layout = layout_of(server.plan.argv, model="model", build="build")
        bank = PrefixBank(folder, layout=layout, model="m", max_bytes=1 << 30)
        client = LlamaCppClient(server.url, api_key=server.api_key, stall_timeout_s=20)
        try:
            first = await find_restore(client, bank)
            assert await find_restore(client, bank) is first, "the kept answer is another one"
        finally:
            await client.aclose()
        assert not list(folder.iterdir())
        return first


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(
    ("kind", "restore"),
    [
        ("full", Restore.ANY),
        ("recurrent", Restore.EXTENSION),
        ("hybrid", Restore.EXTENSION),
        ("window", Restore.EXTENSION),
    ],
)
async def test_what_a_restored_state_serves(
    kind: str, restore: Restore, models: dict[str, Path]
) -> None:
    assert await restore_on(Settings(llamacpp_model_path=models[kind])) is restore


@pytest.mark.usefixtures("own_cache")
async def test_a_window_that_is_not_kept_whole_serves_nothing(
    models: dict[str, Path], tmp_path: Path
) -> None:
    assert read_gguf(models["window"]).sliding_window == WINDOW
    settings = Settings(
        llamacpp_model_path=models["window"], llamacpp_binary_path=without_full_window(tmp_path)
    )
    assert await restore_on(settings) is Restore.NONE


async def answers(settings: Settings, requests: Sequence[Request]) -> list[Reply]:
    async with get_backend(settings) as engine:
        return [await engine.backend.complete(request) for request in requests]


RUNS = (
    # Two tasks after one another; then prompts of next to no task, and one asked for again.
    [
        ask("planner", "Plan it."),
        ask("coder", "Write f."),
        ask("planner", "Plan it.", shared=OTHER),
        ask("coder", "Write g.", shared=OTHER, tokens=1),
        ask("coder", "Write g.", shared=OTHER),
        ask("reviewer", "Is it", shared=""),
        ask("reviewer", "Is it wrong?", shared=""),
    ],
    # The first one has its task restored from a file, from which the second one parts.
    [ask("coder", "Write h."), ask("planner", "Plan it.", shared=PARTED)],
    # What was computed then serves here.
    [ask("coder", "Write k.", shared=PARTED), ask("reviewer", "Is it right?")],
)
"""One server each, with one slot, so that each request follows the last one in it."""


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("kind", ["full", *KINDS])
async def test_saved_prefixes_change_no_answer(kind: str, models: dict[str, Path]) -> None:
    settings = {"llamacpp_model_path": models[kind], "llamacpp_parallel": 1}
    texts = []
    for requests in RUNS:
        plain = await answers(Settings(prefix_bank_max_mb=0, **settings), requests)
        saved = await answers(Settings(**settings), requests)
        assert [reply.text for reply in saved] == [reply.text for reply in plain]
        texts += [reply.text for reply in plain]
        for reply in saved:
            assert reply.miss is None
            assert reply.usage.computed + reply.usage.cached == reply.usage.prompt
    assert len(set(texts)) > 2, "a model that says the same whatever it reads proves nothing"
    for reply in saved:
        assert reply.usage.cached > reply.usage.prompt / 2


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_run_computes_little_twice(kind: str, models: dict[str, Path]) -> None:
    """The traffic of one task over four slots: a plan, four candidates, their repairs, a review."""
    steps = [
        [ask("planner", "Plan it.")],
        [ask("coder", f"Write f. {RULES}", alike=4)] * 4,
        [ask("repair", f"It fails: x != y {RULES}", alike=4)] * 4,
        [ask("reviewer", "+def f(x):\n+    return x")],
    ]
    replies: list[list[Reply]] = []
    async with get_backend(Settings(llamacpp_model_path=models[kind])) as engine:
        for together in steps:
            replies.append(await asyncio.gather(*map(engine.backend.complete, together)))
        shared = await engine.backend.count_tokens(SYSTEM + SHARED)
    assert not [reply.miss for step in replies for reply in step if reply.miss]
    used = sum((reply.usage for step in replies for reply in step), Usage())
    assert used.cached == used.expected_cached
    once = shared + sum(step[0].usage.prompt - shared for step in replies)
    last_tokens = sum(len(step) - 1 for step in replies)
    assert used.computed <= once + last_tokens


@pytest.mark.usefixtures("own_cache")
async def test_a_window_that_is_not_kept_whole_still_answers(
    models: dict[str, Path], tmp_path: Path
) -> None:
    settings = {"llamacpp_model_path": models["window"], "llamacpp_parallel": 1}
    plain = await answers(Settings(prefix_bank_max_mb=0, **settings), RUNS[0])
    older = without_full_window(tmp_path)
    replies = await answers(Settings(llamacpp_binary_path=older, **settings), RUNS[0])
    assert [reply.text for reply in replies] == [reply.text for reply in plain]
