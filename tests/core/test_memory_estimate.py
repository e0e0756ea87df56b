"""The estimate against the buffers that the real server allocates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.core.config import Settings
from agent.core.llamacpp_server import LlamaCppServer
from agent.core.memory_estimate import MemoryEstimate
from agent.core.server_launching import open_server

BUFFER = re.compile(r"(model|KV|compute) buffer size\s*=\s*([\d.]+) MiB")
NAMES = {"model": "weights", "KV": "KV cache", "compute": "computing"}
MIB = 1 << 20

pytestmark = pytest.mark.usefixtures("own_cache", "no_drivers")


@pytest.fixture
def no_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drivers of a GPU are resident, too, and not every machine has one."""
    monkeypatch.setenv("VK_DRIVER_FILES", "/nonexistent")


async def compare(
    given: Mapping[str, Any], tmp_path: Path
) -> tuple[MemoryEstimate, dict[str, float], float]:
    """What was estimated, the buffers of the real server, and its resident memory, both in MiB."""
    async with open_server(Settings(**given)) as first:
        resident = psutil.Process(first.pid).memory_info().rss / MIB
    folder = tmp_path / "again"
    folder.mkdir()
    key = folder / "key"
    argv = [str(key) if x == str(first.plan.api_key_file) else x for x in first.plan.argv]
    plan = replace(first.plan, argv=(*argv, "-lv", "4"), api_key_file=key)
    log = tmp_path / "log"
    async with LlamaCppServer.launch(plan, log=log, timeout_s=20):
        pass
    found = BUFFER.findall(log.read_text(errors="replace"))
    return plan.memory, {NAMES[what]: float(size) for what, size in found}, resident


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"llamacpp_parallel": 3, "llamacpp_context_size": 1000, "turbo_answer_tokens": 500},
        {"llamacpp_cache_type_k": "q8_0", "llamacpp_cache_type_v": "q5_1"},
        {"llamacpp_flash_attention": "off", "llamacpp_ubatch_size": 256},
        {"llamacpp_batch_size": 128, "llamacpp_load_mode": "none"},
    ],
)
async def test_the_real_server(given: dict[str, Any], tmp_path: Path) -> None:
    memory, real, resident = await compare(given, tmp_path)
    sizes = {part.name: part.size / MIB for part in memory.parts}
    assert sizes["KV cache"] == pytest.approx(real["KV cache"], abs=0.01)
    assert sizes["weights"] == pytest.approx(real["weights"], rel=0.02)
    assert sizes["computing"] == pytest.approx(real["computing"], rel=0.06)
    # What is only used for computing is not resident before the first request.
    together = memory.needed("memory") / MIB - sizes["computing"]
    assert together == pytest.approx(resident, rel=0.2)
