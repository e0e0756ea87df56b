"""Every rung of the ladder, reached because memory really does not suffice.

The limits are those of the system: `ulimit -v` and a control group around the server, a control
group around everything, RLIMIT_MEMLOCK, and a device whose buffers are small. The server and the
model are real. The embedded model is small, so many slots and a cache in f32 make it large.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import psutil
import pytest
from fakes.gguf_writer import BASIC
from fakes.gguf_writer import gguf as header

from agent.core.config import Settings, embedded_model
from agent.core.errors import ServerDied
from agent.core.llamacpp_binary import find_binary
from agent.core.llamacpp_devices import find_devices
from agent.core.server_launching import open_server, prepare

CHILD = Path(__file__).parent.parent / "fakes" / "start_server.py"
MIB = 1 << 20
LARGE: dict[str, Any] = {
    "llamacpp_parallel": 16,
    "llamacpp_cache_type_k": "f32",
    "llamacpp_cache_type_v": "f32",
    "turbo_repository_tokens": 100,
    "turbo_answer_tokens": 700,
}
"""16 slots of 4,096 tokens: 384 MiB of cache. Prompts and answers need 2,000 tokens of a slot."""

pytestmark = pytest.mark.usefixtures("own_cache", "no_drivers")


@pytest.fixture
def no_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drivers of a GPU take memory, too, and not every machine has one."""
    monkeypatch.setenv("VK_DRIVER_FILES", "/nonexistent")


@pytest.fixture
def limited(tmp_path: Path, own_cache: Path) -> Callable[[str], Path]:
    """Makes a llama-server that runs `command` before it starts to serve."""

    def make(command: str) -> Path:
        real = find_binary(Settings(), cache=own_cache / "binaries")
        path = tmp_path / "llama-server"
        names = "".join(f"export {k}='{v}'\n" for k, v in real.environment.items())
        path.write_text(
            f"#!/bin/sh\n{names}"
            f'case "$1" in --help|--version|--list-devices) ;; *) {command} ;; esac\n'
            f'exec {real.path} "$@"\n',
            encoding="utf-8",
        )
        path.chmod(0o755)
        return path

    return make


class Group:
    """A control group with a limit of memory."""

    def __init__(self, folder: Path, names: tuple[str, str]) -> None:
        self.folder = folder
        self.procs = folder / "cgroup.procs"
        self._limit, self._swap = names

    def limit(self, size: int) -> None:
        (self.folder / self._limit).write_text(str(size), encoding="ascii")
        # Without a limit of its own, swap makes up for what is missing.
        with contextlib.suppress(OSError):
            swap = "0" if self._swap.endswith("swap.max") else str(size)
            (self.folder / self._swap).write_text(swap, encoding="ascii")


@pytest.fixture
def group() -> Iterator[Group]:
    name = f"turbo-test-{os.getpid()}"
    versions = {
        Path("/sys/fs/cgroup/memory"): ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        Path("/sys/fs/cgroup"): ("memory.max", "memory.swap.max"),
    }
    for mount, names in versions.items():
        folder = mount / name
        with contextlib.suppress(OSError):
            folder.mkdir()
            try:
                if (folder / names[0]).exists():
                    yield Group(folder, names)
                    return
            finally:
                folder.rmdir()
    pytest.skip("needs the right to make a control group with a memory limit")


def in_child(environment: dict[str, str] | None = None, **asked: Any) -> dict[str, Any]:
    """What start_server.py tells; it and all that it starts has ended."""
    done = subprocess.run(
        [sys.executable, CHILD, json.dumps(asked)],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, **(environment or {})},
        preexec_fn=without_lock_right if "memlock" in asked else None,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def without_lock_right() -> None:
    """A child of root may lock as much as it likes, unless it gives that right up."""
    ctypes.CDLL(None).prctl(24, 14)  # PR_CAPBSET_DROP, CAP_IPC_LOCK


