"""The devices of a llama-server, asked for and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core.config import Settings
from agent.core.llamacpp_binary import Binary, find_binary
from agent.core.llamacpp_devices import Device, find_devices, parse_devices

LIST = """\
ggml_vulkan: Found 1 Vulkan devices:
Available devices:
  Vulkan0: AMD Radeon RX 7900 (RADV NAVI31) (16368 MiB, 16000 MiB free)
  CUDA0: NVIDIA H200 (143771 MiB, 143000 MiB free)
"""
CARDS = (
    Device(
        name="Vulkan0",
        description="AMD Radeon RX 7900 (RADV NAVI31)",
        memory=16368 << 20,
        free=16000 << 20,
    ),
    Device(name="CUDA0", description="NVIDIA H200", memory=143771 << 20, free=143000 << 20),
)

SHARED_LIST = """\
Available devices:
  Vulkan0: Intel(R) Iris(R) Xe Graphics (TGL GT2) (12000 MiB, 11000 MiB free)
"""
SHARED = parse_devices(SHARED_LIST)


class Program:
    """A program that lists devices, and how often it was asked."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "llama-server"
        self._asked = folder / "asked"
        self.prints(LIST)
        self.path.chmod(0o755)

    def prints(self, text: str, *, then: str = "") -> None:
        listing = f"cat <<'END'\n{text}END\n"
        self.path.write_text(f"#!/bin/sh\necho x >> {self._asked}\n{listing}{then}\n")

    @property
    def asked(self) -> int:
        return len(self._asked.read_text().split())

    @property
    def binary(self) -> Binary:
        flags = frozenset({"--list-devices"})
        return Binary(path=self.path, version="1", commit="", flags=flags, stamp="first")


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def test_those_that_share_memory_are_asked_for_once(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "c"
    program.prints(SHARED_LIST)
    for _ in range(3):
        assert find_devices(program.binary, cache=cache) == SHARED
    assert program.asked == 1
    assert find_devices(program.binary) == SHARED
    assert program.asked == 2
    find_devices(replace(program.binary, stamp="newer"), cache=cache)
    assert program.asked == 3
    find_devices(replace(program.binary, stamp="newer"), cache=cache)
    monkeypatch.setenv("GGML_VK_VISIBLE_DEVICES", "1")
    find_devices(replace(program.binary, stamp="newer"), cache=cache)
    assert program.asked == 4


def test_a_new_driver_of_the_user_is_asked(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    drivers = tmp_path / "data" / "vulkan" / "icd.d"
    drivers.mkdir(parents=True)
    program.prints(SHARED_LIST)
    for known in (1, 1, 2):
        if known == 2:
            (drivers / "new.json").write_text("{}")
        find_devices(program.binary, cache=tmp_path / "c")
        assert program.asked == known


def test_cards_with_memory_of_their_own_are_asked_each_time(
    program: Program, tmp_path: Path
) -> None:
    for count in (1, 2):
        assert find_devices(program.binary, cache=tmp_path / "c") == CARDS
        assert program.asked == count


def test_an_empty_list_is_not_kept(program: Program, tmp_path: Path) -> None:
    program.prints("Available devices:\n  (none)\n")
    assert find_devices(program.binary, cache=tmp_path / "c") == ()
    program.prints(LIST)
    assert find_devices(program.binary, cache=tmp_path / "c") == CARDS


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"mark": MARK}', b'{"mark": MARK, "devices": 1}']
)
def test_a_corrupt_list_is_asked_for_again(
    program: Program, tmp_path: Path, content: bytes
) -> None:
    cache = tmp_path / "c"
    program.prints(SHARED_LIST)
    find_devices(program.binary, cache=cache)
    (entry,) = cache.iterdir()
    mark = entry.read_bytes().split(b'"mark": ')[1].split(b", ")[0]
    entry.write_bytes(content.replace(b"MARK", mark))
    assert find_devices(program.binary, cache=cache) == SHARED


def test_a_driver_that_fails_or_hangs_is_no_device(program: Program) -> None:
    program.prints(LIST, then="exit 1")
    assert find_devices(program.binary) == ()
    program.prints(LIST, then="sleep 60")
    assert find_devices(program.binary, limit_s=0.5) == ()


def test_a_binary_without_device_list_has_no_devices(
    fake_server: Callable[..., Path], tmp_path: Path
) -> None:
    settings = Settings(llamacpp_binary_path=fake_server("good"))
    assert find_devices(find_binary(settings, cache=tmp_path)) == ()


def test_the_list_of_the_real_server(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for device in find_devices(find_binary(Settings(), cache=tmp_path)):
        assert 0 <= device.free <= device.memory
    assert parse_devices("Available devices:\n  (none)\n") == ()
