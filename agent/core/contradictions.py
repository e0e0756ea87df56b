"""Engine settings that cannot hold together, with the model or with the machine. Pure.

What a profile or a tuning result asks for never contradicts: it gives way. What the user has set
does not; it is refused by the name of the setting, before anything is started.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.core.engine_choices import Choices, uses_devices
from agent.core.errors import SettingsError
from agent.core.gguf_info import GgufInfo
from agent.core.hardware import Hardware
from agent.core.profiles import GPU_PROFILES

QUANTISED = frozenset({"q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"})
_BLOCK = 32
"""Elements of a block of every quantised type of the KV cache."""
_CPU_ALONE = "LLAMACPP_USE_VULKAN=0"


def refuse_contradictions(choices: Choices, info: GgufInfo, hardware: Hardware) -> None:
    """Raises SettingsError that names the setting and the way out."""
    for problem, fix in (
        *_with_the_model(choices, info),
        *_of_settings(choices),
        *(_with_the_devices(choices, hardware) if uses_devices(choices, info) else ()),
    ):
        raise SettingsError(problem, fix=fix)


def can_quantise(info: GgufInfo) -> bool:
    """Whether the KV cache of the model can be quantised at all."""
    return not (info.key_length % _BLOCK or info.value_length % _BLOCK)


def _with_the_model(choices: Choices, info: GgufInfo) -> Iterator[tuple[str, str]]:
    context = choices.of("llamacpp_context_size").value
    most = info.context_length
    if choices.is_set("llamacpp_context_size") and 0 < most < context:
        yield (
            f"LLAMACPP_CONTEXT_SIZE={context}, but the model was trained for {most} tokens.",
            f"Set it to {most} or less, or leave it unset.",
        )
    for field, length in (
        ("llamacpp_cache_type_k", info.key_length),
        ("llamacpp_cache_type_v", info.value_length),
    ):
        kind = choices.of(field).value
        if choices.is_set(field) and kind in QUANTISED and length % _BLOCK:
            yield (
                f"{field.upper()}={kind} needs heads of a multiple of {_BLOCK} elements; "
                f"those of this model have {length}.",
                "Set it to f16, or leave it unset.",
            )


def _of_settings(choices: Choices) -> Iterator[tuple[str, str]]:
    context, answer = (
        choices.of("llamacpp_context_size").value,
        choices.settings.turbo_answer_tokens,
    )
    if context <= answer:
        yield (
            f"LLAMACPP_CONTEXT_SIZE={context} has no room for an answer of "
            f"TURBO_ANSWER_TOKENS={answer} and its prompt.",
            "Raise the first (4096 is the default) or lower the second.",
        )
    kind = choices.of("llamacpp_cache_type_v").value
    if kind in QUANTISED and choices.of("llamacpp_flash_attention").value == "off":
        yield (
            f"LLAMACPP_CACHE_TYPE_V={kind} needs flash attention, but "
            "LLAMACPP_FLASH_ATTENTION=off.",
            "Set LLAMACPP_FLASH_ATTENTION=on, or LLAMACPP_CACHE_TYPE_V=f16.",
        )
    whole, step = choices.of("llamacpp_batch_size"), choices.of("llamacpp_ubatch_size")
    if whole.origin == step.origin == "setting" and step.value > whole.value:
        yield (
            f"LLAMACPP_UBATCH_SIZE={step.value} is more than "
            f"LLAMACPP_BATCH_SIZE={whole.value}, of which it is a part.",
            "Lower the first or raise the second.",
        )
    if choices.of("llamacpp_split_mode").value == "none" and choices.is_set(
        "llamacpp_tensor_split"
    ):
        yield (
            "LLAMACPP_TENSOR_SPLIT says how to split, but LLAMACPP_SPLIT_MODE=none.",
            "Unset one of the two.",
        )
    profile = choices.profile
    vulkan = choices.of("llamacpp_use_vulkan").value
    layers = choices.of("llamacpp_n_gpu_layers").value
    if profile in GPU_PROFILES and vulkan == "0":
        yield (
            f"LLAMACPP_PROFILE={profile} is for a GPU, but {_CPU_ALONE}.",
            "Set LLAMACPP_PROFILE=cpu, or LLAMACPP_USE_VULKAN=auto.",
        )
    if profile == "cpu" and (vulkan == "1" or layers not in ("auto", 0)):
        other = "LLAMACPP_USE_VULKAN=1" if vulkan == "1" else f"LLAMACPP_N_GPU_LAYERS={layers}"
        yield (
            f"LLAMACPP_PROFILE=cpu is for the CPU alone, but {other}.",
            "Set LLAMACPP_PROFILE=auto, or leave the other one unset.",
        )


def _with_the_devices(choices: Choices, hardware: Hardware) -> Iterator[tuple[str, str]]:
    count = len(hardware.devices)
    found = ", ".join(device.name for device in hardware.devices) or "none"
    main, split = choices.of("llamacpp_main_gpu"), choices.of("llamacpp_tensor_split")
    if main.origin == "setting" and main.value >= count:
        yield (
            f"LLAMACPP_MAIN_GPU={main.value} counts from 0, but the devices are: {found}.",
            "Set it to one of them, or leave it unset.",
        )
    if split.origin == "setting" and len(split.value.split(",")) > max(count, 1):
        yield (
            f"LLAMACPP_TENSOR_SPLIT={split.value} has more parts than there are devices: {found}.",
            "Give a part for each device, or leave it unset.",
        )
