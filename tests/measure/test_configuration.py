"""What is worth a measurement on which machine, and what is left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.core.config import Settings
from agent.core.engine_choices import Choices
from agent.core.gguf_info import GgufInfo
from agent.core.hardware import Hardware
from agent.core.launch_shape import Basis
from agent.core.llamacpp_binary import Binary
from agent.core.llamacpp_devices import Device
from agent.measure.configuration import Configuration, Space, space_of, with_stored

INFO = GgufInfo(
    version=3, architecture="qwen2", name="Q", file_size=1_600_000_000, parameters=1_540_000_000,
    context_length=32768, block_count=28, embedding_length=1536, head_count=12, head_count_kv=2,
    key_length=128, value_length=128, sliding_window=0, embedding=False, model_size=1_600_000_000,
    layer_bytes=1, input_bytes=1, key_values=(7168, 7168), feed_forward_length=8960,
    vocabulary=151_936,
)  # fmt: skip
TINY = replace(INFO, parameters=5_000_000, file_size=5_000_000)
FLAGS = frozenset(
    {"--threads-batch", "--ubatch-size", "--flash-attn", "--cache-type-k", "--cache-type-v"}
    | {"--spec-type"}
)
BINARY = Binary(path=Path("/opt/llama-server"), version="1", commit="a", flags=FLAGS)
EIGHT = Hardware(physical_cores=8, memory_available=8 << 30)
CARD = Device(name="Vulkan0", description="Card", memory=24 << 30, free=23 << 30)


def basis(
    *,
    info: GgufInfo = INFO,
    binary: Binary = BINARY,
    hardware: Hardware = EIGHT,
    **given: Any,
) -> Basis:
    choices = Choices(Settings(**given))
    return Basis(binary=binary, model=Path("/m"), info=info, hardware=hardware, choices=choices)


def labels(space: Space) -> set[str]:
    return {each.label for each in space.variants}


def test_on_a_cpu() -> None:
    assert labels(space_of(basis(), 4)) == {
        *("batch threads 4", "batch threads 7", "threads 4 (batches 8)", "threads 7 (batches 8)"),
        *("slots 2", "physical batch 256", "physical batch 128", "flash attention off"),
        *("KV type q8_0", "speculation ngram"),
    }


def test_on_a_gpu_batches_grow() -> None:
    found = labels(space_of(basis(hardware=replace(EIGHT, devices=(CARD,))), 4))
    assert {"physical batch 1024", "physical batch 256"} <= found
    assert "physical batch 128" not in found


def test_a_tiny_model_starts_from_one_thread() -> None:
    found = labels(space_of(basis(info=TINY, hardware=replace(EIGHT, physical_cores=2)), 4))
    assert {"batch threads 2", "threads 2 (batches 1)"} <= found


def test_slots_never_exceed_the_candidates() -> None:
    assert {"slots 8", "slots 2"} <= labels(space_of(basis(), 8))
    assert not any("slots" in label for label in labels(space_of(basis(), 1)))


@pytest.mark.parametrize(
    ("given", "named", "gone"),
    [
        ({"llamacpp_threads": 3}, "LLAMACPP_THREADS", "threads"),
        ({"llamacpp_parallel": 4}, "LLAMACPP_PARALLEL", "slots"),
        ({"llamacpp_batch_size": 512}, "LLAMACPP_BATCH_SIZE", "physical batch"),
        ({"llamacpp_flash_attention": "on"}, "LLAMACPP_FLASH_ATTENTION", "flash attention"),
        ({"llamacpp_cache_type_v": "f16"}, "LLAMACPP_CACHE_TYPE_V", "KV type"),
        ({"llamacpp_speculation": "off"}, "LLAMACPP_SPECULATION", "speculation"),
    ],
)
def test_what_the_user_has_set_stays(given: dict[str, Any], named: str, gone: str) -> None:
    space = space_of(basis(**given), 4)
    assert named in space.left_out[gone]
    touched = {name for each in space.variants for name in each.values}
    assert not touched & set(given)


def test_strict_determinism_excludes_speculation() -> None:
    space = space_of(basis(turbo_determinism="strict"), 4)
    assert "speculation ngram" not in labels(space)
    stored = Configuration.of(speculation="ngram", parallel=2)
    found = with_stored(space, stored, basis(turbo_determinism="strict"))
    assert found.variants[0] == Configuration.of(parallel=2)


def test_what_binary_or_model_cannot_do_is_not_tried() -> None:
    assert labels(space_of(basis(binary=replace(BINARY, flags=frozenset())), 4)) == {"slots 2"}
    assert "KV type q8_0" not in labels(space_of(basis(info=replace(INFO, key_length=80)), 4))
    assert "KV type q8_0" not in labels(space_of(basis(llamacpp_flash_attention="off"), 4))


def test_what_won_before_is_tried_first_as_far_as_it_is_still_open() -> None:
    stored = Configuration.of(parallel=2, ubatch_size=128)
    asked = basis(llamacpp_ubatch_size=512)
    space = space_of(asked, 4)
    assert with_stored(space, stored, asked).variants[0] == Configuration.of(parallel=2)
    assert with_stored(space, Configuration.of(ubatch_size=128), asked) == space
