"""Which differences between two servers make a saved prefix useless."""

from __future__ import annotations

import pytest

from agent.core.kv_layout import layout_of

ARGV = ["llama-server", "--model", "a.gguf", "--port", "1", "--parallel", "4"]
ARGV += ["--threads", "2", "--jinja", "--device", "none"]


def layout(argv: list[str], *, model: str = "m", build: str = "b") -> str:
    return layout_of(argv, model=model, build=build)


@pytest.mark.parametrize(
    "other",
    [
        *("--port 2", "--model /elsewhere/a.gguf", "--threads 8", "--ctx-size 9000", "--metrics"),
        *("--threads-batch 2", "--batch-size 512", "--ubatch-size 128", "--load-mode none"),
        *("--fit off", "--mlock", "--no-mmap"),
    ],
)
def test_what_leaves_the_cache_as_it_is(other: str) -> None:
    assert layout([*ARGV, *other.split()]) == layout(ARGV)


@pytest.mark.parametrize(
    "other",
    [
        *("--cache-type-k q8_0", "--cache-type-v q8_0", "--swa-full", "--flash-attn on"),
        *("--no-kv-offload", "--split-mode row", "--some-new-flag 1"),
    ],
)
def test_what_may_change_it(other: str) -> None:
    assert layout([*ARGV, *other.split()]) != layout(ARGV)


def test_slots_model_and_build_count() -> None:
    more = ["8" if word == "4" else word for word in ARGV]
    assert len({layout(ARGV), layout(more), layout(ARGV, model="n"), layout(ARGV, build="c")}) == 4
