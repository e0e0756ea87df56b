"""`turbo bench` as a user starts it: real server, real process, an Ollama on the wire."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import shutil
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fakes.ollama_server import MODEL, FakeOllama, ThinkingChat
from servers import RealServer

from agent.core.config import cache_dir
from agent.core.errors import UsageError
from agent.measure import bench_shape
from agent.measure.bench_shape import shape_files, wish_of
from agent.measure.model_shapes import SHAPES, Shape

TINY = Shape(
    name="tiny-qwen",
    architecture="qwen2",
    layers=8,
    width=128,
    heads=4,
    key_value_heads=2,
    feed_forward=192,
    vocabulary=2500,
    context=4096,
    rope_base=1_000_000.0,
    epsilon=1e-6,
    tied=True,
)
SMALL = ("--repeat", "1", "--prompt-tokens", "300", "--answer-tokens", "16")
REQUESTS = {
    *("ready", "first_token_cold", "first_token_warm", "first_token_restart"),
    *("prefill", "prefill_all", "decode", "decode_all"),
    *("candidates_cached", "candidates_uncached", "workflow", "workflow_read"),
}


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def data(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.out)
        return loaded


async def turbo(*words: str, **environment: str) -> Ended:
    """One run of the command; the loop goes on meanwhile, for the fake that lives in it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | environment,
    )
    out, err = await process.communicate()
    return Ended(process.returncode or 0, out.decode(), err.decode())


def left_over() -> list[str]:
    """What a benchmark may have left in the cache."""
    kept = [x for name in ("bench", "shapes") for x in (cache_dir() / name).glob("*")]
    return [x.name for x in kept]


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_the_embedded_model_is_measured_in_all_forms(tmp_path: Path) -> None:
    done = await turbo(
        *("bench", *SMALL, "--csv", "-"),
        *("--markdown", str(tmp_path / "b.md"), "--json", str(tmp_path / "b.json")),
    )
    assert done.code == 0, done.err
    data = json.loads((tmp_path / "b.json").read_text())
    (side,) = data["sides"]
    figures = {key: found["median"] for key, found in side["figures"].items()}
    assert figures.keys() == REQUESTS | {"run", "server_memory", "own_memory"}
    assert all(value > 0 for value in figures.values())
    assert figures["first_token_warm"] < figures["first_token_cold"]
    assert figures["candidates_cached"] < figures["candidates_uncached"]
    assert side["model"]["quantisation"] == "Q8_0"
    assert side["model"]["parameters"] == 4_952_064
    assert not any("cached all the same" in note for note in data["notes"])
    assert "| writing, one answer | tokens/s |" in (tmp_path / "b.md").read_text()
    assert len(list(csv.DictReader(done.out.splitlines()))) == len(figures)
    assert left_over() == []


async def test_both_backends_do_the_same_work(real_server: RealServer) -> None:
    async with (
        httpx.AsyncClient(
            base_url=real_server.url, headers=real_server.headers, timeout=30, trust_env=False
        ) as client,
        FakeOllama(always=ThinkingChat(client)) as ollama,
    ):
        done = await turbo(
            *("bench", "--compare", "llamacpp,ollama", "--requests-only", "--json", "-", *SMALL),
            OLLAMA_LOCAL=ollama.url,
            OLLAMA_MODEL=MODEL,
        )
        unloads = sum(call.path == "/api/generate" for call in ollama.calls)
    assert done.code == 0, done.err
    ours, theirs = done.data["sides"]
    assert (ours["name"], theirs["name"]) == ("llamacpp", "ollama")
    assert ours["figures"].keys() >= REQUESTS
    assert theirs["figures"].keys() >= REQUESTS
    assert done.data["gains"].keys() >= REQUESTS
    # The same prompts to both, and the fake keeps one slot's cache as Ollama does.
    read = [side["figures"]["workflow_read"]["median"] for side in (ours, theirs)]
    assert read[0] == pytest.approx(read[1], rel=0.2)
    assert unloads == 4, "before and after each of the two times that it is opened"
    told = "\n".join(done.data["notes"])
    assert "Not the same quantisation: llamacpp has Q8_0, ollama Q4_K_M." in told
    assert "Not the same context: llamacpp serves 4096 tokens per request, ollama 2048." in told
    assert "Warning: Not the same quantisation" in done.err


