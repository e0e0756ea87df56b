"""Cores, memory and devices within what the system allows us."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from agent.core.config import Settings
from agent.core.hardware import as_nvidia_says, read_hardware, with_devices
from agent.core.llamacpp_binary import Binary, find_binary
from agent.core.llamacpp_devices import Device, parse_devices

GIB = 1 << 30
LISTED = """\
load_backend: loaded Vulkan backend
Available devices:
  Vulkan0: NVIDIA GeForce RTX 4090 (24564 MiB, 23000 MiB free)
  CUDA0: NVIDIA GeForce RTX 4090 (24564 MiB, 23000 MiB free)
  Vulkan1: AMD Radeon 780M (RADV PHOENIX) (16384 MiB, 16000 MiB free)
"""
CARD = Device(name="CUDA0", description="NVIDIA L4", memory=24 * GIB, free=23 * GIB)


def test_this_machine() -> None:
    hardware = read_hardware()
    assert 1 <= hardware.physical_cores <= (os.cpu_count() or 1)
    assert 1 << 20 < hardware.memory_available <= psutil.virtual_memory().total
    assert hardware.devices == ()
    assert hardware.cpu_features


def groups(tmp_path: Path, membership: str) -> tuple[Path, Path]:
    told = tmp_path / "membership"
    told.write_text(membership)
    (tmp_path / "mount").mkdir()
    return tmp_path / "mount", told


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content + "\n")


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("50000 100000", 1), ("100000 100000", 1), ("max 100000", None), ("", None), ("x y", None)],
)
def test_a_cpu_quota(tmp_path: Path, limit: str, cores: int | None) -> None:
    mount, told = groups(tmp_path, "")
    write(mount, cpu__max=limit)
    unlimited = read_hardware(tmp_path / "none", told).physical_cores
    assert read_hardware(mount, told).physical_cores == (cores or unlimited)


def test_a_cpu_quota_of_version_1(tmp_path: Path) -> None:
    mount, told = groups(tmp_path, "3:cpu,cpuacct:/box\n")
    write(mount / "cpu" / "box", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    assert read_hardware(mount, told).physical_cores == 1


def test_a_memory_limit_does_not_count_cached_files(tmp_path: Path) -> None:
    mount, told = groups(tmp_path, "0::/\n")
    stat = "anon 1\ninactive_file 200000\nactive_file 100000\nshmem 700000"
    write(mount, memory__max="5000000", memory__current="4000000", memory__stat=stat)
    assert read_hardware(mount, told).memory_available == 1_300_000


def test_the_tightest_group_above_ours_counts(tmp_path: Path) -> None:
    mount, told = groups(tmp_path, "0::/user.slice/run.scope\n")
    write(mount / "user.slice", memory__max="9000000", memory__current="8000000")
    write(mount / "user.slice" / "run.scope", memory__max="max", memory__current="10")
    assert read_hardware(mount, told).memory_available == 1_000_000


def test_a_memory_limit_of_version_1(tmp_path: Path) -> None:
    """Its "no limit" is a number; the totals hold what groups below have."""
    mount, told = groups(tmp_path, "4:memory:/box\n2:cpu:/\n")
    unlimited = {"memory__limit_in_bytes": str((1 << 63) - 4096), "memory__usage_in_bytes": "5"}
    write(mount / "memory", **unlimited)
    assert read_hardware(mount, told).memory_available > 1 << 30
    stat = "inactive_file 0\ntotal_inactive_file 150000\ntotal_active_file 50000"
    limited = {"memory__limit_in_bytes": "7000000", "memory__usage_in_bytes": "6000000"}
    write(mount / "memory" / "box", memory__stat=stat, **limited)
    assert read_hardware(mount, told).memory_available == 1_200_000


def test_the_list_of_devices() -> None:
    first, _, third = parse_devices(LISTED)
    assert (first.name, first.description) == ("Vulkan0", "NVIDIA GeForce RTX 4090")
    assert (first.memory, first.free) == (24564 << 20, 23000 << 20)
    assert third.description == "AMD Radeon 780M (RADV PHOENIX)"
    assert parse_devices("Available devices:\n  (none)\n") == ()


def test_each_card_gets_its_own_line_of_nvidia_smi() -> None:
    cards = (CARD, replace(CARD, name="CUDA1"), replace(CARD, name="CUDA2", description="Other"))
    told = as_nvidia_says(cards, "NVIDIA L4, 5000\nNVIDIA L4, 24000\n")
    assert [card.free for card in told] == [5000 << 20, 23 * GIB, 23 * GIB]
    assert as_nvidia_says(cards, "NVIDIA-SMI has failed\n, \nNVIDIA L4, [N/A]\n") == cards


@pytest.mark.parametrize(
    ("description", "shared"),
    [
        ("AMD Radeon 780M (RADV PHOENIX)", True),
        ("AMD Radeon Vega 8 Graphics (RADV RAVEN)", True),
        ("AMD Radeon Graphics (RADV RENOIR)", True),
        ("Intel(R) UHD Graphics 620 (KBL GT2)", True),
        ("Intel(R) Iris(R) Xe Graphics (TGL GT2)", True),
        ("Apple M3", True),
        ("NVIDIA GeForce RTX 4090", False),
        ("AMD Radeon RX 7900 XTX (RADV NAVI31)", False),
        ("Intel(R) Arc(tm) A770 Graphics (DG2)", False),
    ],
)
async def test_devices_of_a_binary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, description: str, shared: bool
) -> None:
    """A llama-server and an nvidia-smi that are programs of their own."""
    script(
        tmp_path / "llama-server",
        f'--list-devices) echo "  Vulkan0: {description} (8192 MiB, 8000 MiB free)";;\n'
        '--version) echo "version: 1 (abcdef0)";;\n'
        "*) for f in --model --host --port --ctx-size --parallel --threads --list-devices; do\n"
        'echo "$f X  text"; done;;',
    )
    script(tmp_path / "nvidia-smi", f'*) echo "{description}, 3000";;')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = find_binary(Settings(), cache=tmp_path / "cache")
    free = {True: 5 * GIB, False: 3000 << 20 if "NVIDIA" in description else 8000 << 20}
    for _ in range(2):
        machine = replace(read_hardware(), memory_available=free[True])
        hardware = await with_devices(machine, found, cache=tmp_path / "lists")
        (device,) = hardware.devices
        assert device.free == free[shared]
        assert hardware.devices_share_memory is shared
        free[True] = 4 * GIB  # somebody has taken some of it since


async def test_what_is_free_on_a_card_of_its_own_is_never_an_old_amount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for free in (8000, 2000):
        script(
            tmp_path / "llama-server",
            f'--list-devices) echo "  Vulkan0: AMD Radeon RX 7900 (8192 MiB, {free} MiB free)";;',
        )
        found = Binary(
            path=tmp_path / "llama-server",
            version="1",
            commit="",
            flags=frozenset({"--list-devices"}),
        )
        hardware = await with_devices(read_hardware(), found, cache=tmp_path / "lists")
        assert [device.free for device in hardware.devices] == [free << 20]


def script(path: Path, cases: str) -> None:
    path.write_text(f'#!/bin/sh\ncase "$1" in\n{cases}\nesac\n', encoding="utf-8")
    path.chmod(0o755)
