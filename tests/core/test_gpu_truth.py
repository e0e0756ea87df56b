"""Where a server really keeps model and cache: told by its log, and true of real servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.core.config import Settings
from agent.core.doctor_answers import check_gpu
from agent.core.engine_choices import Choices
from agent.core.errors import BinaryError
from agent.core.folders import cache_folder
from agent.core.gpu_flaws import find_flaws
from agent.core.gpu_truth import GpuTruth, describe, parse_truth
from agent.core.hardware import Hardware
from agent.core.llamacpp_binary import find_binary
from agent.core.llamacpp_devices import Device, find_devices
from agent.core.server_launching import open_server

MIB = 1 << 20
LISTED = """\
0.048 I cmn common_param: device_info:
0.048 I cmn common_param:   - Vulkan0 : llvmpipe (LLVM 15.0.6, 256 bits) (2048 MiB, 2048 MiB free)
0.048 I cmn common_param:   - CPU     : AMD EPYC (24105 MiB, 24105 MiB free)
"""
ALL = """\
0.00.090.300 I load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
0.00.092.300 I load_tensors: offloading output layer to GPU
0.00.092.326 I load_tensors: offloading 5 repeating layers to GPU
0.00.092.327 I load_tensors: offloaded 7/7 layers to GPU
0.00.092.332 I load_tensors:   CPU_Mapped model buffer size =     0.53 MiB
0.00.092.333 I load_tensors:      Vulkan0 model buffer size =     5.03 MiB
0.00.097.369 I llama_context: Vulkan_Host  output buffer size =     0.03 MiB
0.00.097.528 I llama_kv_cache:    Vulkan0 KV buffer size =    48.00 MiB
0.00.127.460 I sched_reserve:    Vulkan0 compute buffer size =     9.13 MiB
0.00.127.480 I sched_reserve: Vulkan_Host compute buffer size =     5.01 MiB
"""
SOME = """\
0.00.066.761 I load_tensors: offloaded 2/7 layers to GPU
0.00.066.780 I load_tensors:   CPU_Mapped model buffer size =     4.28 MiB
0.00.066.796 I load_tensors:      Vulkan0 model buffer size =     1.28 MiB
0.00.068.654 I llama_kv_cache:        CPU KV buffer size =    40.00 MiB
0.00.096.099 I llama_kv_cache:    Vulkan0 KV buffer size =     8.00 MiB
"""
NONE = """\
0.00.051.211 I load_tensors: offloaded 7/7 layers to GPU
0.00.051.214 I load_tensors:   CPU_Mapped model buffer size =     5.03 MiB
0.00.051.783 I llama_kv_cache:        CPU KV buffer size =    48.00 MiB
0.00.077.654 I sched_reserve:        CPU compute buffer size =    10.14 MiB
"""
TWO = """\
load_model_from_file: using device CUDA0 (NVIDIA GeForce RTX 3090) - 23871 MiB free
load_model_from_file: using device CUDA1 (NVIDIA GeForce RTX 3090) - 23871 MiB free
load_tensors: offloaded 25/25 layers to GPU
load_tensors:        CUDA0 model buffer size =   300.00 MiB
load_tensors:        CUDA1 model buffer size =   200.00 MiB
load_tensors:    CUDA_Host model buffer size =   100.00 MiB
llama_kv_cache:      CUDA0 KV buffer size =    20.00 MiB
llama_kv_cache:      CUDA0 KV buffer size =    30.00 MiB
llama_kv_cache:      CUDA1 KV buffer size =    40.00 MiB
"""


def sizes(truth: GpuTruth) -> dict[str, tuple[int, int]]:
    """MiB of model and KV cache by device, rounded."""
    return {x.device: (round(x.model / MIB), round(x.kv / MIB)) for x in truth.buffers}


@pytest.mark.parametrize(
    ("log", "expected", "layers"),
    [
        (LISTED + ALL, {"Vulkan0": (5, 48), "CPU": (1, 0)}, (7, 7)),
        (LISTED + SOME, {"Vulkan0": (1, 8), "CPU": (4, 40)}, (2, 7)),
        (LISTED + NONE, {"Vulkan0": (0, 0), "CPU": (5, 48)}, (0, 7)),
        (NONE, {"CPU": (5, 48)}, (0, 7)),  # "7/7" without a GPU
        (TWO, {"CUDA0": (300, 50), "CUDA1": (200, 40), "CPU": (100, 0)}, (25, 25)),
        # Fitting loads the model for a look: only what came of it counts.
        (LISTED + ALL + ALL, {"Vulkan0": (5, 48), "CPU": (1, 0)}, (7, 7)),
        ("", {}, (0, 0)),
    ],
)
def test_the_log_is_read(
    log: str, expected: dict[str, tuple[int, int]], layers: tuple[int, int]
) -> None:
    truth = parse_truth(log)
    assert sizes(truth) == expected
    assert (truth.layers, truth.of) == layers


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            LISTED + ALL,
            "Vulkan0 (llvmpipe (LLVM 15.0.6, 256 bits)): 7 of 7 layers, model 5 MiB, KV 48 MiB; "
            "CPU: model 1 MiB",
        ),
        (NONE, "CPU: model 5 MiB, KV 48 MiB"),
        (
            TWO,
            "25 of 25 layers on GPUs; CUDA0 (NVIDIA GeForce RTX 3090): model 300 MiB, KV 50 MiB; "
            "CUDA1 (NVIDIA GeForce RTX 3090): model 200 MiB, KV 40 MiB; CPU: model 100 MiB",
        ),
        ("nothing of that", ""),
    ],
)
def test_it_is_told_in_one_line(log: str, said: str) -> None:
    assert describe(parse_truth(log)) == said


GPU = Device(name="Vulkan0", description="Radeon RX 7600", memory=8 << 30, free=8 << 30)


@pytest.mark.parametrize(
    ("log", "given", "machine", "found", "fix"),
    [
        (LISTED + ALL, {}, {"devices": (GPU,)}, "", ""),
        (NONE, {}, {}, "", ""),
        ("", {}, {"devices": (GPU,)}, "", ""),  # a build that tells nothing
        (LISTED + NONE, {}, {"devices": (GPU,)}, "all of the model", "LLAMACPP_CONTEXT_SIZE"),
        (
            LISTED + NONE,
            {"llamacpp_n_gpu_layers": 0},
            {"devices": (GPU,)},
            "Vulkan0 is there",
            "LLAMACPP_N_GPU_LAYERS=0 asks",
        ),
        (LISTED + SOME, {}, {"devices": (GPU,)}, "5 are left", "smaller quantisation"),
        (
            LISTED + SOME,
            {"llamacpp_n_gpu_layers": 2},
            {"devices": (GPU,)},
            "2 of 7 layers",
            "LLAMACPP_N_GPU_LAYERS=all",
        ),
        (NONE, {}, {"cards": ("/dev/nvidia0",)}, "/dev/nvidia0", "turbo server install"),
        (
            LISTED + ALL.replace("Vulkan0 KV", "CPU KV"),
            {},
            {"devices": (GPU,)},
            "48 MiB of the KV cache",
            "newer",
        ),
        (
            LISTED + ALL.replace("Vulkan0 KV", "CPU KV"),
            {"llamacpp_kv_offload": False},
            {"devices": (GPU,)},
            "",
            "",
        ),
    ],
)
def test_a_gpu_that_is_not_used_is_told_with_the_fix(
    log: str, given: dict[str, Any], machine: dict[str, Any], found: str, fix: str
) -> None:
    hardware = Hardware(physical_cores=4, memory_available=8 << 30, **machine)
    choices = Choices(Settings(**given))
    flaws = find_flaws(parse_truth(log), choices=choices, wanted=True, hardware=hardware)
    assert len(flaws) == bool(found)
    for flaw in flaws:
        assert found in flaw.found
        assert fix in flaw.fix
    assert find_flaws(parse_truth(log), choices=choices, wanted=False, hardware=hardware) == ()


@pytest.fixture(scope="session")
def shaders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled shaders, which take 20 s without this folder of Mesa's."""
    return tmp_path_factory.mktemp("shaders")