@pytest.fixture
async def address_space() -> int:
    """MiB of address space that the server takes without a limit; how much of it is not ours to
    use depends on the libraries of the machine."""
    async with open_server(Settings(**LARGE)) as server:
        status = Path(f"/proc/{server.pid}/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmPeak:")]
    return int(line.split()[1]) >> 10


async def test_less_address_space_costs_context_and_then_slots(
    limited: Callable[[str], Path], address_space: int
) -> None:
    """Threads reserve address space, too, and take less of it where there is less: so the limit is
    lowered until it has cost what it should."""
    reached: list[tuple[int, int]] = []
    for limit_mib in range(address_space + 24, address_space // 4, -60):
        notices: list[str] = []
        settings = Settings(llamacpp_binary_path=limited(f"ulimit -v {limit_mib << 10}"), **LARGE)
        async with open_server(settings, notice=notices.append) as server:
            now = (server.slots, server.plan.context)
        said = [line for line in notices if "Memory does not suffice" in line]
        assert bool(said) is (now != (16, 4096))
        if now not in reached:
            reached.append(now)
        if now[0] < 16:
            assert f"{now[0]} of 16 slots" in said[-1]
            break
    assert reached[0] == (16, 4096)
    assert {context for _, context in reached[1:]} == {2048}
    assert reached == sorted(reached, reverse=True)


async def test_the_rung_is_remembered(
    limited: Callable[[str], Path], address_space: int, tmp_path: Path
) -> None:
    limit_kib = (address_space - 192 + 24) << 10
    settings = Settings(llamacpp_binary_path=limited(f"ulimit -v {limit_kib}"), **LARGE)
    logs = tmp_path / "logs"
    logs.mkdir()
    starts: list[int] = []
    for _ in range(2):
        async with open_server(settings, log_dir=logs) as server:
            assert server.plan.context == 2048
        starts.append(len(list(logs.glob("*.log"))))
    assert starts == [2, 3]


async def test_what_never_fits_is_told_at_the_end(limited: Callable[[str], Path]) -> None:
    # Its words, but always: the real one now and then ends before its log is written.
    said = "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 402653184"
    settings = Settings(llamacpp_binary_path=limited(f"echo '{said}' >&2; exit 1"), **LARGE)
    with pytest.raises(ServerDied, match="not enough memory") as caught:
        async with open_server(settings):
            pass
    assert caught.value.kind == "memory"


async def test_a_server_that_the_system_kills_is_started_smaller(
    limited: Callable[[str], Path], group: Group
) -> None:
    group.limit(320 * MIB)
    settings = Settings(llamacpp_binary_path=limited(f"echo $$ > {group.procs}"), **LARGE)
    async with open_server(settings) as server:
        assert (server.slots, server.plan.context) == (16, 2048)


@pytest.mark.parametrize(
    ("limit_mib", "slots", "context"), [(600, 16, 4096), (330, 16, 2048), (130, 4, 2048)]
)
def test_a_container_gets_what_fits_at_the_first_try(
    group: Group, own_cache: Path, limit_mib: int, slots: int, context: int
) -> None:
    group.limit(limit_mib * MIB)
    told = in_child(settings=LARGE, join=str(group.procs))
    assert (told["slots"], told["context"]) == (slots, context)
    assert told["answered"]
    assert len(list((own_cache / "turbo-local-coder" / "logs").iterdir())) == 1


def test_a_smaller_quantisation_is_the_last_resort(
    group: Group, own_cache: Path, tmp_path: Path
) -> None:
    shutil.copy(embedded_model(), tmp_path / "coder-q8_0.gguf")
    write_f32(embedded_model(), tmp_path / "coder-f32.gguf")
    (tmp_path / "another-q8_0.gguf").write_bytes(b"GGUF")
    group.limit(66 * MIB)
    told = in_child(
        settings={
            "llamacpp_model_path": str(tmp_path / "coder-f32.gguf"),
            "llamacpp_parallel": 1,
            "llamacpp_load_mode": "none",
        },
        join=str(group.procs),
    )
    assert told["model"] == "coder-q8_0.gguf"
    assert told["answered"]
    assert any("coder-q8_0.gguf instead of coder-f32.gguf" in line for line in told["notices"])


def test_weights_are_not_locked_where_the_system_forbids_it() -> None:
    told = in_child(settings={"llamacpp_profile": "low-latency"}, memlock=MIB)
    assert told["locked_kb"] == 0
    assert told["answered"]
    assert any("RLIMIT_MEMLOCK" in line and "1 MiB" in line for line in told["notices"])
    assert "--load-mode" in told["argv"] or "--no-mmap" in told["argv"]


def test_weights_are_locked_where_it_is_allowed() -> None:
    limit = psutil.Process().rlimit(psutil.RLIMIT_MEMLOCK)[1]
    if limit != psutil.RLIM_INFINITY and limit < 16 * MIB:
        pytest.skip("needs the right to lock 16 MiB of memory (ulimit -l)")
    told = in_child(settings={"llamacpp_profile": "low-latency"}, memlock=16 * MIB)
    assert told["locked_kb"] > 4 << 10
    assert not any("LOCK" in line for line in told["notices"])


@pytest.fixture
def software_device(own_cache: Path, no_drivers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Vulkan device that computes on the CPU."""
    monkeypatch.delenv("VK_DRIVER_FILES")
    monkeypatch.setenv("GGML_VK_VISIBLE_DEVICES", "0")
    if not find_devices(find_binary(Settings(), cache=own_cache / "binaries")):
        pytest.skip("needs a Vulkan device (Debian: mesa-vulkan-drivers)")


@pytest.mark.usefixtures("software_device")
@pytest.mark.parametrize(
    ("largest_buffer", "context", "expected"),
    [
        (100 * MIB, 4096, "--n-gpu-layers all"),
        (30 * MIB, 2048, "--n-gpu-layers all"),
        (3 * MIB, 4096, "--device none"),
    ],
)
async def test_a_device_that_is_too_small(
    monkeypatch: pytest.MonkeyPatch, largest_buffer: int, context: int, expected: str
) -> None:
    """It refuses buffers of more than `largest_buffer` bytes: the cache first, then the weights."""
    monkeypatch.setenv("GGML_VK_FORCE_MAX_BUFFER_SIZE", str(largest_buffer))
    notices: list[str] = []
    short = {"turbo_repository_tokens": 100, "turbo_answer_tokens": 700}
    settings = Settings(llamacpp_n_gpu_layers="all", **short)
    async with open_server(settings, notice=notices.append) as server:
        assert expected in " ".join(server.plan.argv)
        assert server.plan.context == context
        assert server.slots == 4
    if expected == "--device none":
        assert any("the CPU alone" in line for line in notices)


@pytest.mark.usefixtures("software_device")
async def test_a_cache_larger_than_the_device_is_not_even_tried(tmp_path: Path) -> None:
    """The device says how much it has: 2 GiB, which 16,384 tokens of this network would fill. A
    slot keeps the 3,840 tokens that the team's prompts and answers need by default."""
    network = {
        "block_count": 32,
        "embedding_length": 4096,
        "head_count": 32,
        "context_length": 8192,
    }
    keys = {"head_count": "attention.head_count"}
    values = {f"llama.{keys.get(name, name)}": value for name, value in network.items()}
    path = tmp_path / "wide.gguf"
    path.write_bytes(header({**BASIC, **values, "llama.attention.head_count_kv": 8}))
    settings = Settings(llamacpp_model_path=path, llamacpp_n_gpu_layers="all")
    ladder = (await prepare(settings)).ladder
    assert ladder.rung.kind in ("context", "slots")  # as much of it as this device has room for
    assert ladder.rung.shape.context == 3840


def write_f32(source: Path, target: Path) -> None:
    """The same network with weights of four times the size."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "qwen3")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        data = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, data.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
