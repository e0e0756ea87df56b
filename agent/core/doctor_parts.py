"""What a server is made of: the binary, the model and the devices, each as a `Check`."""

from __future__ import annotations

from typing import Any

from agent.core.config import Settings
from agent.core.doctor_check import Check, failed, warned
from agent.core.engine_choices import Choices, uses_devices
from agent.core.errors import TurboError
from agent.core.folders import cache_folder
from agent.core.gguf_info import GgufInfo, read_gguf
from agent.core.hardware import Hardware, with_devices
from agent.core.llamacpp_binary import Binary, find_binary
from agent.core.model_choice import chosen_model


def check_binary(settings: Settings) -> tuple[Binary | None, Check]:
    """The llama-server that a run takes; None without one."""
    try:
        binary = find_binary(settings, cache=cache_folder("binaries"))
    except TurboError as error:
        return None, failed("binary", error)
    about = f"{binary.version} {binary.commit}".strip() or "of unknown version"
    details = {"path": str(binary.path), "version": binary.version, "commit": binary.commit}
    found = f"{binary.path} ({about})"
    if binary.skipped:
        return binary, warned(
            "binary",
            f"{found}; {'; '.join(binary.skipped)}",
            "turbo server binaries lists every llama-server here.",
            details,
        )
    return binary, Check(name="binary", state="ok", found=found, details=details)


def check_model(settings: Settings) -> tuple[GgufInfo | None, Check]:
    """The model file, by its header; None when it cannot serve."""
    try:
        path = chosen_model(settings)
        info = read_gguf(path)
    except TurboError as error:
        return None, failed("model", error)
    found = (
        f"{info.name or path.name}: {info.architecture}, {info.parameters / 1e6:,.0f} M parameters"
    )
    details: dict[str, Any] = {
        "path": str(path),
        "architecture": info.architecture,
        "parameters": info.parameters,
        "trained_context": info.context_length,
    }
    if info.embedding:
        return None, Check(
            name="model",
            state="failure",
            found=f"{path} is an embedding model; it cannot write",
            fix="Set LLAMACPP_MODEL_PATH to a model that writes, such as Qwen2.5-Coder Instruct.",
            details=details,
        )
    if settings.llamacpp_model_path is None:
        return info, warned(
            "model",
            f"{found}; the embedded one, which demonstrates the machinery",
            "turbo models recommend names a coding model for this machine.",
            details,
        )
    return info, Check(name="model", state="ok", found=found, details=details)


async def check_devices(
    settings: Settings, info: GgufInfo | None, binary: Binary, hardware: Hardware
) -> Check:
    """The GPUs that the binary finds, and those that it does not find. `info`: the model, where
    one can be used."""
    hardware = hardware if hardware.devices else await with_devices(hardware, binary, cache=None)
    devices = hardware.devices
    details = {
        "devices": [
            {"name": x.name, "description": x.description, "memory": x.memory, "free": x.free}
            for x in devices
        ],
        "cards": list(hardware.cards),
    }
    shown = "; ".join(f"{x.name} ({x.description})" for x in devices)
    found = shown or (f"none, though there is {hardware.cards[0]}" if hardware.cards else "no GPU")
    if info is not None and not uses_devices(Choices(settings), info):
        found += "; the CPU alone is used"
    elif hardware.cards and not devices:
        return warned(
            "devices",
            found,
            "Install the driver of the GPU, or a build for it (turbo server install).",
            details,
        )
    return Check(name="devices", state="ok", found=found, details=details)
