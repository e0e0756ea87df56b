"""The backends that a benchmark compares: opening one, what model it has, what memory it takes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import gguf
import psutil

from agent.core.backend_manager import Opened, get_backend
from agent.core.config import Settings
from agent.core.errors import BackendError
from agent.core.gguf_info import read_gguf
from agent.core.gguf_reader import read_header
from agent.core.model_choice import chosen_model
from agent.measure.ollama_model import OllamaModel

_MIB = 1 << 20
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What must be the same for a fair comparison."""

    name: str
    parameters: int
    """0 when unknown."""
    quantisation: str
    """As llama.cpp and Ollama write it: Q4_K_M; empty when unknown."""
    context: int = 0
    """Tokens of one request, as served."""

    @property
    def words(self) -> str:
        """One line."""
        about = [f"{self.parameters / 1e6:,.0f} million parameters"] if self.parameters else []
        about += [self.quantisation] if self.quantisation else []
        about += [f"{self.context} tokens per request"] if self.context else []
        return f"{self.name} ({', '.join(about)})" if about else self.name


class Side:
    """One backend by its settings. It is opened anew for each round, from nothing loaded."""

    def __init__(self, name: str, settings: Settings, folder: Path) -> None:
        """`folder` takes saved prefixes, so that none of earlier runs is used."""
        self.name = name
        self.settings = settings
        self.backend: str = settings.backend
        self._folder = folder
        self._ollama = OllamaModel(settings) if settings.backend == "ollama" else None

    def look(self, notice: Callable[[str], None]) -> AbstractAsyncContextManager[Opened]:
        """The backend as it is, loaded or not. `notice` gets lines worth knowing.
        Raises an EngineError."""
        return get_backend(self.settings, notice=notice, apart=self._folder)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Opened]:
        """The backend with nothing loaded before, and nothing after. Raises an EngineError."""
        async with AsyncExitStack() as stack:
            if self._ollama is not None:
                await self._ollama.unload()
                stack.push_async_callback(_leave_unloaded, self._ollama)
            yield await stack.enter_async_context(self.look(lambda _: None))

    async def facts(self, opened: Opened) -> ModelFacts:
        """Of the model that answers. Raises an EngineError."""
        backend = opened.backend
        if self._ollama is not None:
            parameters, quantisation = await self._ollama.show()
            name = backend.model
        elif self.settings.llamacpp_url is not None:
            parameters, quantisation, name = 0, "", backend.model
        else:
            path = chosen_model(self.settings)
            parameters, quantisation = await asyncio.to_thread(_facts_of_file, path)
            name = path.name
        return ModelFacts(
            name=name,
            parameters=parameters,
            quantisation=quantisation,
            context=backend.context,
        )

    def memory(self) -> dict[str, float]:
        """Resident MiB now, by the keys of measures; of a server that is not to be seen, none."""
        if self._ollama is not None:
            servers = _named("ollama") if _is_here(self.settings.ollama_local) else []
        elif self.settings.llamacpp_url is not None:
            servers = []
        else:
            servers = psutil.Process().children(recursive=True)
        resident = sum(_resident(process) for process in servers)
        return {"server_memory": resident / _MIB} if resident else {}


async def _leave_unloaded(ollama: OllamaModel) -> None:
    with contextlib.suppress(BackendError):  # why it failed has been told by then
        await ollama.unload()


def own_memory() -> dict[str, float]:
    """Resident MiB of this process now, by the key of its measure."""
    return {"own_memory": psutil.Process().memory_info().rss / _MIB}


def differences(sides: Sequence[tuple[str, ModelFacts]]) -> list[str]:
    """Lines that say why the sides cannot be compared fairly."""
    lines = []
    (first, one), *others = sides
    for name, other in others:
        if one.parameters and other.parameters:
            apart = abs(one.parameters - other.parameters) / max(one.parameters, other.parameters)
            if apart > _NEARLY_THE_SAME:
                lines.append(
                    f"Not the same model: {first} has {one.parameters:,} parameters, "
                    f"{name} {other.parameters:,}."
                )
        else:
            lines.append(f"Whether {first} and {name} have the same model is not known.")
        if one.quantisation.lower() != other.quantisation.lower():
            lines.append(
                f"Not the same quantisation: {first} has {one.quantisation or 'an unknown one'}, "
                f"{name} {other.quantisation or 'an unknown one'}."
            )
        if one.context != other.context:
            lines.append(
                f"Not the same context: {first} serves {one.context} tokens per request, "
                f"{name} {other.context}."
            )
    return lines


_NEARLY_THE_SAME = 0.02
"""Part of the parameters; Ollama may count a tied output matrix twice, or not at all."""


def _facts_of_file(path: Path) -> tuple[int, str]:
    info = read_gguf(path)
    with path.open("rb") as file:
        kind = read_header(file, path.stat().st_size).values.get("general.file_type")
    if isinstance(kind, int) and kind in set(gguf.LlamaFileType):
        return info.parameters, gguf.LlamaFileType(kind).name.removeprefix("MOSTLY_")
    return info.parameters, ""


def _is_here(url: str) -> bool:
    return urlsplit(url).hostname in _LOOPBACK


def _named(name: str) -> list[psutil.Process]:
    """Processes of that program and all that they have started."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter(["name"]):
        if (process.info["name"] or "").startswith(name):
            with contextlib.suppress(psutil.Error):
                found |= {x.pid: x for x in (process, *process.children(recursive=True))}
    return list(found.values())


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
