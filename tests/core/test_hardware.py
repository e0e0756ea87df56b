"""Cores and memory within what the control group allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.core.hardware import read_hardware


def test_this_machine(tmp_path: Path) -> None:
    hardware = read_hardware(tmp_path)
    assert hardware.physical_cores >= 1
    assert hardware.memory_available > 1 << 20


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("50000 100000", 1), ("100000 100000", 1), ("max 100000", None), ("", None), ("x y", None)],
)
def test_a_cpu_quota(tmp_path: Path, limit: str, cores: int | None) -> None:
    (tmp_path / "cpu.max").write_text(limit + "\n")
    unlimited = read_hardware(tmp_path / "none").physical_cores
    assert read_hardware(tmp_path).physical_cores == (cores or unlimited)


def test_a_memory_limit_does_not_count_cached_files(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("4000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 300000\n")
    assert read_hardware(tmp_path).memory_available == 1_300_000
