"""From machine, model and settings to the command line of llama-server. Pure.

The reasons of the flags are in llama_server_facts.md, whose rules are named below.
Optional flags are given only when the binary knows them; find_binary() holds the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.core.config import Settings
from agent.core.errors import ModelError
from agent.core.gguf_info import GgufInfo
from agent.core.hardware import Hardware
from agent.core.llamacpp_binary import Binary

_PADDING = 256
"""The server rounds the context of a slot up to this many tokens (rule 2)."""
_TINY_PARAMETERS = 20_000_000
_TINY_BYTES = 30_000_000
"""Below either, one thread beats several (rule 23), and a GPU costs more than it gives."""


@dataclass(frozen=True, kw_only=True)
class LaunchPlan:
    """One llama-server that can be started."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    """Variables besides those of this process."""
    model: Path
    slots: int
    context: int
    """Tokens of one slot."""
    threads: int
    port: int
    api_key_file: Path
    """Where the owner writes the key before the start; in a folder that only we can read."""
    slot_dir: Path | None
    """Where the server saves slots; None when it saves none."""
    key_in_environment: bool
    """The binary knows no key file and takes the key as LLAMA_API_KEY."""
    build: str
    """Version and commit of the binary, as far as it tells them."""
    stamp: str
    """Another one for another build of the binary."""
    description: str
    """Build and threads, for reports; model, slots and context are asked of the server itself."""
    notes: tuple[str, ...]
    """Where the plan is not what the settings say, and why."""


def plan_launch(
    *,
    binary: Binary,
    model: Path,
    info: GgufInfo,
    hardware: Hardware,
    settings: Settings,
    port: int,
    slot_dir: Path | None,
    api_key_file: Path,
) -> LaunchPlan:
    """Decide the command line. `slot_dir` is the folder for saved slots; None: none are saved.

    Raises ModelError for a model that computes embeddings, since it cannot write.
    """
    if info.embedding:
        raise ModelError(
            model, "an embedding model; it cannot write", fix="Set LLAMACPP_MODEL_PATH to another."
        )
    notes: list[str] = []
    tiny = info.parameters < _TINY_PARAMETERS or info.file_size < _TINY_BYTES
    slots = settings.llamacpp_parallel
    context = _context(settings, info, notes)
    threads = _threads(settings, hardware, tiny=tiny, notes=notes)
    if info.file_size > hardware.memory_available:
        notes.append(
            f"The model has {_gib(info.file_size)}, but only {_gib(hardware.memory_available)} of "
            "memory are free: expect it to be slow."
        )
    argv = [*binary.command, "--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--ctx-size", str(slots * _padded(context)), "--parallel", str(slots)]
    argv += ["--threads", str(threads)]
    known = _Known(binary)
    argv += known.flag("--no-kv-unified") + known.flag("--cache-ram", "0")  # rule 2
    argv += known.flag("--no-cache-idle-slots")
    if slot_dir is not None:
        argv += known.flag("--slot-save-path", str(slot_dir))
    if info.sliding_window and slot_dir is not None:
        argv += known.flag("--swa-full")  # rule 4: else a restored prefix is not reused
    argv += _devices(known, settings, tiny=tiny, notes=notes)
    argv += _speculation(known, settings, notes)
    if tiny:
        argv += known.flag("--no-warmup")  # a third of the start-up time of such a model
    argv += known.flag("--jinja") + known.flag("--metrics") + known.flag("--slots")
    argv += known.flag("--sse-ping-interval", "1")  # rule 12: TERM waits for a ping of streams
    argv += known.flag("--no-ui") or known.flag("--no-webui")
    argv += known.flag("--offline") + known.flag("--log-colors", "off")
    key_file = known.flag("--api-key-file", str(api_key_file))
    return LaunchPlan(
        argv=(*argv, *key_file),
        # Without this a crash starts a debugger that takes seconds to print what nobody reads.
        environment={**binary.environment, "GGML_NO_BACKTRACE": "1"},
        model=model,
        slots=slots,
        context=context,
        threads=threads,
        port=port,
        api_key_file=api_key_file,
        slot_dir=slot_dir if known.flag("--slot-save-path") else None,
        key_in_environment=not key_file,
        build=_build(binary),
        stamp=binary.stamp,
        description=_describe(binary, threads),
        notes=tuple(notes),
    )


class _Known:
    """Flags of one binary."""

    def __init__(self, binary: Binary) -> None:
        self._binary = binary

    def flag(self, name: str, *values: str) -> list[str]:
        """The flag with its values; nothing when the binary does not know it."""
        return [name, *values] if self._binary.knows(name) else []


def _context(settings: Settings, info: GgufInfo, notes: list[str]) -> int:
    wanted = _padded(settings.llamacpp_context_size)
    if not info.context_length or wanted <= info.context_length:
        return wanted
    # A default was nobody's wish, so falling short of it is no news.
    if "llamacpp_context_size" in settings.model_fields_set:
        notes.append(
            f"The model was trained for {info.context_length} tokens, so a slot gets these "
            f"instead of the {settings.llamacpp_context_size} of LLAMACPP_CONTEXT_SIZE."
        )
    return info.context_length


def _threads(settings: Settings, hardware: Hardware, *, tiny: bool, notes: list[str]) -> int:
    wanted = settings.llamacpp_threads
    if wanted is None:
        return 1 if tiny else hardware.physical_cores
    if wanted > hardware.physical_cores:
        notes.append(
            f"LLAMACPP_THREADS={wanted}, but there are {hardware.physical_cores} physical cores; "
            "more threads than cores are slower."
        )
    return min(wanted, hardware.physical_cores)


def _devices(known: _Known, settings: Settings, *, tiny: bool, notes: list[str]) -> list[str]:
    """Rule 16: layers stay unset, so that the server fits them, unless the user sets them."""
    layers = settings.llamacpp_n_gpu_layers
    vulkan = settings.llamacpp_use_vulkan
    if vulkan == "0" or (vulkan == "auto" and layers == "auto" and tiny):
        if layers != "auto":
            notes.append("LLAMACPP_USE_VULKAN=0, so LLAMACPP_N_GPU_LAYERS is not used.")
        return known.flag("--device", "none") or known.flag("--n-gpu-layers", "0")
    if layers == "auto":
        return []
    return known.flag("--n-gpu-layers", str(layers)) or known.flag("-ngl", str(layers))


def _speculation(known: _Known, settings: Settings, notes: list[str]) -> list[str]:
    """Rule 10: drafts from n-grams of the context need no draft model."""
    if settings.llamacpp_speculation == "off":
        return []
    flags = known.flag("--spec-type", "ngram-mod")
    if not flags:
        notes.append("This llama-server cannot speculate, so LLAMACPP_SPECULATION is not used.")
        return []
    flags += known.flag("--spec-ngram-mod-n-min", "4")
    return flags + known.flag("--spec-ngram-mod-n-match", "16")


def _padded(tokens: int) -> int:
    return -(-tokens // _PADDING) * _PADDING


def _build(binary: Binary) -> str:
    return " ".join(x for x in (binary.version, binary.commit) if x)


def _describe(binary: Binary, threads: int) -> str:
    return f"llama-server {_build(binary)} on {threads} thread{'s' if threads > 1 else ''}"


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
