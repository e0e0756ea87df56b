"""What settings and profile ask for, as far as model and binary take it. Pure.

That is the top of the ladder. Refused before anything is started: a model that cannot write,
settings that contradict, a GPU that must be there and is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from agent.core.config import LoadMode
from agent.core.contradictions import can_quantise, refuse_contradictions
from agent.core.engine_choices import Choices, uses_devices
from agent.core.errors import BinaryError, ModelError
from agent.core.gguf_info import GgufInfo
from agent.core.hardware import Hardware
from agent.core.launch_ladder import Ladder, Ways
from agent.core.llamacpp_binary import Binary
from agent.core.memory_estimate import Shape, padded
from agent.core.profiles import GPU_PROFILES

_BATCH = 512
"""Tokens; a quarter of what llama-server takes. A prompt that nobody wants any more, and everybody
who writes meanwhile, waits for the end of a batch (benchmarks/release.py); prompts are read as fast
as before (within 2% on a CPU)."""
_UBATCH = 512
"""Of llama-server, in tokens."""
_DRAFT = 65
"""Tokens that speculation may add per slot: a batch must hold them (rule 10)."""

_FIXED_PROMPT = 1200
"""Tokens of a prompt besides what is shown of the repository; no role's own words take more."""

LOAD_MODES_BEFORE: dict[LoadMode, tuple[str, ...]] = {
    "auto": (),
    "mmap": ("--mmap",),
    "none": ("--no-mmap",),
    "mlock": ("--mlock", "--no-mmap"),
    "mmap+mlock": ("--mlock",),
    "dio": ("--direct-io",),
}
"""What builds without --load-mode take instead (rule 16)."""


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What a launch is planned from."""

    binary: Binary
    model: Path
    info: GgufInfo
    hardware: Hardware
    choices: Choices


def knows_load_mode(binary: Binary, mode: LoadMode) -> bool:
    """Whether the binary can be told to load like that, in its own words."""
    return binary.knows("--load-mode") or all(map(binary.knows, LOAD_MODES_BEFORE[mode]))


def open_ladder(
    basis: Basis, smaller: Callable[[], Iterable[tuple[Path, GgufInfo]]] = tuple
) -> Ladder:
    """The ladder on its first rung that fits; `smaller` looks for smaller quantisations.

    Raises ModelError for a model that cannot write, SettingsError, and BinaryError for a GPU that
    is asked for and not there.
    """
    binary, choices = basis.binary, basis.choices
    if basis.info.embedding:
        raise ModelError(
            basis.model,
            "an embedding model; it cannot write",
            fix="Set LLAMACPP_MODEL_PATH to another.",
        )
    refuse_contradictions(choices, basis.info, basis.hardware)
    _require_devices(basis)
    untouched = not any(map(choices.is_set, ("llamacpp_cache_type_k", "llamacpp_cache_type_v")))
    settings = choices.settings
    ways = Ways(
        least_context=padded(
            _FIXED_PROMPT + settings.turbo_repository_tokens + settings.turbo_answer_tokens
        ),
        quantise_kv=choices.profile == "gpu-24gb"
        and untouched
        and can_quantise(basis.info)
        and binary.knows("--cache-type-v")
        and choices.of("llamacpp_flash_attention").value != "off",
        server_fits_layers=binary.knows("--fit"),
        cpu_alone=choices.of("llamacpp_use_vulkan").value != "1",
        smaller=smaller,
    )
    return Ladder(_asked(basis), basis.hardware, ways)


def _asked(basis: Basis) -> Shape:
    info, binary = basis.info, basis.binary
    of = basis.choices.of
    mode = cast(LoadMode, of("llamacpp_load_mode").value or "auto")
    cached = binary.knows("--cache-type-k") and binary.knows("--cache-type-v")
    return Shape(
        model=basis.model,
        info=info,
        context=_context(of("llamacpp_context_size").value, info),
        slots=of("llamacpp_parallel").value,
        load_mode=mode if knows_load_mode(binary, mode) else "auto",
        devices=uses_devices(basis.choices, info),
        gpu_layers=of("llamacpp_n_gpu_layers").value,
        kv_offload=of("llamacpp_kv_offload").value is not False
        or not binary.knows("--no-kv-offload"),
        cache_type_k=(cached and of("llamacpp_cache_type_k").value) or "f16",
        cache_type_v=(cached and of("llamacpp_cache_type_v").value) or "f16",
        flash_attention=of("llamacpp_flash_attention").value != "off",
        ubatch=min(batch_of(basis.choices), of("llamacpp_ubatch_size").value or _UBATCH),
    )


def batch_of(choices: Choices) -> int:
    """Most tokens of one batch: as chosen, else as many as are computed at once, and enough for
    what speculation adds."""
    of = choices.of
    if (chosen := of("llamacpp_batch_size").value) is not None:
        return int(chosen)
    drafts = _DRAFT * int(of("llamacpp_parallel").value)
    speculates = of("llamacpp_speculation").value != "off"
    return max(_BATCH, int(of("llamacpp_ubatch_size").value or 0), drafts if speculates else 0)


def _context(wanted: int, info: GgufInfo) -> int:
    """A default that the model cannot take was nobody's wish; what was set has been checked."""
    return min(padded(wanted), info.context_length or padded(wanted))


def _require_devices(basis: Basis) -> None:
    vulkan, devices = basis.choices.of("llamacpp_use_vulkan"), basis.hardware.devices
    profile = basis.choices.profile
    if vulkan.value == "1" and not any(x.name.startswith("Vulkan") for x in devices):
        asked, lacking = "LLAMACPP_USE_VULKAN=1", "Vulkan device"
        if vulkan.origin == "profile":
            asked = f"LLAMACPP_PROFILE={profile}"
    elif profile in GPU_PROFILES and not devices:
        asked, lacking = f"LLAMACPP_PROFILE={profile}", "GPU"
    else:
        return
    raise BinaryError(
        f"{asked}, but {basis.binary.path} finds no {lacking}.",
        fix="Install the driver of the GPU (for Vulkan mesa-vulkan-drivers, or the one of NVIDIA), "
        "or set LLAMACPP_USE_VULKAN=auto and LLAMACPP_PROFILE=auto.",
    )
