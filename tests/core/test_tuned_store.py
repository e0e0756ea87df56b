"""A stored result holds for one model, one llama-server and one machine, and must be whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core.config import Settings
from agent.core.errors import SettingsError
from agent.core.hardware import Hardware
from agent.core.llamacpp_binary import Binary
from agent.core.llamacpp_devices import Device
from agent.core.tuned_store import (
    Subject,
    Tuned,
    forget_tuned,
    load_tuned,
    store_tuned,
    subject_of,
)

BINARY = Binary(path=Path("/b"), version="1", commit="c", flags=frozenset(), stamp="one")
MACHINE = Hardware(physical_cores=4, memory_available=1 << 30, cpu="Some CPU")
TUNED = Tuned(
    values={"llamacpp_threads": 2, "llamacpp_flash_attention": "off"}, gain=1.25, found_on="today"
)
CARD = Device(name="Vulkan0", description="Card", memory=1 << 30, free=1 << 30)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"model")
    return path


def subject(model: Path) -> Subject:
    return subject_of(Settings(), model, BINARY, MACHINE)


def test_what_is_stored_is_found_again_and_can_be_forgotten(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "tuning"
    assert load_tuned(folder, subject(model)) is None
    store_tuned(folder, subject(model), TUNED)
    # What is free at the moment does not matter.
    later = replace(MACHINE, memory_available=1 << 20)
    assert load_tuned(folder, subject_of(Settings(), model, BINARY, later)) == TUNED
    assert forget_tuned(folder, subject(model))
    assert not forget_tuned(folder, subject(model))
    assert load_tuned(folder, subject(model)) is None


@pytest.mark.parametrize(
    "other",
    [
        lambda m: subject_of(Settings(), m, replace(BINARY, stamp="two"), MACHINE),
        lambda m: subject_of(Settings(), m, BINARY, replace(MACHINE, cpu="Another CPU")),
        lambda m: subject_of(Settings(), m, BINARY, replace(MACHINE, physical_cores=2)),
        lambda m: subject_of(Settings(), m, BINARY, replace(MACHINE, devices=(CARD,))),
        lambda m: subject_of(Settings(llamacpp_profile="low-latency"), m, BINARY, MACHINE),
        lambda m: subject_of(Settings(llamacpp_n_gpu_layers=3), m, BINARY, MACHINE),
    ],
)
def test_another_binary_machine_or_placing(
    tmp_path: Path, model: Path, other: Callable[[Path], Subject]
) -> None:
    store_tuned(tmp_path / "tuning", subject(model), TUNED)
    assert load_tuned(tmp_path / "tuning", other(model)) is None


def test_another_model(tmp_path: Path, model: Path) -> None:
    store_tuned(tmp_path / "tuning", subject(model), TUNED)
    os.utime(model, (1, 1))
    assert load_tuned(tmp_path / "tuning", subject(model)) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        ('"llamacpp_threads": 2', '"llamacpp_threads": "many"'),
        ('"llamacpp_threads": 2', '"llamacpp_threads": 0'),
        ('"llamacpp_threads": 2', '"llamacpp_url": "http://elsewhere"'),
        ('"values": {', '"values": [], "others": {'),
        ('"gain": 1.25', '"gain": null'),
        ('"found_on"', '"never"'),
    ],
)
def test_a_damaged_file_is_told(tmp_path: Path, model: Path, before: str, after: str) -> None:
    path = store_tuned(tmp_path / "tuning", subject(model), TUNED)
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after) if before else text[: len(text) // 2])
    with pytest.raises(SettingsError, match=r"damaged[\s\S]*--forget"):
        load_tuned(tmp_path / "tuning", subject(model))


def test_a_folder_that_cannot_be_written(tmp_path: Path, model: Path) -> None:
    (tmp_path / "tuning").write_text("a file")
    with pytest.raises(SettingsError, match="cannot be kept"):
        store_tuned(tmp_path / "tuning", subject(model), TUNED)