async def test_an_ollama_that_does_not_run_is_left_out_with_what_to_do() -> None:
    port = a_free_port()
    done = await turbo(
        *("bench", "--compare", "llamacpp,ollama", "--requests-only", *SMALL),
        OLLAMA_LOCAL=f"http://127.0.0.1:{port}",
        OLLAMA_MODEL="coder:7b",
    )
    assert done.code == 0, done.err
    assert "Ollama was not measured: Nothing answers at Ollama" in done.out
    assert f"OLLAMA_HOST=127.0.0.1:{port} ollama serve" in done.out
    assert "ollama pull coder:7b" in done.out
    assert "writing, one answer" in done.out
    alone = await turbo("bench", BACKEND="ollama", OLLAMA_LOCAL=f"http://127.0.0.1:{port}")
    assert alone.code == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--shape", "qwen2.5-coder-7"], "Did you mean qwen2.5-coder-7b"),
        (["--shape", "phi-3-mini:q4"], "Did you mean q4_"),
        (["--shape", "phi-3-mini", "--layers", "8,4"], "--layers 4,8"),
        (["--shape", "phi-3-mini", "--compare", "llamacpp,ollama"], "without --model, --compare"),
        (["--layers", "4,8"], "belong to --shape"),
        (["--compare", "llamacpp,olama"], "Did you mean ollama?"),
        (["--compare", "ollama"], "two different backends"),
        (["--repeat", "0"], "--repeat"),
        (["--markdown", "/nowhere/b.md"], "/nowhere/b.md cannot be written"),
        (["--task", "no/such.md"], "--task no/such.md: no such file"),
        (["--task", ""], "--task names no file"),
        (["--compare", ""], "--compare names no backends"),
        (["--answer-tokens", "5000"], "--answer-tokens: answers of 5000 tokens"),
        (["--json", "-", "--csv", "-"], "Only one of --json, --markdown and --csv"),
        (["--json", "same", "--csv", "./same"], "to the same file"),
        (["--shape", "phi-3-mini", "--layers", "2,400"], "phi-3-mini has 32 layers"),
        (["--shape", "phi-3-mini:"], "nothing is no quantisation"),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from agent.cli import main

    assert main(["bench", *words]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert told in said
    assert "requests, 1 of" not in said


def test_a_model_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from agent.cli import main

    assert main(["bench", "--model", str(tmp_path / "no.gguf")]) == 3
    assert "no such file" in capsys.readouterr().err


def test_a_shape_is_measured_and_its_file_removed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from agent.cli import main

    monkeypatch.setitem(SHAPES, TINY.name, TINY)
    assert main(["bench", "--shape", "tiny-qwen:q4_0", *SMALL, "--json", "-"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["title"].startswith("Shape of tiny-qwen, Q4_0, random weights")
    assert data["found"] == {}
    assert data["sides"][0]["figures"].keys() >= REQUESTS
    assert left_over() == []


def test_a_few_layers_stand_for_all_and_every_figure_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from agent.cli import main

    monkeypatch.setitem(SHAPES, TINY.name, TINY)
    assert main(["bench", "--shape", "tiny-qwen", "--layers", "1,3", *SMALL]) == 0
    shown = capsys.readouterr()
    rows = [line for line in shown.out.splitlines() if " tokens/s " in line]
    assert len(rows) == 4
    assert all("(extrapolated from 1 and 3 of 8 layers)" in row for row in rows)
    assert "prompt tokens computed for them  " in shown.out
    assert "Only 1 and 3 of 8 layers were measured" in shown.out
    assert "3 layers: requests, 1 of 1" in shown.err


def test_a_large_shape_is_measured_by_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, part = wish_of("qwen2.5-coder-0.5b", None), wish_of("qwen2.5-coder-14b", None)
    assert whole.whole
    assert len(part.layers) == 2
    assert part.layers[1] <= 16
    assert wish_of("qwen2.5-coder-14b", "all").whole
    monkeypatch.setattr(bench_shape, "_LARGE", 1 << 20)
    with pytest.raises(UsageError, match="Not even two layers"):
        wish_of("qwen2.5-coder-14b", None)


def test_no_shape_is_written_for_a_server_that_does_not_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from agent.cli import main

    monkeypatch.setenv("LLAMACPP_BINARY_PATH", "/bin/false")
    assert main(["bench", "--shape", "qwen2.5-coder-0.5b", "--layers", "1,2"]) == 3
    told = capsys.readouterr().err
    assert "LLAMACPP_BINARY_PATH=/bin/false" in told
    assert "extrapolated from 1 and 2 of 24 layers, files of 156 MB and 165 MB" in told
    assert "writing" not in told


def test_no_shape_is_begun_that_does_not_fit_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    wish = wish_of("qwen2.5-coder-0.5b", "1,2")
    usage = shutil.disk_usage("/")._replace(free=200_000_000)
    monkeypatch.setattr(bench_shape.shutil, "disk_usage", lambda _: usage)
    wanted = r"take 321 MB, and .* has 200 MB of room\.[^.]*XDG_CACHE_HOME"
    with (
        pytest.raises(UsageError, match=wanted),
        shape_files(wish, keep=False, watch=lambda _: pytest.fail("a file was begun")),
    ):
        pass
    assert left_over() == []


def test_a_kept_shape_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, TINY.name, TINY)
    written: list[str] = []

    def watch(name: str) -> Any:
        written.append(name)
        return lambda _done, _whole: None

    wish = wish_of("tiny-qwen:q8_0", None)
    for _ in range(2):
        with shape_files(wish, keep=True, watch=watch) as (path,):
            assert path.is_file()
    assert written == [path.name]
    path.unlink()
    with shape_files(wish, keep=False, watch=watch) as (path,):
        assert path.is_file()
    assert left_over() == []


async def test_ctrl_c_leaves_nothing() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", "bench", "--repeat", "50", "--requests-only"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    while "requests, 1 of 50" not in (await process.stderr.readline()).decode():
        assert process.returncode is None
    await asyncio.sleep(0.3)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert b"Interrupted; nothing is reported." in await process.stderr.read()
    assert await process.wait() == 130
    assert not [x for x in children if x.is_running() and x.status() != psutil.STATUS_ZOMBIE]
    assert left_over() == []
