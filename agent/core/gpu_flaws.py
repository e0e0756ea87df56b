"""Where a server could be faster because a GPU is not used, or not by all of the model. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.core.engine_choices import Choices
from agent.core.gpu_truth import GpuTruth, mib, names_of
from agent.core.hardware import Hardware


@dataclass(frozen=True, kw_only=True)
class Flaw:
    """Something that makes the server slower than it could be, and the way out."""

    found: str
    fix: str

    def __str__(self) -> str:
        return f"{self.found} {self.fix}"


def find_flaws(
    truth: GpuTruth,
    *,
    choices: Choices,
    wanted: bool,
    hardware: Hardware,
) -> tuple[Flaw, ...]:
    """Where a GPU that may be used is not used, or not by all of the model.

    `wanted`: the launch left the server its devices. Where the CPU alone is meant, or a model is so
    small that it is faster there, nothing is wrong.
    """
    if not wanted:  # the plan says why
        return ()
    names = [x.device for x in truth.gpus] or [x.name for x in hardware.devices]
    if not names:
        if not hardware.cards:
            return ()
        return (
            Flaw(
                found=f"This machine has a GPU ({hardware.cards[0]}), but the llama-server "
                "finds none.",
                fix="Install the driver of the GPU (for Vulkan mesa-vulkan-drivers, or the one of "
                "NVIDIA) or a build for it (turbo server install --variant vulkan or cuda), or set "
                "LLAMACPP_USE_VULKAN=0 if the CPU is meant.",
            ),
        )
    if not truth.told:
        return ()
    if not truth.used:
        return (
            Flaw(
                found=f"{_are(names)} there, but all of the model is on the CPU.",
                fix=_more_layers(choices),
            ),
        )
    found = []
    if truth.layers < truth.of:
        left = truth.of - truth.layers
        found.append(
            Flaw(
                found=f"{truth.layers} of {truth.of} layers are on {names_of(truth.used)}; "
                f"{left} {'is' if left == 1 else 'are'} left on the CPU, which slows all of them.",
                fix=_more_layers(choices),
            )
        )
    elif truth.cpu.kv and choices.of("llamacpp_kv_offload").value is not False:
        found.append(
            Flaw(
                found=f"{mib(truth.cpu.kv)} of the KV cache are on the CPU, though all layers are "
                f"on {names_of(truth.used)}.",
                fix="Unset LLAMACPP_TENSOR_SPLIT, or use a newer llama-server.",
            )
        )
    return tuple(found)


def _more_layers(choices: Choices) -> str:
    layers = choices.of("llamacpp_n_gpu_layers")
    if isinstance(layers.value, int):
        said = f"{layers.source}={layers.value}" if layers.origin == "setting" else "the profile"
        return (
            f"That is what {said} asks for: set LLAMACPP_N_GPU_LAYERS=all, or "
            "LLAMACPP_USE_VULKAN=0 if the CPU is meant."
        )
    return (
        "Its memory takes no more: lower LLAMACPP_CONTEXT_SIZE or LLAMACPP_PARALLEL, set "
        "LLAMACPP_CACHE_TYPE_K and LLAMACPP_CACHE_TYPE_V to q8_0, take a smaller quantisation, or "
        "close what else uses it. LLAMACPP_USE_VULKAN=0 if the CPU is meant."
    )


def _are(names: Sequence[str]) -> str:
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}"
