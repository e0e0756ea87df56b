"""Reading GGUF headers, right, wrong and hostile ones."""

from __future__ import annotations

import io
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.gguf_writer import BASIC, DATA, TENSORS, gguf, text, value
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.config import embedded_model
from agent.core.errors import ModelError
from agent.core.gguf_info import read_gguf
from agent.core.gguf_reader import read_header

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def model(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes, name: str = "small.gguf") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def test_the_embedded_model_quickly() -> None:
    info = read_gguf(embedded_model())
    assert info.architecture
    assert info.context_length >= 1024
    assert info.block_count > 0
    assert 1_000_000 < info.parameters < 20_000_000
    assert info.file_size == embedded_model().stat().st_size
    assert not info.embedding
    took = []
    for _ in range(5):
        began = time.perf_counter()
        read_gguf(embedded_model())
        took.append(time.perf_counter() - began)
    assert min(took) < 0.020


def test_a_small_model(model) -> None:
    info = read_gguf(model(gguf()))
    assert (info.version, info.architecture, info.name) == (3, "llama", "Small")
    assert (info.context_length, info.block_count, info.embedding_length) == (2048, 2, 64)
    assert (info.head_count, info.head_count_kv) == (4, 2)
    assert (info.key_length, info.value_length) == (16, 16)
    assert info.parameters == 64 * 32 + 64


def test_numbers_per_layer_count_by_the_largest(model) -> None:
    info = read_gguf(model(gguf({**BASIC, "llama.attention.head_count_kv": [2, 4, 1]})))
    assert info.head_count_kv == 4


@pytest.mark.parametrize("wrong", ["many", True, 1.5e30, float("nan"), float("inf"), []])
def test_a_number_of_another_type_is_unknown(model, wrong: object) -> None:
    assert read_gguf(model(gguf({**BASIC, "llama.context_length": wrong}))).context_length == 0


def test_an_embedding_model_is_told_apart(model) -> None:
    assert read_gguf(model(gguf({**BASIC, "llama.pooling_type": 1}))).embedding
    assert not read_gguf(model(gguf({**BASIC, "llama.pooling_type": 0}))).embedding


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.gguf")
    for path in (tmp_path / "x.gguf", Path("/dev/zero")):
        with pytest.raises(ModelError, match="not a model file") as caught:
            read_gguf(path)
        assert "LLAMACPP_MODEL_PATH" in caught.value.fix


def test_what_could_not_serve_is_not_offered(model, tmp_path: Path) -> None:
    good = model(gguf(), "good.gguf")
    model(b"", "empty.gguf")
    model(b"hello world", "text.gguf")
    model(embedded_model().read_bytes()[:100_000], "cut.gguf")
    with pytest.raises(ModelError) as caught:
        read_gguf(tmp_path / "missing.gguf")
    assert caught.value.available == (good, embedded_model())
    with pytest.raises(ModelError, match='begins with "hell"'):
        read_gguf(tmp_path / "text.gguf")


def test_a_missing_model_lists_those_that_are_there(model, tmp_path: Path, own_cache) -> None:
    beside = model(gguf(), "beside.gguf")
    kept = own_cache / "turbo-local-coder" / "models" / "kept.gguf"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(gguf())
    with pytest.raises(ModelError) as caught:
        read_gguf(tmp_path / "missing.gguf")
    assert caught.value.exit_code == 3
    assert caught.value.available == (beside, kept, embedded_model())
    for path in caught.value.available:
        assert str(path) in caught.value.message
    assert "LLAMACPP_MODEL_PATH" in caught.value.fix


