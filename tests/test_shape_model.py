"""agent/measure/shape_writer.py: models of a real shape with random weights that write words."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import gguf
import httpx
import numpy as np
import pytest

from agent.core.config import Settings
from agent.core.gguf_info import read_gguf
from agent.core.server_launching import open_server
from agent.measure.model_shapes import SHAPES, Shape
from agent.measure.shape_blocks import random_blocks
from agent.measure.shape_mix import file_bytes
from agent.measure.shape_writer import write_shape_model
from benchmarks import shape_model

QWEN = Shape(
    name="small-qwen",
    architecture="qwen2",
    layers=3,
    width=128,
    heads=4,
    key_value_heads=2,
    feed_forward=192,
    vocabulary=2500,
    context=1024,
    rope_base=1_000_000.0,
    epsilon=1e-6,
    tied=True,
)
PHI = replace(
    QWEN,
    name="small-phi-3",
    architecture="phi3",
    key_value_heads=4,
    tied=False,
    sliding_window=511,
)
WIDE = replace(QWEN, name="wide-qwen", layers=8, width=256, feed_forward=512, tied=False)
"""Its rows divide into the blocks of K-quants."""
TEXT = '''The scheduler keeps one slot per agent, so that a prompt is not read again.

def lease(self, slot: int) -> Slot:
    """Take a free slot."""
    return self._slots[slot]
'''


@asynccontextmanager
async def served(model: Path, log_dir: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(llamacpp_model_path=model, llamacpp_parallel=1)
    async with open_server(settings, log_dir=log_dir) as server:
        key = {"Authorization": f"Bearer {server.api_key}"}
        async with httpx.AsyncClient(base_url=server.url, headers=key, timeout=30) as client:
            yield client


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("qwen2.5-coder-0.5b", 494_032_768),
        ("qwen2.5-coder-1.5b", 1_543_714_304),
        ("qwen2.5-coder-3b", 3_085_938_688),
        ("qwen2.5-coder-7b", 7_615_616_512),
        ("qwen2.5-coder-14b", 14_770_033_664),
        ("qwen2.5-coder-32b", 32_763_876_352),
        ("phi-3-mini", 3_821_079_552),
    ],
)
def test_a_shape_has_the_published_number_of_parameters(name: str, parameters: int) -> None:
    assert SHAPES[name].parameters == parameters


@pytest.mark.parametrize("shape", [QWEN, PHI], ids=lambda shape: shape.name)
def test_our_reader_finds_the_facts(shape: Shape, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_shape_model(shape, path)
    info = read_gguf(path)
    assert info.architecture == shape.architecture
    assert info.name == f"{shape.name.replace('-', ' ')} shape, random weights"
    assert info.parameters == shape.parameters
    assert info.context_length == 1024
    assert info.block_count == 3
    assert info.embedding_length == 128
    assert info.head_count == 4
    assert info.head_count_kv == shape.key_value_heads
    assert info.key_length == info.value_length == 32
    assert not info.embedding
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("shape", "quantisation"),
    [
        *((QWEN, "q8_0"), (QWEN, "q4_0"), (PHI, "q8_0"), (PHI, "f16")),
        *((WIDE, "q4_k_m"), (WIDE, "q6_k"), (QWEN, "q4_k_m")),
    ],
    ids=lambda x: x if isinstance(x, str) else x.name,
)
async def test_it_writes_ascii_words(shape: Shape, quantisation: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_shape_model(shape, path, quantisation=quantisation)
    async with served(path, tmp_path) as client:
        meta = (await client.get("/v1/models")).json()["data"][0]["meta"]
        assert (meta["n_params"], meta["n_vocab"]) == (shape.parameters, shape.vocabulary)
        different = 0
        for prompt in (TEXT, "12 + 34", "<|im_start|>user\nHello<|im_end|>\n"):
            body = {"prompt": prompt, "temperature": 0, "n_predict": 60}
            answer = (await client.post("/completion", json=body)).json()
            assert answer["stop_type"] == "limit"
            assert answer["tokens_predicted"] == 60
            assert re.fullmatch("( [A-Za-z]+){60}", answer["content"])
            different += len(set(answer["content"].split()))
        # About 140 of 180; a loop after some words can happen in one so narrow.
        assert different > 60


@pytest.mark.parametrize(
    ("name", "published"),
    [("qwen2.5-coder-7b", 4.7e9), ("qwen2.5-coder-14b", 9.0e9), ("phi-3-mini", 2.39e9)],
)
def test_a_q4_k_m_file_is_as_large_as_the_published_one(name: str, published: float) -> None:
    """As ollama.com/library/qwen2.5-coder and huggingface.co (Phi-3-mini-4k-instruct-Q4_K_M-GGUF)
    show them."""
    assert file_bytes(SHAPES[name], "q4_k_m") == pytest.approx(published, rel=0.006)


def test_half_of_the_layers_of_q4_k_m_are_more_precise(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_shape_model(WIDE, path, quantisation="q4_k_m")
    kinds = {x.name: x.tensor_type.name for x in gguf.GGUFReader(path).tensors}
    assert kinds["output.weight"] == "Q6_K"
    assert kinds["token_embd.weight"] == kinds["blk.0.attn_q.weight"] == "Q4_K"
    for part in ("attn_v", "ffn_down"):
        stored = [kinds[f"blk.{layer}.{part}.weight"] for layer in range(8)]
        assert sorted(stored) == ["Q4_K"] * 4 + ["Q6_K"] * 4


@pytest.mark.parametrize("kind", ["Q8_0", "Q6_K", "Q5_0", "Q4_0", "Q4_K"])
def test_random_blocks_have_the_spread_that_was_asked_for(kind: str) -> None:
    """By the definition that gguf-py has of each type."""
    stored = gguf.GGMLQuantizationType[kind]
    blocks = random_blocks(np.random.default_rng(1), stored, 4096, 0.02)
    values = gguf.dequantize(blocks, stored)
    assert values.std() == pytest.approx(0.02, rel=0.02)
    assert abs(values.mean()) < 0.001


async def test_its_tokens_are_ordinary(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_shape_model(replace(QWEN, vocabulary=9000), path)
    async with served(path, tmp_path) as client:

        async def tokens(text: str, **more: bool) -> list[int]:
            body = {"content": text, **more}
            ids: list[int] = (await client.post("/tokenize", json=body)).json()["tokens"]
            return ids

        assert 2.5 < len(TEXT) / len(await tokens(TEXT)) < 5
        ids = await tokens("Größe 日本 \t🙂\n")
        again = (await client.post("/detokenize", json={"tokens": ids})).json()["content"]
        assert again == "Größe 日本 \t🙂\n"

        body = {"prompt": TEXT, "temperature": 0, "n_predict": 40}
        written = (await client.post("/completion", json=body)).json()["content"]
        assert len(await tokens(written)) == 40, "what it writes tokenizes to itself"

        asked = {"messages": [{"role": "user", "content": "Hello"}]}
        prompt = (await client.post("/apply-template", json=asked)).json()["prompt"]
        assert prompt == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
        assert len(await tokens("<|im_end|>", parse_special=True)) == 1


def test_one_seed_gives_one_file(tmp_path: Path) -> None:
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    write_shape_model(QWEN, first)
    write_shape_model(QWEN, second)
    write_shape_model(QWEN, other, seed=1)
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    path = tmp_path / "model.gguf"
    path.write_text("old")
    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", fail)
    with pytest.raises(OSError, match="disk full"):
        write_shape_model(QWEN, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_command_says_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SHAPES, "small-qwen", QWEN)
    path = tmp_path / "new" / "model.gguf"
    shape_model.main(["small-qwen", str(path), "--layers", "2", "--quantisation", "q4_0"])
    said = capsys.readouterr().out
    assert read_gguf(path).name == "small qwen shape, random weights, 2 of 3 layers"
    parameters = replace(QWEN, layers=2).parameters
    assert read_gguf(path).parameters == parameters
    assert said == (
        f"{path}: {path.stat().st_size:,} bytes, {parameters:,} parameters, "
        "2 of 3 layers, q4_0, random weights\n"
    )


def test_layers_that_there_are_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        shape_model.main(["phi-3-mini", str(tmp_path / "x"), "--layers", "33"])
    assert "1 to 32" in capsys.readouterr().err
    with pytest.raises(ValueError, match="3 layers"):
        write_shape_model(QWEN, tmp_path / "x", layers=0)
