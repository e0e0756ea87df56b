"""How far the memory estimate of the launch plan is from what llama-server takes.

    python benchmarks/memory.py MODEL.gguf [--devices]

Starts our own server with each of the settings below, reads the sizes of its buffers from its log
(-lv 4), sends a prompt that fills a physical batch, and reads the resident memory of the process.
Errors are (estimated - real) / real. With --devices a GPU is used if there is one (Mesa's llvmpipe
appears with GGML_VK_VISIBLE_DEVICES=0); its buffers are then counted apart, and so is resident
memory, since llvmpipe's device memory is main memory.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psutil

from agent.core.config import Settings
from agent.core.llamacpp_server import LlamaCppServer
from agent.core.memory_estimate import MemoryEstimate, Place
from agent.core.server_launching import prepare

CASES: tuple[dict[str, Any], ...] = (
    {},
    {"llamacpp_parallel": 1},
    {"llamacpp_parallel": 8},
    {"llamacpp_context_size": 2048},
    {"llamacpp_parallel": 2, "llamacpp_context_size": 3072},
    {"llamacpp_ubatch_size": 128},
    {"llamacpp_ubatch_size": 1024},
    {"llamacpp_flash_attention": "off"},
    {"llamacpp_cache_type_k": "q8_0", "llamacpp_cache_type_v": "q8_0"},
    {"llamacpp_cache_type_k": "q4_0", "llamacpp_cache_type_v": "q4_0"},
    {"llamacpp_cache_type_k": "f32", "llamacpp_cache_type_v": "f32"},
    {"llamacpp_load_mode": "none"},
)
ON_DEVICES: tuple[dict[str, Any], ...] = (
    {"llamacpp_n_gpu_layers": "all"},
    {"llamacpp_n_gpu_layers": 3},
    {"llamacpp_n_gpu_layers": "all", "llamacpp_parallel": 8},
    {"llamacpp_n_gpu_layers": "all", "llamacpp_flash_attention": "off"},
    {"llamacpp_n_gpu_layers": "all", "llamacpp_kv_offload": False},
    {"llamacpp_n_gpu_layers": "all", "llamacpp_cache_type_k": "q8_0"},
)
BUFFER = re.compile(r"(\S+)\s+(model|KV|compute|output) buffer size\s*=\s*([\d.]+) MiB")
NAMES = {"model": "weights", "KV": "KV cache", "compute": "computing", "output": "answers"}
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Real:
    """What a server took."""

    buffers: dict[tuple[Place, str], float]
    """MiB by place and name, as its log tells them."""
    resident: float
    """MiB of the process after a prompt."""


async def measure(settings: Settings, folder: Path) -> tuple[MemoryEstimate, Real]:
    prepared = await prepare(settings)
    with tempfile.TemporaryDirectory(dir=folder) as private:
        plan = prepared.plan(port=_port(), slot_dir=None, api_key_file=Path(private) / "key")
        plan = replace(plan, argv=(*plan.argv, "-lv", "4"))
        log = Path(private) / "log"
        async with LlamaCppServer.launch(plan, log=log, timeout_s=120) as server:
            body = {"prompt": [5] * 1100, "n_predict": 1, "id_slot": 0}
            headers = {"Authorization": f"Bearer {server.api_key}"}
            async with httpx.AsyncClient(base_url=server.url, headers=headers) as client:
                reply = await client.post("/completion", json=body, timeout=300)
                reply.raise_for_status()
            resident = psutil.Process(server.pid).memory_info().rss / MIB
            buffers: dict[tuple[Place, str], float] = {}
            for where, what, size in BUFFER.findall(log.read_text(errors="replace")):
                place: Place = "memory" if where.startswith("CPU") or "Host" in where else "device"
                key = (place, NAMES[what])
                buffers[key] = buffers.get(key, 0) + float(size)
    return plan.memory, Real(buffers=buffers, resident=resident)


def _port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def error(estimated: float, real: float) -> str:
    return f"{estimated:8.1f} {real:8.1f} {100 * (estimated - real) / real:+6.1f}%"


async def run(model: Path, cases: tuple[dict[str, Any], ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for given in cases:
            named = {key.removeprefix("llamacpp_"): value for key, value in given.items()}
            print(f"{model.name} {named or 'defaults'}")
            vulkan = "auto" if "llamacpp_n_gpu_layers" in given else "0"
            settings = Settings(llamacpp_model_path=model, llamacpp_use_vulkan=vulkan, **given)
            memory, real = await measure(settings, Path(folder))
            for part in memory.parts:
                if size := real.buffers.get((part.place, part.name)):
                    print(f"  {part.place:6} {part.name:10} {error(part.size / MIB, size)}")
            together = memory.needed("memory") / MIB
            print(f"  resident          {error(together, real.resident)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--devices", action="store_true")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.model, ON_DEVICES if arguments.devices else CASES))


if __name__ == "__main__":
    main()