def test_a_folder_lists_what_is_in_it(model, tmp_path: Path) -> None:
    path = model(gguf())
    with pytest.raises(ModelError, match="a folder") as caught:
        read_gguf(tmp_path)
    assert caught.value.available == (path,)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"GG", "not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "HTML page"),
        (b"PK\x03\x04 torch", "llama.cpp needs GGUF"),
        (b"\x00" * 100, "begins with"),
    ],
)
def test_what_is_no_gguf(model, content: bytes, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        read_gguf(model(content))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gguf(version=1), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 1), "it claims 9,223,372,036,854,775,808 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40), "metadata keys"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 90_000), "cut off inside its header"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62) + b"x" * 99, "cut off inside its header"),
        (gguf({"general.alignment": 0}), "general.alignment"),
        (gguf(tensors=[("t", [1] * 9, 0, 0)]), "9 dimensions"),
        (gguf({}), "no general.architecture"),
        (gguf({**BASIC, "general.type": "mmproj"}), "mmproj"),
    ],
)
def test_damaged_headers(model, content: bytes, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        read_gguf(model(content))


def test_the_end_of_the_tensor_data_is_exact(model) -> None:
    read_gguf(model(gguf(data=DATA)))
    with pytest.raises(ModelError, match="cut off: it has") as caught:
        read_gguf(model(gguf(data=DATA - 1)))
    assert "Fetch" in caught.value.fix


def test_tensors_of_unknown_types_are_not_held_against_a_file(model) -> None:
    read_gguf(model(gguf(tensors=[*TENSORS, ("new", (1 << 40,), 999, DATA)])))


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.5, 0.999])
def test_the_embedded_model_cut_off_anywhere(model, share: float) -> None:
    whole = embedded_model().read_bytes()
    with pytest.raises(ModelError, match="cut off"):
        read_gguf(model(whole[: int(len(whole) * share)]))


def test_a_split_model_needs_all_its_parts(model) -> None:
    first = model(gguf(), "big-00001-of-00002.gguf")
    with pytest.raises(ModelError, match=r"big-00002-of-00002\.gguf of it is missing"):
        read_gguf(first)
    model(gguf(), "big-00002-of-00002.gguf")
    assert read_gguf(first).architecture == "llama"


_SMALL = gguf({**BASIC, "tokenizer.ggml.scores": [1.0]})
_HEADER = len(_SMALL) - DATA


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(4, _HEADER - 1), st.integers(0, 255)), min_size=1, max_size=6
    ),
    length=st.integers(0, len(_SMALL)),
)
def test_a_damaged_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], length: int
) -> None:
    content = bytearray(_SMALL)
    for position, byte in changes:
        content[position] = byte
    path = tmp_path_factory.mktemp("damaged") / "x.gguf"
    for body in (content, content[:length]):
        path.write_bytes(body)
        try:
            read_gguf(path)
        except ModelError:
            continue


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("context_length", 0),
        ("embedding_length", 0),
        ("attention.head_count", 0),
        ("block_count", 0),
        ("block_count", 2_147_483_647),
    ],
)
def test_sizes_that_no_model_has(model, key: str, value: int) -> None:
    with pytest.raises(ModelError, match=f"damaged: its llama.{key} is"):
        read_gguf(model(gguf({**BASIC, f"llama.{key}": value})))


def test_a_model_without_attention_has_no_heads(model) -> None:
    values = {k.replace("llama.", "mamba."): v for k, v in BASIC.items()}
    values |= {"general.architecture": "mamba", "mamba.attention.head_count": 0}
    assert read_gguf(model(gguf(values))).head_count == 0


@pytest.mark.parametrize("content", [gguf(version=99), b"GGUF" + struct.pack(">IQQ", 3, 0, 0)])
def test_a_whole_file_of_another_kind_is_not_to_be_fetched_again(model, content: bytes) -> None:
    with pytest.raises(ModelError) as caught:
        read_gguf(model(content))
    assert "another edition" in caught.value.fix


def test_a_name_does_not_steer_the_terminal(model) -> None:
    told = read_gguf(model(gguf({**BASIC, "general.name": "a\x1b[2J\nb"}))).name
    assert told == "a[2J b"


def test_what_is_kept_of_a_header_of_numbers_is_bounded() -> None:
    keys = 3000
    array = value([70_000] * 4096)
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, keys)
    data += b"".join(text(f"key {number}") + array for number in range(keys))
    header = read_header(io.BytesIO(data), len(data))
    assert len(data) > 40 << 20
    assert sum(len(each) for each in header.values.values()) < 2 << 20
