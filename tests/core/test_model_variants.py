"""Which files count as smaller quantisations of a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.gguf_writer import BASIC, gguf

from agent.core.config import cache_dir
from agent.core.gguf_info import read_gguf
from agent.core.gguf_names import GgufName
from agent.core.model_variants import smaller_quantisations

pytestmark = pytest.mark.usefixtures("own_cache")

NAMES = [
    *("Coder-1.5B-Instruct-Q4_K_M.gguf", "coder-1.5b-instruct.i1-IQ3_XS.gguf"),
    *("coder-1.5b-instruct-UD-Q2_K_XL.gguf", "coder-1.5b-instruct-q4.gguf"),
]


def write(path: Path, *, data: int, layers: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gguf({**BASIC, "llama.block_count": layers}, data=data))
    return path


def found(model: Path) -> list[str]:
    return [path.name for path, _ in smaller_quantisations(model, read_gguf(model))]


@pytest.mark.parametrize("name", NAMES)
def test_a_quantisation_is_told_by_its_name(tmp_path: Path, name: str) -> None:
    model = write(tmp_path / "coder-1.5b-instruct-f16.gguf", data=9000)
    write(tmp_path / name, data=5000)
    assert found(model) == [name]


def test_what_is_another_model_or_not_smaller_is_left_out(tmp_path: Path) -> None:
    model = write(tmp_path / "coder-1.5b-q8_0.gguf", data=9000)
    write(tmp_path / "coder-7b-q4_0.gguf", data=5000)
    write(tmp_path / "coder-1.5b-base-q4_0.gguf", data=5000)
    write(tmp_path / "coder-1.5b-q4_0.gguf", data=5000, layers=3)
    write(tmp_path / "coder-1.5b-f16.gguf", data=20_000)
    (tmp_path / "coder-1.5b-q2_k.gguf").write_bytes(b"GGUF")
    assert found(model) == []


def test_the_largest_comes_first_and_the_cache_is_searched(tmp_path: Path) -> None:
    model = write(tmp_path / "coder-q8_0.gguf", data=9000)
    write(tmp_path / "coder-q3_k_s.gguf", data=4000)
    write(cache_dir() / "models" / "coder-q5_k_m.gguf", data=6000)
    assert found(model) == ["coder-q5_k_m.gguf", "coder-q3_k_s.gguf"]


def test_only_the_first_part_of_a_split_model_is_opened(tmp_path: Path) -> None:
    model = write(tmp_path / "coder-f16.gguf", data=90_000)
    for part in (1, 2):
        write(tmp_path / f"coder-q4_0-{part:05}-of-00002.gguf", data=5000)
    assert found(model) == ["coder-q4_0-00001-of-00002.gguf"]


def test_a_name_that_ends_in_a_newline_is_not_cut_before_it() -> None:
    assert GgufName.of("coder-q8_0\n").family == "coder-q8_0\n"
