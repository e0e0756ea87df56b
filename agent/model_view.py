"""What a model file tells of itself, and what it takes on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.core.config import Settings
from agent.core.engine_choices import Choices, uses_devices
from agent.core.gguf_info import GgufInfo, read_gguf
from agent.core.gguf_names import GgufName
from agent.core.hardware import Hardware
from agent.core.memory_estimate import MemoryEstimate, Shape, estimate
from agent.core.model_choice import chosen_model
from agent.core.model_room import gib


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A file, its header, and the memory of a launch with the settings of now."""

    path: Path
    info: GgufInfo
    shape: Shape
    memory: MemoryEstimate

    def lines(self) -> Iterator[str]:
        """The facts for people, one per line."""
        info, memory = self.info, self.memory
        quantisation = GgufName.of(self.path.name).quantisation
        yield f"{info.name} ({self.path})"
        layers = f"{info.block_count} layers of {info.embedding_length}"
        yield f"architecture    {info.architecture}, {layers}"
        yield f"parameters      {info.parameters / 1e6:,.0f} M{self._in_this_part()}"
        if quantisation:
            yield f"quantisation    {quantisation}, by its name"
        yield f"size            {gib(info.model_size or info.file_size)}"
        yield f"context         {info.context_length:,} tokens, as it was trained"
        yield f"vocabulary      {info.vocabulary:,} tokens"
        if info.embedding:
            yield "kind            embeddings; it cannot write"
            return
        yield f"KV cache        {gib(memory.kv_per_slot)} per slot of {self.shape.context:,} tokens"
        total = memory.needed("memory") + (0 if memory.shared else memory.needed("device"))
        fits = "fits" if memory.fits else "does not fit"
        free = f"{gib(memory.free)} of memory free"
        if memory.device_free and not memory.shared:
            free += f", {gib(memory.device_free)} on the GPU"
        yield f"memory          {gib(total)} with {self.shape.slots} slots; {fits}: {free}"

    def _in_this_part(self) -> str:
        split = self.info.model_size > self.info.file_size
        return " in the first of several parts" if split else ""


def facts_of_file(settings: Settings, hardware: Hardware) -> ModelFacts:
    """Read the model that the settings name. Raises ModelError."""
    path = chosen_model(settings)
    info = read_gguf(path)
    most = info.context_length or settings.llamacpp_context_size
    shape = Shape(
        model=path,
        info=info,
        context=min(settings.llamacpp_context_size, most),
        slots=settings.llamacpp_parallel,
        load_mode="auto",
        devices=bool(hardware.devices) and uses_devices(Choices(settings), info),
        gpu_layers=settings.llamacpp_n_gpu_layers,
        kv_offload=settings.llamacpp_kv_offload is not False,
        cache_type_k=settings.llamacpp_cache_type_k or "f16",
        cache_type_v=settings.llamacpp_cache_type_v or "f16",
        flash_attention=settings.llamacpp_flash_attention != "off",
        ubatch=settings.llamacpp_ubatch_size or 512,
    )
    return ModelFacts(path=path, info=info, shape=shape, memory=estimate(shape, hardware))


def facts_as_object(facts: ModelFacts) -> dict[str, Any]:
    """The facts for programs."""
    return {
        "path": str(facts.path),
        "quantisation": GgufName.of(facts.path.name).quantisation or None,
        **asdict(facts.info),
        "memory": {
            "slots": facts.shape.slots,
            "context": facts.shape.context,
            "kv_per_slot": facts.memory.kv_per_slot,
            "parts": [asdict(part) for part in facts.memory.parts],
            "free": facts.memory.free,
            "device_free": facts.memory.device_free,
            "fits": facts.memory.fits,
        },
    }
