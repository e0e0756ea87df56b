"""What a benchmark wants of Ollama besides answers: what its model is, and to unload it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from agent.core.config import Settings
from agent.core.errors import BackendError
from agent.core.http_errors import http_errors, new_client, understanding
from agent.core.remote_hosts import allowed_url

_FIX = "Start it with `ollama serve`, or set OLLAMA_LOCAL to where it runs."


class OllamaModel:
    """OLLAMA_MODEL at OLLAMA_LOCAL."""

    def __init__(self, settings: Settings) -> None:
        self._model = settings.ollama_model
        self._url = allowed_url(settings.ollama_local, "OLLAMA_LOCAL", settings)
        self._stall_s = settings.request_timeout_s

    async def show(self) -> tuple[int, str]:
        """Parameters and quantisation, 0 and empty where it does not tell. Raises BackendError."""
        data = await self._post("/api/show", {"model": self._model})
        with understanding(self._peer, "/api/show", fix=_FIX):
            parameters = int(data.get("model_info", {}).get("general.parameter_count") or 0)
            quantisation = str(data.get("details", {}).get("quantization_level") or "")
        return parameters, quantisation

    async def unload(self) -> None:
        """Take the model out of memory: a request without a prompt that is kept alive for 0 s.
        Raises BackendError."""
        await self._post("/api/generate", {"model": self._model, "keep_alive": 0})

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        with self._errors():
            async with new_client(self._url, stall_s=self._stall_s) as client:
                response = await client.post(path, json=body)
        if response.status_code != httpx.codes.OK:
            text = response.text[:200]
            raise BackendError(
                f"{self._peer} refused {path} ({response.status_code}): {text}", fix=_FIX
            )
        with understanding(self._peer, path, fix=_FIX):
            return json.loads(response.content)

    @property
    def _peer(self) -> str:
        return f"Ollama at {self._url}"

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with http_errors(self._peer, stall_s=self._stall_s, fix=_FIX):
            yield