@pytest.fixture
def software_vulkan(shaders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mesa's llvmpipe as Vulkan0."""
    monkeypatch.setenv("MESA_SHADER_CACHE_DIR", str(shaders))
    monkeypatch.setenv("GGML_VK_VISIBLE_DEVICES", "0")
    found = find_devices(find_binary(Settings(), cache=cache_folder("binaries")))
    if not any(x.name == "Vulkan0" for x in found):
        pytest.skip("no Vulkan driver that the binary finds (Debian: mesa-vulkan-drivers)")


@pytest.mark.usefixtures("own_cache", "software_vulkan")
@pytest.mark.parametrize(
    ("given", "layers", "warning"),
    [
        ({"llamacpp_use_vulkan": "1", "llamacpp_n_gpu_layers": "all"}, 7, ""),
        ({"llamacpp_use_vulkan": "1"}, 7, ""),
        ({"llamacpp_n_gpu_layers": 2}, 2, "2 of 7 layers are on Vulkan0"),
        ({"llamacpp_n_gpu_layers": 0}, 0, "LLAMACPP_N_GPU_LAYERS=0"),
        ({"llamacpp_use_vulkan": "0"}, 0, ""),
        ({}, 0, ""),  # auto: so small a model is faster on the CPU
    ],
)
async def test_real_layers_lie_where_they_were_asked_to(
    given: dict[str, Any], layers: int, warning: str
) -> None:
    notices: list[str] = []
    async with open_server(Settings(**given), notice=notices.append) as server:
        truth, description, check = (
            server.truth,
            server.description,
            check_gpu(server.truth, server.flaws),
        )
    assert (truth.layers, truth.of) == (layers, 7)
    assert bool(truth.used) == bool(layers)
    assert truth.cpu.model > 0
    if layers:
        (gpu,) = truth.used
        assert gpu.device == "Vulkan0"
        assert "llvmpipe" in gpu.description
        assert gpu.kv > 0
        assert f"{layers} of 7 layers" in description
        assert "llvmpipe" in description
    else:
        assert "Vulkan" not in description
    told = [x for x in notices if "layers" in x.lower() or "GPU" in x or "Vulkan" in x]
    assert len(told) == bool(warning), told
    assert warning in "".join(told)
    assert check.state == ("warning" if warning else "ok")
    assert check.details["layers_on_gpus"] == layers


@pytest.mark.usefixtures("own_cache")
async def test_a_gpu_that_must_be_there_and_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VK_DRIVER_FILES", "/no/such/driver.json")
    monkeypatch.setenv("VK_ICD_FILENAMES", "/no/such/driver.json")
    with pytest.raises(BinaryError, match="LLAMACPP_USE_VULKAN=1"):
        async with open_server(Settings(llamacpp_use_vulkan="1")):
            pytest.fail("it started")
