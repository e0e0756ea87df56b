"""What is given up first, and what is taken before anything is started. Tables, no server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.core.config import Settings
from agent.core.engine_choices import Choices
from agent.core.gguf_info import GgufInfo
from agent.core.hardware import Hardware
from agent.core.launch_ladder import Ladder, Rung, Ways, given_up, rungs
from agent.core.launch_shape import Basis
from agent.core.llamacpp_binary import Binary
from agent.core.llamacpp_devices import Device
from agent.core.memory_estimate import Shape, estimate
from agent.core.remembered_rung import keep, recall

MIB = 1 << 20
GIB = 1 << 30
INFO = GgufInfo(
    version=3,
    architecture="qwen2",
    name="Coder",
    file_size=4 * GIB,
    parameters=7_000_000_000,
    context_length=32768,
    block_count=28,
    embedding_length=3584,
    head_count=28,
    head_count_kv=4,
    key_length=128,
    value_length=128,
    sliding_window=0,
    embedding=False,
    model_size=4 * GIB,
    layer_bytes=3 * GIB,
    input_bytes=GIB // 2,
    key_values=(28 * 4 * 128, 28 * 4 * 128),
    feed_forward_length=18944,
    vocabulary=152_064,
)
ASKED = Shape(
    model=Path("/m/coder-q8_0.gguf"),
    info=INFO,
    context=8192,
    slots=4,
    load_mode="auto",
    devices=False,
    gpu_layers="auto",
    kv_offload=True,
    cache_type_k="f16",
    cache_type_v="f16",
    flash_attention=True,
    ubatch=512,
)
ALL_ON_A_CARD = replace(ASKED, devices=True, gpu_layers="all")
SMALLER = (Path("/m/coder-q4_0.gguf"), replace(INFO, model_size=2 * GIB, file_size=2 * GIB))
PLENTY = Hardware(physical_cores=4, memory_available=64 * GIB)


def card(free: int) -> Hardware:
    device = Device(name="Vulkan0", description="Card", memory=24 * GIB, free=free)
    return replace(PLENTY, devices=(device,))


def memory(free: int) -> Hardware:
    return replace(PLENTY, memory_available=free)


def told(rung: Rung) -> str:
    shape = rung.shape
    layers = shape.gpu_layers if shape.devices else "cpu"
    model = shape.model.stem.removeprefix("coder-")
    return f"{rung.kind}: {model} {shape.load_mode} {shape.slots}x{shape.context} {layers}"


def test_the_order_on_the_cpu() -> None:
    asked = replace(ASKED, load_mode="mlock")
    way = [told(x) for x in rungs(asked, PLENTY, Ways(smaller=lambda: [SMALLER]))]
    assert way == [
        "asked: q8_0 mlock 4x8192 cpu",
        "load mode: q8_0 none 4x8192 cpu",
        "load mode: q8_0 mmap 4x8192 cpu",
        "context: q8_0 mmap 4x4096 cpu",
        "context: q8_0 mmap 4x2048 cpu",
        "slots: q8_0 mmap 2x2048 cpu",
        "slots: q8_0 mmap 1x2048 cpu",
        "quantisation: q4_0 mlock 4x8192 cpu",
        "load mode: q4_0 none 4x8192 cpu",
        "load mode: q4_0 mmap 4x8192 cpu",
        "context: q4_0 mmap 4x4096 cpu",
        "context: q4_0 mmap 4x2048 cpu",
        "slots: q4_0 mmap 2x2048 cpu",
        "slots: q4_0 mmap 1x2048 cpu",
    ]


@pytest.mark.parametrize(
    ("given", "ends"),
    [
        ({}, ["auto", "cpu"]),
        ({"cpu_alone": False}, ["auto"]),
        ({"server_fits_layers": False}, ["21", "14", "7", "cpu"]),
    ],
)
def test_layers_go_after_slots_which_are_given_back(given: dict[str, Any], ends: list[str]) -> None:
    way = [told(x) for x in rungs(ALL_ON_A_CARD, card(GIB), Ways(**given))]
    assert way[: -len(ends)][-1] == "slots: q8_0 auto 1x2048 all"
    assert way[-len(ends) :] == [f"GPU layers: q8_0 auto 4x8192 {end}" for end in ends]


def test_a_profile_quantises_the_cache_before_it_gives_up_context() -> None:
    needed = estimate(ALL_ON_A_CARD, card(24 * GIB)).needed("device")
    short = Ladder(ALL_ON_A_CARD, card(needed - 100 * MIB), Ways(quantise_kv=True))
    assert short.rung.kind == "KV type"
    assert (short.rung.shape.cache_type_k, short.rung.shape.context) == ("q8_0", 8192)
    enough = Ladder(ALL_ON_A_CARD, card(24 * GIB), Ways(quantise_kv=True))
    assert enough.rung.kind == "asked"


@pytest.mark.parametrize(
    ("gib", "expected"),
    [
        (64, "asked: q8_0 auto 4x8192 cpu"),
        (6, "context: q8_0 auto 4x4096 cpu"),
        (5.3, "context: q8_0 auto 4x2048 cpu"),
        (4.85, "slots: q8_0 auto 2x2048 cpu"),
        (4.4, "quantisation: q4_0 auto 4x8192 cpu"),
        (3, "context: q4_0 auto 4x2048 cpu"),
    ],
)
def test_the_first_rung_that_fits_is_taken(gib: float, expected: str) -> None:
    hardware = memory(int(gib * GIB))
    ladder = Ladder(ASKED, hardware, Ways(smaller=lambda: [SMALLER]))
    assert told(ladder.rung) == expected
    assert ladder.estimate.fits


def test_smaller_files_are_looked_for_only_when_all_else_is_not_enough() -> None:
    def fail() -> list[tuple[Path, GgufInfo]]:
        pytest.fail("nobody needs a smaller file")

    Ladder(ASKED, memory(5 * GIB), Ways(smaller=fail))


def test_a_mapped_model_larger_than_memory_keeps_its_slots() -> None:
    """It starts all the same, and less context would not make up for gigabytes of weights."""
    ladder = Ladder(ASKED, memory(3 * GIB), Ways())
    assert ladder.rung.kind == "asked"
    assert not ladder.estimate.fits
    assert ladder.estimate.starts
    # What the CPU build copies into another order is no page of the file any more.
    copied = replace(ASKED, info=replace(INFO, repacked_bytes=3 * GIB))
    assert not Ladder(copied, memory(3 * GIB), Ways()).estimate.starts


def test_where_nothing_fits_the_least_is_tried() -> None:
    ladder = Ladder(replace(ASKED, load_mode="none"), memory(GIB // 4), Ways())
    assert told(ladder.rung) == "slots: q8_0 mmap 1x2048 cpu"
    assert not ladder.estimate.starts
    assert not ladder.descend()


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (24 * GIB, "asked: q8_0 auto 4x8192 all"),
        (5 * GIB, "context: q8_0 auto 4x4096 all"),
        (3 * GIB, "GPU layers: q8_0 auto 4x8192 auto"),
    ],
)
def test_a_small_card_loses_context_first_and_layers_at_last(free: int, expected: str) -> None:
    assert told(Ladder(ALL_ON_A_CARD, card(free), Ways()).rung) == expected


def test_a_card_that_shares_memory_counts_twice() -> None:
    alone = Ladder(ALL_ON_A_CARD, replace(card(24 * GIB), memory_available=5 * GIB), Ways())
    assert alone.rung.kind == "asked"
    shared = replace(card(24 * GIB), memory_available=5 * GIB, devices_share_memory=True)
    assert Ladder(ALL_ON_A_CARD, shared, Ways()).rung.kind != "asked"


def test_what_was_given_up_is_told_in_words() -> None:
    less = replace(ASKED, context=4096, slots=2, model=SMALLER[0], load_mode="mmap")
    assert given_up(ASKED, less) == (
        "coder-q4_0.gguf instead of coder-q8_0.gguf, load mode mmap instead of auto, "
        "4096 tokens per slot instead of 8192, 2 of 4 slots"
    )
    assert given_up(ALL_ON_A_CARD, replace(ALL_ON_A_CARD, devices=False)) == "the CPU alone"
    fitted = replace(ALL_ON_A_CARD, gpu_layers="auto")
    assert "as many GPU layers as fit" in given_up(ALL_ON_A_CARD, fitted)
    assert given_up(ASKED, ASKED) == ""


def basis(hardware: Hardware, stamp: str = "1") -> Basis:
    return Basis(
        binary=Binary(path=Path("/opt/s"), version="1", commit="a", flags=frozenset(), stamp=stamp),
        model=ASKED.model,
        info=INFO,
        hardware=hardware,
        choices=Choices(Settings()),
    )


def test_a_rung_is_remembered_until_more_memory_is_free(tmp_path: Path) -> None:
    def start(free: int, stamp: str = "1") -> str:
        ladder = Ladder(ASKED, memory(free), Ways())
        recall(tmp_path, basis(memory(free), stamp), ladder)
        return told(ladder.rung)

    tight = 32 * GIB
    assert start(tight) == "asked: q8_0 auto 4x8192 cpu"
    ladder = Ladder(ASKED, memory(tight), Ways())
    assert ladder.descend()
    assert ladder.descend()
    keep(tmp_path, basis(memory(tight)), ladder)
    assert start(tight) == "context: q8_0 auto 4x2048 cpu"
    assert start(tight // 2) == "context: q8_0 auto 4x2048 cpu"
    assert start(2 * tight) == "asked: q8_0 auto 4x8192 cpu"
    assert start(tight, stamp="2") == "asked: q8_0 auto 4x8192 cpu"
    for path in tmp_path.iterdir():
        path.write_text('{"rung": {"model": 3}, "free": "x"}')
    assert start(tight) == "asked: q8_0 auto 4x8192 cpu"


def test_a_remembered_rung_never_leads_upwards(tmp_path: Path) -> None:
    """Less is free than then, so the estimate asks for more than was given up then."""
    ladder = Ladder(ASKED, memory(32 * GIB), Ways())
    assert ladder.descend()
    keep(tmp_path, basis(memory(32 * GIB)), ladder)
    now = Ladder(ASKED, memory(int(4.85 * GIB)), Ways())
    assert not recall(tmp_path, basis(memory(int(4.85 * GIB))), now)
    assert told(now.rung) == "slots: q8_0 auto 2x2048 cpu"
